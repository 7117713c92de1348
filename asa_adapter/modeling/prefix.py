"""`SharedPrefix`: what prompts begin with alike (system turn and tools), run once for all of them.

A prompt behind such a prefix costs its own tokens alone. Not every architecture can go on from a copy of its cache, so
a run looks at a sample first and falls back to whole prompts where the sample comes out otherwise.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer

from asa_adapter.modeling.forward import CACHE, forward, input_device

Prompt = Sequence[int]

# Shorter shared beginnings are not worth a cache, nor is a finer division of the prompts than this.
_SHORTEST_PREFIX = 16
_DEEPEST_DIVISION = 40


class Family(NamedTuple):
    """Prompts that begin alike.

    Attributes:
        rows: their indices.
        length: how many tokens they share and leave out; 0 where it is not worth it.
    """

    rows: list[int]
    length: int

    @property
    def saved(self) -> int:
        """Tokens that need not be run."""
        return (len(self.rows) - 1) * self.length


def families(prompts: Sequence[Prompt]) -> list[Family]:
    """All prompts, divided so that the fewest tokens have to be run; the longest beginning first.

    Every prompt keeps at least its last token for itself. What shares nothing comes last, as one family of length 0.
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
    """Some neighbours in order: one family, or divided where they share the least, if that saves more."""
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
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True)
class SharedPrefix:
    """A beginning that was run.

    Attributes:
        length: its number of tokens; 0 where prompts are run whole.
        cache: the model's cache behind them.
    """

    length: int = 0
    cache: Any = None

    @classmethod
    def of(cls, model: nn.Module, tokens: Prompt) -> "SharedPrefix":
        """Runs the beginning; one of length 0 where there is none, or the model gives no cache."""
        if not tokens:
            return cls()
        ids = torch.tensor([list(tokens)], device=input_device(model))
        cache = getattr(forward(model, ids, torch.ones_like(ids), use_cache=True), CACHE, None)
        return cls() if cache is None else cls(len(tokens), cache)

    def spread(self, rows: int) -> Any:
        """A copy of the cache for a batch of rows; using a cache changes it."""
        cache = copied(self.cache)
        for layer in cache.layers:
            if type(layer) is DynamicLayer and layer.is_initialized:  # grows by concatenation: a view will do
                for name in ("keys", "values"):
                    setattr(layer, name, getattr(layer, name).expand(rows, -1, -1, -1))
            else:
                layer.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return cache


def copied(cache: Any) -> Any:
    """A copy of a cache that can be used in its place; keys and values that are never written into are shared."""
    shared = [
        tensor
        for layer in getattr(cache, "layers", ())
        if type(layer) is DynamicLayer and layer.is_initialized
        for tensor in (layer.keys, layer.values)
    ]
    return copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})


class Sharing:
    """Shared prefixes of one model, for as long as they give what whole prompts give.

    Args:
        model: a causal language model, in evaluation mode when it is used.
        faithful: whether some prompts come out behind a prefix as they do whole; asked once, on the longest prefix.

    Attributes:
        holds: what it said; None before.
    """

    def __init__(self, model: nn.Module, faithful: Callable[[SharedPrefix, list[Prompt]], bool]) -> None:
        self._model = model
        self._faithful = faithful
        self.holds: bool | None = None

    def prefixes(self, prompts: Sequence[Prompt]) -> Iterator[tuple[SharedPrefix, list[int]]]:
        """Each shared prefix with the prompts that begin with it; every prompt comes once."""
        found = families(prompts)
        while found and found[0].length and self.holds is not False:
            family = found[0]
            prefix = SharedPrefix.of(self._model, prompts[family.rows[0]][: family.length])
            if self.holds is None:
                self.holds = bool(prefix.length) and self._checked(prefix, [prompts[i] for i in family.rows])
            if self.holds:
                yield prefix, family.rows
                found = found[1:]
        if rest := [row for family in found for row in family.rows]:
            yield SharedPrefix(), rest

    def _checked(self, prefix: SharedPrefix, prompts: list[Prompt]) -> bool:
        sample = [min(prompts, key=len), max(prompts, key=len)]  # two, so that copies and padding are looked at too
        # A cache that cannot be copied, spread or joined; running whole prompts is slower, not wrong.
        with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
            return self._faithful(prefix, sample)
        return False
