"""`SharedPrefix`: the tokens that several prompts begin with (system turn and tools), run once for all of them.

Each prompt then costs only the tokens after the prefix. Not every architecture can continue from a copy of its cache,
some not at every length, and for some padding changes the results. So a sample is tried first. Where its results are
not those of each prompt alone, prompts are run whole, only those of one length together, or one by one.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from asa_adapter.modeling.forward import CACHE, forward, input_device

Prompt = Sequence[int]

# The fewest shared tokens that are worth a cache, and how often a family of prompts is divided at most.
_SHORTEST_PREFIX = 16
_DEEPEST_DIVISION = 40

# Cache layers that grow by concatenation: their keys and values are never changed in place.
_GROWING = (DynamicLayer, DynamicSlidingWindowLayer)


class Family(NamedTuple):
    """Prompts that begin with the same tokens.

    Attributes:
        rows: indices of the prompts.
        length: number of tokens in the shared prefix; 0 where sharing is not worth it.
    """

    rows: list[int]
    length: int

    @property
    def saved(self) -> int:
        """Number of tokens that need not be run."""
        return (len(self.rows) - 1) * self.length


def families(prompts: Sequence[Prompt]) -> list[Family]:
    """All prompts in families, divided so that few tokens have to be run; the longest shared prefix first.

    The last token of a prompt is never part of the prefix. Prompts that share nothing come last, as one family of
    length 0.
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    ordered = [prompts[i] for i in order]
    common = [_common(a, b) for a, b in itertools.pairwise(ordered)]
    found = _divided(ordered, common, range(len(ordered)), _DEEPEST_DIVISION)
    found = [Family([order[i] for i in family.rows], family.length) for family in found]
    shared = sorted((f for f in found if f.length), key=lambda f: -f.length)
    alone = [row for f in found if not f.length for row in f.rows]
    return [*shared, *([Family(alone, 0)] if alone else [])]


def _divided(ordered: list[Prompt], common: list[int], part: range, depth: int) -> list[Family]:
    """The families of a part of the sorted prompts: one, or several if dividing saves more tokens.

    Args:
        ordered: all prompts, sorted.
        common: number of tokens that each prompt shares with the next one in `ordered`.
        part: indices in `ordered`.
        depth: how often the part may still be divided, each time where neighbours share the fewest tokens.
    """
    if len(part) < 2:
        return [Family(list(part), 0)] if part else []
    least = min(common[part.start : part.stop - 1])
    length = min(least, min(len(ordered[i]) for i in part) - 1)
    whole = Family(list(part), length if length >= _SHORTEST_PREFIX else 0)
    if not depth:
        return [whole]
    cuts = [part.start, *(i + 1 for i in part[:-1] if common[i] == least), part.stop]
    parts = [
        family
        for begin, end in itertools.pairwise(cuts)
        for family in _divided(ordered, common, range(begin, end), depth - 1)
    ]
    return parts if sum(family.saved for family in parts) > whole.saved else [whole]


def _common(a: Prompt, b: Prompt) -> int:
    """Number of tokens that two prompts begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class SharedPrefix:
    """A prompt prefix that the model has read.

    Attributes:
        length: number of tokens; 0 where prompts are run whole.
        cache: the model's cache after these tokens; None where `length` is 0.
    """

    length: int = 0
    cache: Any = None

    @classmethod
    def of(cls, model: nn.Module, tokens: Prompt) -> "SharedPrefix":
        """Runs the tokens; a prefix of length 0 where there are none or the model returns no cache."""
        if not tokens:
            return cls()
        ids = torch.tensor([list(tokens)], device=input_device(model))
        cache = getattr(forward(model, ids, torch.ones_like(ids), use_cache=True), CACHE, None)
        return cls() if cache is None else cls(len(tokens), cache)

    def spread(self, rows: int) -> Any:
        """A copy of the cache for a batch of `rows` rows: a forward pass changes the cache that it is given."""
        cache = copied(self.cache)
        for layer in cache.layers:
            if type(layer) in _GROWING and layer.is_initialized:  # so a view is enough
                for name in ("keys", "values"):
                    setattr(layer, name, getattr(layer, name).expand(rows, -1, -1, -1))
            else:
                layer.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return cache


def copied(cache: Any) -> Any:
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


class _Span(NamedTuple):
    """What a sample covers: a prefix of `begin` tokens and prompts of up to `end` tokens, of different lengths or not.

    For whole prompts, `begin` is the length of the shortest.
    """

    begin: int
    end: int
    mixed: bool

    def covers(self, other: "_Span") -> bool:
        """Whether whatever changes at a length between `other`'s ends, such as a rope, changes within this one too."""
        return self.begin <= other.begin and other.end <= self.end and (self.mixed or not other.mixed)


@dataclass
class _Findings:
    """The spans that were tried, and whether the results were right."""

    held: list[_Span] = field(default_factory=list)
    failed: list[_Span] = field(default_factory=list)

    def about(self, span: _Span) -> bool | None:
        """What earlier samples say of a span; None if they say nothing."""
        if any(span.covers(failed) for failed in self.failed):
            return False
        return True if any(held.covers(span) for held in self.held) else None

    def add(self, span: _Span, holds: bool) -> bool:
        (self.held if holds else self.failed).append(span)
        return holds


class Sharing:
    """Shared prefixes of one model, and batches, unused where they would change its results.

    A sample stands for all prompts whose lengths lie between those of its prefix and of its longest prompt. The first
    sample spans all families at once; if it fails, each family that saves more than a sample costs is tried by itself.

    Args:
        model: a causal language model, in evaluation mode when prefixes are used.
        faithful: called with a prefix and a sample, the shortest and the longest of some prompts; tells whether both,
            run together after the prefix's cache, have the same results as when each is run whole and alone. Called
            with a prefix of length 0 to learn whether whole prompts may be run in one batch.
    """

    def __init__(self, model: nn.Module, faithful: Callable[[SharedPrefix, list[Prompt]], bool]) -> None:
        self._model = model
        self._faithful = faithful
        self._shared = _Findings()
        self._whole = _Findings()

    @property
    def holds(self) -> bool | None:
        """Whether any prefix may be shared; None before a sample was tried."""
        return bool(self._shared.held) if self._shared.held or self._shared.failed else None

    def prefixes(self, prompts: Sequence[Prompt]) -> Iterator[tuple[SharedPrefix, list[int]]]:
        """Each shared prefix with the indices of the prompts to run after it; every prompt occurs once.

        Prompts to be run whole come last, with a prefix of length 0. They are in groups of one length if padding would
        change the results, and one by one if any batch would.
        """
        found = families(prompts)
        shared = [family for family in found if family.length]
        self._try_all(shared, prompts)
        whole = [row for family in found if not family.length for row in family.rows]
        for family in shared:
            if self._may_share(family, prompts):
                yield self._prefix(family, prompts), family.rows
            else:
                whole += family.rows
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

    def _try_all(self, shared: list[Family], prompts: Sequence[Prompt]) -> None:
        """Tries one sample for several families: the shortest of their prefixes, and the longest of their prompts.

        The longest prompt is cut short to be the other one of the sample.
        """
        if len(shared) > 1:
            begin = min(family.length for family in shared)
            longest = max((prompts[row] for family in shared for row in family.rows), key=len)
            self._may_share(Family([0, 1], begin), [longest, longest[: begin + _SHORTEST_PREFIX]])

    def _may_share(self, family: Family, prompts: Sequence[Prompt]) -> bool:
        sample, span = _sample(family, prompts)
        known = self._shared.about(span)
        if known is not None or (self._shared.failed and family.saved <= _price(family, prompts)):
            return bool(known)
        prefix = self._prefix(family, prompts)
        return self._shared.add(span, bool(prefix.length) and self._faithful(prefix, sample))

    def _may_run_together(self, prompts: list[Prompt]) -> bool:
        sample, span = _sample(Family(list(range(len(prompts))), 0), prompts)
        span = span._replace(begin=len(sample[0]))
        known = self._whole.about(span)
        return self._whole.add(span, self._faithful(SharedPrefix(), sample)) if known is None else known

    def _prefix(self, family: Family, prompts: Sequence[Prompt]) -> SharedPrefix:
        return SharedPrefix.of(self._model, prompts[family.rows[0]][: family.length])


def _sample(family: Family, prompts: Sequence[Prompt]) -> tuple[list[Prompt], _Span]:
    """The shortest and the longest prompt of a family, and what they cover."""
    members = [prompts[row] for row in family.rows]
    shortest, longest = min(members, key=len), max(members, key=len)
    return [shortest, longest], _Span(family.length, len(longest), len(shortest) < len(longest))


def _price(family: Family, prompts: Sequence[Prompt]) -> int:
    """Number of tokens that a sample of a family costs: two prompts alone, and what is behind the prefix, padded."""
    (shortest, longest), _ = _sample(family, prompts)
    return len(shortest) + len(longest) + 2 * (len(longest) - family.length)
