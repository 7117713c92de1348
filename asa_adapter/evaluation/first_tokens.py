"""The first token of the answer under each of many pushes: how the trainer screens its grid of settings.

Shared prompt prefixes are run once for all prompts, and the rest of the prompts, except the last token, once for each
batch. Each push then costs one pass of a single token from a copy of the cache, through the later blocks only.
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
    """A vector to add to the residual stream at the last prompt token.

    Attributes:
        layer: index of the decoder block to whose output it is added.
        steps: (K, D) float32 vectors, one for each domain.
        domain: (N,) int64, the domain of each prompt as an index into `steps`.
    """

    layer: int
    steps: torch.Tensor
    domain: torch.Tensor


class Screened(NamedTuple):
    """The first token of N answers, without (row 0) and under each of P pushes.

    Attributes:
        triggered: (1 + P, N) bool, whether the most likely first token opens a tool call.
        probability: (1 + P, N) float32 probability of the token that opens a call.
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
    """Computes the first token of each answer, without and under each push.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        prompts: N prompts as token ids.
        pushes: P pushes, each applied alone.
        start_id: id of the token that opens a tool call.
        pad_id: id of the token to pad with.
        batch_size: number of prompts in a batch.
        progress: whether to show a progress bar.
    """
    shape = (1 + len(pushes), len(prompts))
    screened = Screened(np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32))
    total = len(prompts) * (1 + len(pushes))
    sharing = logit_sharing(model, pad_id)
    with evaluation_mode(model), progress_bar(total, "screen", progress) as bar:
        for prefix, members in sharing.prefixes(prompts):
            # Some caches cannot be shared, but can still be continued by one token; some cannot even be that.
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
    """Yields (B, V) logits of the bare model, then under each push.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        prompt: B prompts.
        pushes: pushes for all N prompts.
        rows: indices of the B prompts among the N.
        resumable: layers after which only the later blocks are run.
    """
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
    """Those of `layers` after which the later blocks can be run alone, with the same logits on a sample.

    They can if no later block needs anything from the earlier ones but the residual stream.
    """
    outputs, whole = _kept(model, blocks, sample, layers)

    def resumes(layer: int) -> bool:
        # If a model fails when blocks are skipped, all of its blocks are run.
        with (
            contextlib.suppress(AttributeError, LookupError, RuntimeError, TypeError, ValueError),
            resumed(blocks, layer, outputs[layer], torch.zeros(1)),
        ):
            return torch.equal(sample.logits(model), whole)  # exactly: it is the same arithmetic
        return False

    return {layer for layer in outputs if resumes(layer)}


def _kept(
    model: nn.Module, blocks: nn.ModuleList, prompt: Prefilled, layers: Collection[int]
) -> tuple[dict[int, Any], torch.Tensor]:
    """Outputs of the blocks at `layers`, by layer, for the prompts' last token; and the bare model's (B, V) logits."""
    with recorded(blocks, layers, _copy) as outputs:
        logits = prompt.logits(model)
    return {layer: found[-1] for layer, found in outputs.items()}, logits


def _copy(call: BlockCall) -> Any:
    """A block's output with a copy of the state, which later blocks cannot change in place."""
    return replace_hidden_state(call.output, hidden_state(call.output).clone())
