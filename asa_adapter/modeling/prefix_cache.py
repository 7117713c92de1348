"""`SharedPrefix`: the tokens that several prompts begin with (system turn and tools), run once for all of them.

Each prompt then costs only the tokens after the prefix. Not every architecture can continue from a copy of its cache,
some not at every length, and for some padding changes the results. So a sample is tried first. Where its results are
not those of each prompt alone, prompts are run whole, only those of one length together, or one by one.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from asa_adapter.engine.prefix_tree import Beginning, Prompt, beginnings
from asa_adapter.modeling.forward import CACHE, forward, input_device

# The fewest tokens behind the prefix in the longer prompt of a sample that is made up.
_SAMPLE = 16

# Cache layers that grow by concatenation: their keys and values are never changed in place.
_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)


@dataclass(frozen=True)
class SharedPrefix:
    """A prompt prefix that the model has read.

    Attributes:
        length: number of tokens; 0 where prompts are run whole.
        cache: the model's cache after these tokens; None where `length` is 0.
    """

    length: int = 0
    cache: Any = None

    def longer(self, model: nn.Module, tokens: Prompt) -> "SharedPrefix":
        """Runs all tokens that are not in this prefix, which stays; of length 0 where the model returns no cache."""
        if not tokens:
            return SharedPrefix()
        ids = torch.tensor([list(tokens[self.length :])], device=input_device(model))
        cache = self.spread(1) if self.length else None
        cache = getattr(forward(model, ids, ids.new_ones(1, len(tokens)), cache, use_cache=True), CACHE, None)
        return SharedPrefix() if cache is None else SharedPrefix(len(tokens), cache)

    def spread(self, rows: int) -> Any:
        """A copy of the cache for a batch of `rows` rows: a forward pass changes the cache that it is given."""
        cache = copied_cache(self.cache)
        for layer in cache.layers:
            if type(layer) in _GROWING and layer.is_initialized:  # so a view is enough
                for name in ("keys", "values"):
                    setattr(layer, name, getattr(layer, name).expand(rows, -1, -1, -1))
            else:
                layer.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return cache


def copied_cache(cache: Any) -> Any:
    """A copy of a cache, to be used in its place; keys and values that are never changed in place are shared."""
    shared = [
        tensor
        for layer in getattr(cache, "layers", ())
        if type(layer) in _GROWING and layer.is_initialized
        for tensor in (layer.keys, layer.values)
    ]
    return copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})


@contextlib.contextmanager
def unusable_cache_ignored() -> Iterator[None]:
    """Suppresses the errors of a cache that cannot be copied, spread, joined or continued from.

    Whole prompts are slower, not wrong. Lack of memory and faults of the device are raised: they come from elsewhere.
    """
    try:
        yield
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return


class _SampledSpan(NamedTuple):
    """What a sample covers: a prefix of `begin` tokens and prompts of up to `end` tokens, of different lengths or not.

    For whole prompts, `begin` is the length of the shortest. `nested` is true for a prefix that continues another.
    """

    begin: int
    end: int
    mixed: bool
    nested: bool

    def covers(self, other: "_SampledSpan") -> bool:
        """Whether whatever changes at a length between `other`'s ends, such as a rope, changes within this one too."""
        within = self.begin <= other.begin and other.end <= self.end
        return within and self.mixed >= other.mixed and self.nested >= other.nested


@dataclass
class _SharingFindings:
    """The spans that were tried, and whether the results were right."""

    held: list[_SampledSpan] = field(default_factory=list)
    failed: list[_SampledSpan] = field(default_factory=list)

    def about(self, span: _SampledSpan) -> bool | None:
        """What earlier samples say of a span; None if they say nothing."""
        if any(span.covers(failed) for failed in self.failed):
            return False
        return True if any(held.covers(span) for held in self.held) else None

    def add(self, span: _SampledSpan, holds: bool) -> bool:
        (self.held if holds else self.failed).append(span)
        return holds


class PrefixSharing:
    """Shared prefixes of one model, and batches, unused where they would change its results.

    A sample stands for all prompts whose lengths lie between those of its prefix and of its longest prompt. The first
    sample spans all prefixes at once; if it fails, each that saves more than a sample costs is tried by itself.

    Args:
        model: a causal language model, in evaluation mode when prefixes are used.
        faithful: called with a prefix and a sample, the shortest and the longest of some prompts; tells whether both,
            run together after the prefix's cache, have the same results as when each is run whole and alone. Called
            with a prefix of length 0 to learn whether whole prompts may be run in one batch.
    """

    def __init__(self, model: nn.Module, faithful: Callable[[SharedPrefix, list[Prompt]], bool]) -> None:
        self._model = model
        self._faithful = faithful
        self._shared = _SharingFindings()
        self._whole = _SharingFindings()

    @property
    def holds(self) -> bool | None:
        """Whether any prefix may be shared; None before a sample was tried."""
        return bool(self._shared.held) if self._shared.held or self._shared.failed else None

    def prefixes(self, prompts: Sequence[Prompt]) -> Iterator[tuple[SharedPrefix, list[int]]]:
        """Each shared prefix with the indices of the prompts to run after it; every prompt occurs once.

        Prompts to be run whole come last, with a prefix of length 0. They are in groups of one length if padding would
        change the results, and one by one if any batch would.
        """
        found = beginnings(prompts)
        shared = [beginning for beginning in found if beginning.length and beginning.rows]
        self._try_all(shared, prompts)
        whole = [row for beginning in found if not beginning.length for row in beginning.rows]
        read = _ReadPrefixes(self._model, prompts)
        for beginning in shared:
            if self._may_share(beginning, prompts, read):
                yield read(beginning), beginning.rows
            else:
                whole += beginning.rows
        yield from self.whole(prompts, whole)

    def whole(
        self, prompts: Sequence[Prompt], rows: Iterable[int] | None = None
    ) -> Iterator[tuple[SharedPrefix, list[int]]]:
        """The indices of prompts that may be run whole in one batch, each time with a prefix of length 0.

        Args:
            prompts: prompts as token ids.
            rows: indices of those to run; None takes all.
        """
        rows = list(range(len(prompts)) if rows is None else rows)
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(len(prompts[row]), []).append(row)
        if len(rows) > 1 and self._may_run_together([prompts[row] for row in rows]):
            groups = {0: rows}
        elif len(rows) > 1 and not self._may_run_together([max((prompts[row] for row in rows), key=len)] * 2):
            groups = {row: [row] for row in rows}
        for group in groups.values():
            yield SharedPrefix(), group

    def _try_all(self, shared: list[Beginning], prompts: Sequence[Prompt]) -> None:
        """Tries one sample for several prefixes: the shortest of them, and the longest of the prompts behind them.

        The longest prompt is cut short to be the other one of the sample.
        """
        if len(shared) > 1:
            begin = min(beginning.length for beginning in shared)
            longest = max((prompts[row] for beginning in shared for row in beginning.rows), key=len)
            sample = [longest, longest[: begin + _SAMPLE]]
            parent = Beginning(begin // 2) if any(beginning.parent for beginning in shared) else None
            self._may_share(Beginning(begin, parent, [0, 1]), sample, _ReadPrefixes(self._model, sample))

    def _may_share(self, beginning: Beginning, prompts: Sequence[Prompt], read: "_ReadPrefixes") -> bool:
        sample, span = _sharing_sample(beginning, prompts)
        known = self._shared.about(span)
        if known is not None or (
            self._shared.failed and _saved_tokens(beginning) <= _sample_price(beginning, prompts)
        ):
            return bool(known)
        with unusable_cache_ignored():
            prefix = read(beginning)
            return self._shared.add(span, bool(prefix.length) and self._faithful(prefix, sample))
        return self._shared.add(span, False)  # the cache cannot be continued

    def _may_run_together(self, prompts: list[Prompt]) -> bool:
        sample, span = _sharing_sample(Beginning(0, None, list(range(len(prompts)))), prompts)
        span = span._replace(begin=len(sample[0]))
        known = self._whole.about(span)
        return self._whole.add(span, self._faithful(SharedPrefix(), sample)) if known is None else known


class _ReadPrefixes:
    """The prefixes that a model has read and that the next one may continue.

    Args:
        model: a causal language model.
        prompts: prompts as token ids, which the beginnings are those of.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Prompt]) -> None:
        self._model, self._prompts = model, prompts
        self._kept: list[tuple[Beginning, SharedPrefix]] = []

    def __call__(self, beginning: Beginning) -> SharedPrefix:
        """The prefix of a beginning. Those of its parents are kept, all others are forgotten."""
        lineage = beginning.lineage()
        self._kept = [(kept, prefix) for kept, prefix in self._kept if any(kept is one for one in lineage)]
        prefix = self._kept[-1][1] if self._kept else SharedPrefix()
        for one in lineage[len(self._kept) :]:
            prefix = prefix.longer(self._model, self._prompts[one.prompt][: one.length])
            self._kept.append((one, prefix))
        return prefix


def _sharing_sample(beginning: Beginning, prompts: Sequence[Prompt]) -> tuple[list[Prompt], _SampledSpan]:
    """The shortest and the longest prompt behind a beginning, and what they cover."""
    members = [prompts[row] for row in beginning.rows]
    shortest, longest = min(members, key=len), max(members, key=len)
    mixed = len(shortest) < len(longest)
    return [shortest, longest], _SampledSpan(beginning.length, len(longest), mixed, beginning.parent is not None)


def _saved_tokens(beginning: Beginning) -> int:
    """Number of tokens that the prompts right behind a beginning need not run again."""
    return (len(beginning.rows) - 1) * beginning.length


def _sample_price(beginning: Beginning, prompts: Sequence[Prompt]) -> int:
    """Number of tokens that a sample costs: two prompts alone, and what is behind the prefix, padded."""
    (shortest, longest), _ = _sharing_sample(beginning, prompts)
    return len(shortest) + len(longest) + 2 * (len(longest) - beginning.length)
