"""The screen of the trainer's grid: what the first token of the answer would be under each push.

Almost all of a prompt comes before its last token, so that part is run once for each batch of rows; every push then
costs one pass of a single token behind a copy of the cache.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.progress import progress_bar
from asa_adapter.prompts import batches_by_length, pad_batch
from asa_adapter.residual import hidden_state, replace_hidden_state
from asa_adapter.states import evaluation_mode, forward_keywords, input_device, rounding

# Mean difference of logits, relative to their spread, at which a cached pass still counts as the full one.
_CACHE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Push:
    """A change of the residual stream at one layer.

    Attributes:
        layer: the decoder block after which it is added.
        steps: (K, D) float32, what is added in each domain.
        domain: (N,) int64, the domain of each prompt.
    """

    layer: int
    steps: torch.Tensor
    domain: torch.Tensor


class Screened(NamedTuple):
    """The answer's first token under each push; row 0 is the unpushed model.

    Attributes:
        triggered: (1 + P, N) whether the most likely first token opens a tool call.
        probability: (1 + P, N) float32 probability of the token that opens one.
    """

    triggered: NDArray[np.bool_]
    probability: NDArray[np.float32]


def first_tokens(
    model: nn.Module,
    blocks: nn.ModuleList,
    prompts: Sequence[Sequence[int]],
    pushes: Sequence[Push],
    start_id: int,
    *,
    pad_id: int,
    batch_size: int,
    progress: bool,
) -> Screened:
    """What the first token of the answer would be.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        prompts: N prompts as token ids.
        pushes: P changes at the last prompt token, each tried alone.
        start_id: the token that opens a call.
        pad_id: token to pad with.
        batch_size: prompts run together.
        progress: whether to show a bar.
    """
    shape = (1 + len(pushes), len(prompts))
    screened = Screened(np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32))
    total = len(prompts) * (1 + len(pushes))
    cached = None
    with evaluation_mode(model), progress_bar(total, "screen", progress) as bar:
        for batch in batches_by_length(prompts, batch_size):
            prefix = _Prefix(model, *pad_batch([prompts[i] for i in batch], pad_id, "left", input_device(model)))
            if cached is None:
                cached = prefix.cache_is_faithful()
            for p, push in enumerate([None, *pushes]):
                logits = prefix.logits(blocks, push, batch, cached)
                screened.triggered[p, batch] = (logits.argmax(dim=1) == start_id).cpu().numpy()
                screened.probability[p, batch] = logits.softmax(dim=1)[:, start_id].cpu().numpy()
                bar.update(len(batch))
    return screened


class _Prefix:
    """A batch of left-padded prompts, run up to their last token."""

    def __init__(self, model: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self._model, self._ids, self._mask = model, ids, mask
        self._positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        self._cache: Any = None
        if ids.shape[1] > 1:
            self._cache = getattr(self._run(slice(0, -1), None, use_cache=True), "past_key_values", None)

    def logits(self, blocks: nn.ModuleList, push: Push | None, rows: Sequence[int], cached: bool) -> torch.Tensor:
        """(B, V) logits of the first answer token, with the state pushed at the last prompt token."""
        if push is None:
            return self._last_logits(cached)
        delta = push.steps[push.domain[list(rows)]]

        def add(_module: nn.Module, _args: Any, output: Any) -> Any:
            state = hidden_state(output).clone()
            state[:, -1] = (state[:, -1].float() + delta.to(state.device)).to(state.dtype)
            return replace_hidden_state(output, state)

        with blocks[push.layer].register_forward_hook(add):
            return self._last_logits(cached)

    def cache_is_faithful(self) -> bool:
        """Whether the last token behind the cache gives the logits of the whole prompt; some architectures do not."""
        if self._cache is None:
            return False
        whole, behind = self._last_logits(False), self._last_logits(True)
        tolerance = max(_CACHE_TOLERANCE, rounding(self._model))
        return bool((whole - behind).abs().mean() <= tolerance * whole.std())

    def _last_logits(self, cached: bool) -> torch.Tensor:
        if cached and self._cache is not None:
            output = self._run(slice(-1, None), copy.deepcopy(self._cache), use_cache=True)
        else:
            output = self._run(slice(None), None, use_cache=False)
        return output.logits[:, -1].float()

    def _run(self, part: slice, cache: Any, use_cache: bool) -> Any:
        keywords = forward_keywords(self._model, position_ids=self._positions[:, part], logits_to_keep=1)
        if cache is not None:
            keywords["past_key_values"] = cache
        end = self._mask.shape[1] if part.stop is None else part.stop
        return self._model(
            input_ids=self._ids[:, part], attention_mask=self._mask[:, :end], use_cache=use_cache, **keywords
        )
