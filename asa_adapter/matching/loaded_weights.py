"""Checks by their fingerprint that the weights an engine loads are those the adapter was fitted for."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.fingerprint import fingerprinted_parameters, model_fingerprint, same_fingerprint, stored_rows
from asa_adapter.modeling.weight_digests import weight_digest


class WatchedWeights:
    """The weights of a checkpoint on their way into an engine; digests of those that the fingerprint reads are kept.

    A fingerprint of a sample needs copies of the few weights that it looks into.

    Args:
        hf_config: the model's configuration, of transformers.
        stored: the fingerprint in the adapter; None if it has none, and nothing is checked.
    """

    def __init__(self, hf_config: Any, stored: str | None) -> None:
        self._stored = stored
        self._seen: dict[str, torch.Tensor] = {}
        self._digests: dict[str, str] = {}
        self._wanted: set[str] = set()
        if stored is not None:
            with torch.device("meta"):
                self._model = AutoModelForCausalLM.from_config(hf_config)
            self._rows = stored_rows(stored)
            self._wanted, self._vocabulary = fingerprinted_parameters(self._model, sampled=self._rows is None)

    def passing(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same weights, one by one."""
        for name, weight in weights:
            if name in self._wanted and self._rows is None:
                self._seen[name] = weight.detach().to("cpu", copy=True)
            elif name in self._wanted:
                self._digests[name] = weight_digest(weight[: self._rows] if name in self._vocabulary else weight)
                self._seen[name] = torch.empty_like(weight, device="meta")
            yield name, weight

    def check(self) -> None:
        """Compares the weights with the adapter's fingerprint; passes if they cannot be compared.

        Raises:
            IncompatibleModelError: the weights differ.
        """
        if self._stored is None:
            return
        self._model.load_state_dict(self._seen, strict=False, assign=True)
        self._model.tie_weights()
        known = {id(weight): self._digests.get(name) for name, weight in self._model.named_parameters()}
        read = {weight: digest for weight, digest in known.items() if digest is not None}
        same, why = same_fingerprint(self._stored, model_fingerprint(self._model, None, self._stored, read))
        if same is False:
            raise IncompatibleModelError(f"{why}. Serve the model that the adapter was fitted for, or fit it again")
