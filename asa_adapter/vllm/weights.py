"""Checks by their fingerprint that the weights vLLM loads are those the adapter was fitted for."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.fingerprint import model_fingerprint, same_weights
from asa_adapter.modeling.residual import decoder_blocks


class WatchedWeights:
    """The weights of a checkpoint on their way into vLLM; copies of those that the fingerprint reads are kept.

    Args:
        hf_config: the model's configuration, of transformers.
        stored: the fingerprint in the adapter; None if it has none, and nothing is checked.
    """

    def __init__(self, hf_config: Any, stored: str | None) -> None:
        self._stored = stored
        self._seen: dict[str, torch.Tensor] = {}
        self._wanted: set[str] = set()
        if stored is not None:
            with torch.device("meta"):
                self._model = AutoModelForCausalLM.from_config(hf_config)
            self._wanted = _read_by_fingerprint(self._model)

    def passing(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights, one by one."""
        for name, weight in weights:
            if name in self._wanted:
                self._seen[name] = weight.detach().to("cpu", copy=True)
            yield name, weight

    def check(self) -> None:
        """Compares the weights with the adapter's fingerprint; passes if they cannot be compared.

        Raises:
            IncompatibleModelError: the weights differ.
        """
        if self._stored is None:
            return
        self._model.load_state_dict(self._seen, strict=False, assign=True)
        same, why = same_weights(self._stored, model_fingerprint(self._model))
        if same is False:
            raise IncompatibleModelError(f"{why}. Serve the model that the adapter was fitted for, or fit it again")


def _read_by_fingerprint(model: Any) -> set[str]:
    """Names of the parameters in the embedding and in the three blocks that a fingerprint is made of."""
    blocks = decoder_blocks(model)
    parts = [model.get_input_embeddings(), *(blocks[i] for i in {0, len(blocks) // 2, len(blocks) - 1})]
    read = {id(parameter) for part in parts for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in read}
