"""The screen of the trainer's grid: what the first token of the answer would be under each push.

What prompts share is run once for all of them, and the rest up to the last token once for each batch of rows. Every
push then costs one pass of a single token behind a copy of the cache, and only through the blocks behind the push.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.data.batches import batches_by_length
from asa_adapter.evaluation.prefill import Prefilled, can_branch, logit_sharing
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.processes import progress_bar
from asa_adapter.modeling.recording import BlockCall, pushed, recorded, resumed
from asa_adapter.modeling.residual import hidden_state, replace_hidden_state


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
    sharing = logit_sharing(model, pad_id)
    with evaluation_mode(model), progress_bar(total, "screen", progress) as bar:
        for prefix, members in sharing.prefixes(prompts):
            # Some caches cannot be shared, but go on by one token all the same; some cannot even do that.
            cached = bool(prefix.length) or can_branch(model, [prompts[i] for i in members], prefix, pad_id)
            begun = prefix if cached else None
            sample = Prefilled(model, [prompts[i] for i in members[:2]], begun, pad_id)
            layers = _resumable(model, blocks, sample, {push.layer for push in pushes}) if cached else set()
            for batch in batches_by_length([prompts[i] for i in members], batch_size):
                rows = [members[i] for i in batch]
                prompt = Prefilled(model, [prompts[i] for i in rows], begun, pad_id)
                for p, logits in enumerate(_each_push(model, blocks, prompt, pushes, rows, layers)):
                    screened.triggered[p, rows] = (logits.argmax(dim=1) == start_id).cpu().numpy()
                    screened.probability[p, rows] = logits.softmax(dim=1)[:, start_id].cpu().numpy()
                    bar.update(len(rows))
    return screened


def _each_push(
    model: nn.Module,
    blocks: nn.ModuleList,
    prompt: Prefilled,
    pushes: Sequence[Push],
    rows: Sequence[int],
    resumable: Collection[int],
) -> Iterator[torch.Tensor]:
    """(B, V) logits of the bare model, then under each push; behind a layer that can be resumed, of the rest alone."""
    outputs, bare = _kept(model, blocks, prompt, resumable)
    yield bare
    for push in pushes:
        delta = push.steps[push.domain[list(rows)]]
        output = outputs.get(push.layer)
        branch = pushed(blocks[push.layer], delta) if output is None else resumed(blocks, push.layer, output, delta)
        with branch:
            logits = prompt.logits(model)
        yield logits


def _resumable(model: nn.Module, blocks: nn.ModuleList, sample: Prefilled, layers: Collection[int]) -> set[int]:
    """The layers behind which the model can be resumed: no later block needs anything else from those before."""
    outputs, whole = _kept(model, blocks, sample, layers)

    def resumes(layer: int) -> bool:
        # Whatever a model makes of blocks that do nothing: it is run as a whole then.
        with (
            contextlib.suppress(AttributeError, LookupError, RuntimeError, TypeError, ValueError),
            resumed(blocks, layer, outputs[layer], torch.zeros(1)),
        ):
            return torch.equal(sample.logits(model), whole)  # the same sums on the same numbers
        return False

    return {layer for layer in outputs if resumes(layer)}


def _kept(
    model: nn.Module, blocks: nn.ModuleList, prompt: Prefilled, layers: Collection[int]
) -> tuple[dict[int, Any], torch.Tensor]:
    """Outputs of some blocks for the prompts' last token, and the bare model's logits."""
    with recorded(blocks, layers, _copy) as outputs:
        logits = prompt.logits(model)
    return {layer: found[-1] for layer, found in outputs.items()}, logits


def _copy(call: BlockCall) -> Any:
    """A block's output that nothing behind the block can write into."""
    return replace_hidden_state(call.output, hidden_state(call.output).clone())
