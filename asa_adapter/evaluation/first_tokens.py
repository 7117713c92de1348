"""The first token of the answer under each of many pushes: how the trainer screens its grid of settings.

Shared prompt prefixes are run once for all prompts, and the rest of the prompts, except the last token, once for each
batch. Each push then costs one pass of a single token from a copy of the cache, through the later blocks only.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from asa_adapter.answering.prefill import Prefilled, can_branch, prefill_sharing
from asa_adapter.engine.padded_batches import batches_by_length
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.progress import progress_bar
from asa_adapter.modeling.recording import BlockCall, pushed, recorded, resumed
from asa_adapter.modeling.residual_stream import hidden_state, replace_hidden_state

# Of pushes or of prompts: a number for each row of logits, or one for all.
Numbers = list[int] | int


@dataclass(frozen=True)
class Push:
    """A vector to add to the residual stream at the last prompt token.

    Attributes:
        layer: index of the decoder block to whose output it is added.
        steps: (K, D) float32 vectors, one for each domain.
        domain: (N,) int64, the domain of each prompt as an index into `steps`.
        rows: (N,) bool, the prompts that are pushed; None for all.
    """

    layer: int
    steps: torch.Tensor
    domain: torch.Tensor
    rows: torch.Tensor | None = None

    def of(self, prompts: Sequence[int]) -> "Push":
        """The same push for some of the prompts."""
        some = list(prompts)
        return replace(self, domain=self.domain[some], rows=None if self.rows is None else self.rows[some])

    def at(self, row: int) -> torch.Tensor | None:
        """The (D,) vector for one prompt; None where it is not pushed."""
        return self.steps[self.domain[row]] if self.rows is None or self.rows[row] else None


def push_parts(pushes: Sequence[Push]) -> list[Any]:
    """All that tells pushes from others: numbers and arrays."""
    asked = [p.rows if p.rows is not None else torch.ones(len(p.domain), dtype=torch.bool) for p in pushes]
    steps = [part for p in pushes for part in (p.layer, p.steps.numpy(), p.domain.numpy())]
    return [*steps, *(some.numpy() for some in asked)]


class Screened(NamedTuple):
    """The first token of N answers, without (row 0) and under each of P pushes; 0 where a prompt is not pushed.

    Attributes:
        triggered: (1 + P, N) bool, whether the most likely first token opens a tool call.
        probability: (1 + P, N) float32 probability that the first token opens a call.
        margin: (1 + P, N) float32 logit of the likeliest token that opens a call, minus that of the likeliest other.
    """

    triggered: NDArray[np.bool_]
    probability: NDArray[np.float32]
    margin: NDArray[np.float32]


def first_tokens(
    model: Any,
    blocks: nn.ModuleList | None,
    prompts: Sequence[Sequence[int]],
    pushes: Sequence[Push],
    openings: Sequence[int],
    *,
    pad_id: int,
    batch_size: int,
    progress: bool,
) -> Screened:
    """Computes the first token of each answer, without and under each push.

    Args:
        model: a causal language model, also one that another engine runs.
        blocks: its decoder blocks; None for a model that another engine runs.
        prompts: N prompts as token ids.
        pushes: P pushes, each applied alone.
        openings: ids of the tokens with which a tool call begins.
        pad_id: id of the token to pad with.
        batch_size: number of prompts in a batch.
        progress: whether to show a progress bar.
    """
    shape = (1 + len(pushes), len(prompts))
    screened = Screened(np.zeros(shape, dtype=bool), *np.zeros((2, *shape), dtype=np.float32))

    def keep(numbers: Numbers, rows: Numbers, logits: torch.Tensor) -> None:
        for part, values in zip(screened, _screened_logits(logits, openings), strict=True):
            part[numbers, rows] = values

    _run_pushes(model, blocks, prompts, pushes, keep, pad_id=pad_id, batch_size=batch_size, progress=progress)
    return screened


def first_token_probabilities(
    model: Any,
    blocks: nn.ModuleList | None,
    prompts: Sequence[Sequence[int]],
    sets: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    progress: bool,
) -> NDArray[np.float32]:
    """(S, N) probabilities that the answer of the bare model begins with a token of each of S sets, in one run.

    Args:
        sets: S lists of token ids.
        model, blocks, prompts, pad_id, batch_size, progress: as in `first_tokens`.
    """
    found = np.zeros((len(sets), len(prompts)), dtype=np.float32)

    def keep(_: Numbers, rows: Numbers, logits: torch.Tensor) -> None:
        for part, tokens in zip(found, sets, strict=True):
            part[rows] = _screened_logits(logits, tokens).probability

    _run_pushes(model, blocks, prompts, [], keep, pad_id=pad_id, batch_size=batch_size, progress=progress)
    return found


def _run_pushes(
    model: Any,
    blocks: nn.ModuleList | None,
    prompts: Sequence[Sequence[int]],
    pushes: Sequence[Push],
    keep: Callable[[Numbers, Numbers, torch.Tensor], None],
    *,
    pad_id: int,
    batch_size: int,
    progress: bool,
) -> None:
    """Gives the numbers of pushes, indices of prompts and first tokens' (M, V) logits of each pass to `keep`."""
    total = len(prompts) + sum(len(prompts) if p.rows is None else int(p.rows.sum()) for p in pushes)
    with evaluation_mode(model), progress_bar(total, "screen", progress) as bar:
        if blocks is None:
            asked = [(push.layer, push.at) for push in pushes]
            for given in model.pushed_logits(prompts, asked, bar.update):
                keep(*given)
            return
        sharing = prefill_sharing(model, pad_id)
        for prefix, members in sharing.prefixes(prompts):
            # Some caches cannot be shared, but can still be continued by one token; some cannot even be that.
            cached = bool(prefix.length) or can_branch(model, [prompts[i] for i in members], prefix, pad_id)
            begun = prefix if cached else None
            sample = Prefilled(model, [prompts[i] for i in members[:2]], begun, pad_id)
            layers = _resumable_layers(model, blocks, sample, {push.layer for push in pushes}) if cached else set()
            for batch in batches_by_length([prompts[i] for i in members], batch_size):
                rows = [members[i] for i in batch]
                prompt = Prefilled(model, [prompts[i] for i in rows], begun, pad_id)
                of_batch = [push.of(rows) for push in pushes]
                for numbers, places, logits in _logits_of_each_push(
                    model, blocks, prompt, of_batch, layers, batch_size
                ):
                    keep(numbers, [rows[place] for place in places], logits)
                    bar.update(len(places))


def _screened_logits(logits: torch.Tensor, openings: Sequence[int]) -> Screened:
    """What `Screened` holds of the first tokens' (B, V) logits, (B,) each."""
    ids = torch.tensor(sorted(set(openings)), device=logits.device)
    probability = (logits[:, ids].logsumexp(dim=1) - logits.logsumexp(dim=1)).exp()
    best, tokens = logits.topk(min(len(ids) + 1, logits.shape[1]), dim=1)
    margin = logits[:, ids].amax(dim=1) - best.masked_fill(torch.isin(tokens, ids), -torch.inf).amax(dim=1)
    triggered = torch.isin(logits.argmax(dim=1), ids)
    return Screened(*(part.cpu().numpy() for part in (triggered, probability.float(), margin.float())))


def _logits_of_each_push(
    model: nn.Module,
    blocks: nn.ModuleList,
    prompt: Prefilled,
    pushes: Sequence[Push],
    resumable: Collection[int],
    batch_size: int,
) -> Iterator[tuple[list[int], list[int], torch.Tensor]]:
    """Yields first tokens' logits (M, V), with the number of the push (0: none) and the place in the batch of each.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        prompt: B prompts.
        pushes: pushes for these prompts.
        resumable: layers after which only the later blocks are run.
        batch_size: greatest M where pushes of few prompts each are run together.
    """
    outputs, bare = _kept_outputs(model, blocks, prompt, resumable)
    everyone = list(range(len(bare)))
    yield [0] * len(bare), everyone, bare
    for layer, numbers, places in _pushes_together(pushes, len(bare), batch_size):
        delta = torch.stack(
            [pushes[n - 1].steps[pushes[n - 1].domain[i]] for n, i in zip(numbers, places, strict=True)]
        )
        some = prompt if places == everyone else prompt.chosen(places)
        if (output := outputs.get(layer)) is None:
            branch = pushed(blocks[layer], delta)
        else:
            state = hidden_state(output)
            branch = resumed(blocks, layer, replace_hidden_state(output, state[places]), delta)
        with branch:
            logits = some.logits(model)
        yield numbers, places, logits


def _pushes_together(pushes: Sequence[Push], rows: int, batch_size: int) -> Iterator[tuple[int, list[int], list[int]]]:
    """Yields a layer, and numbers of pushes and places of rows whose first tokens are run in one batch.

    A push of all rows is a batch of its own, which can use the prompts' cache as it is; others share batches.
    """
    waiting: dict[int, list[tuple[int, int]]] = {}
    for number, push in enumerate(pushes, start=1):
        places = list(range(rows)) if push.rows is None else push.rows.nonzero()[:, 0].tolist()
        if len(places) == rows:
            yield push.layer, [number] * rows, places
        else:
            waiting.setdefault(push.layer, []).extend((number, place) for place in places)
    for layer, pairs in waiting.items():
        for begin in range(0, len(pairs), batch_size):
            some = pairs[begin : begin + batch_size]
            yield layer, [number for number, _ in some], [place for _, place in some]


def _resumable_layers(model: nn.Module, blocks: nn.ModuleList, sample: Prefilled, layers: Collection[int]) -> set[int]:
    """Those of `layers` after which the later blocks can be run alone, with the same first token's logits on a sample.

    They can if no later block needs anything from the earlier ones but the residual stream.
    """
    outputs, whole = _kept_outputs(model, blocks, sample, layers)

    def resumes(layer: int) -> bool:
        # If a model fails when blocks are skipped, all of its blocks are run.
        with (
            contextlib.suppress(AttributeError, LookupError, RuntimeError, TypeError, ValueError),
            resumed(blocks, layer, outputs[layer], torch.zeros(1)),
        ):
            return torch.equal(sample.logits(model), whole)  # exactly: it is the same arithmetic
        return False

    return {layer for layer in outputs if resumes(layer)}


def _kept_outputs(
    model: nn.Module, blocks: nn.ModuleList, prompt: Prefilled, layers: Collection[int]
) -> tuple[dict[int, Any], torch.Tensor]:
    """Outputs of the blocks at `layers`, by layer, for the prompts' last token; and the bare model's (B, V) logits."""
    with recorded(blocks, layers, _copied_output) as outputs:
        logits = prompt.logits(model)
    return {layer: found[-1] for layer, found in outputs.items()}, logits


def _copied_output(call: BlockCall) -> Any:
    """A block's output with a copy of the state, which later blocks cannot change in place."""
    return replace_hidden_state(call.output, hidden_state(call.output).clone())
