"""The screen of the trainer's grid: what the first token of the answer would be under each push.

What prompts share is run once for all of them, and the rest up to the last token once for each batch of rows; every
push then costs one pass of a single token behind a copy of the cache.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.forward import evaluation_mode
from asa_adapter.prefix import Prefilled, SharedPrefix, Sharing
from asa_adapter.progress import progress_bar
from asa_adapter.prompts import batches_by_length
from asa_adapter.residual import hidden_state, replace_hidden_state


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

    def prefilled(prefix: SharedPrefix, some: Sequence[Sequence[int]]) -> Prefilled:
        return Prefilled(model, some, prefix, pad_id)

    sharing = Sharing(model, lambda prefix, sample: prefilled(prefix, sample).is_faithful(model))
    with evaluation_mode(model), progress_bar(total, "screen", progress) as bar:
        for prefix, members in sharing.prefixes(prompts):
            # Some caches cannot be shared, but go on by one token all the same; some cannot even do that.
            sample = [prompts[i] for i in members[:2]]
            cached = bool(sharing.holds) or prefilled(prefix, sample).is_faithful(model)
            for batch in batches_by_length([prompts[i] for i in members], batch_size):
                rows = [members[i] for i in batch]
                prompt = prefilled(prefix, [prompts[i] for i in rows])
                for p, push in enumerate([None, *pushes]):
                    with _pushed(blocks, push, rows):
                        logits = prompt.logits(model, cached)
                    screened.triggered[p, rows] = (logits.argmax(dim=1) == start_id).cpu().numpy()
                    screened.probability[p, rows] = logits.softmax(dim=1)[:, start_id].cpu().numpy()
                    bar.update(len(rows))
    return screened


def _pushed(blocks: nn.ModuleList, push: Push | None, rows: Sequence[int]) -> contextlib.AbstractContextManager[Any]:
    """The model with the states of some rows pushed at the last token, for a moment."""
    if push is None:
        return contextlib.nullcontext()
    delta = push.steps[push.domain[list(rows)]]

    def add(_module: nn.Module, _args: Any, output: Any) -> Any:
        state = hidden_state(output).clone()
        state[:, -1] = (state[:, -1].float() + delta.to(state.device)).to(state.dtype)
        return replace_hidden_state(output, state)

    return blocks[push.layer].register_forward_hook(add)
