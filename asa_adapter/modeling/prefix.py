"""`SharedPrefix`: the tokens that several prompts begin with (system turn and tools), run once for all of them.

Each prompt then costs only the tokens after the prefix. Not every architecture can continue from a copy of its cache,
so a sample is tried first, and prompts are run whole where its results differ.
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

# The fewest shared tokens that are worth a cache, and how often a family of prompts is divided at most.
_SHORTEST_PREFIX = 16
_DEEPEST_DIVISION = 40


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
            if type(layer) is DynamicLayer and layer.is_initialized:  # it grows by concatenation, so a view is enough
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
        if type(layer) is DynamicLayer and layer.is_initialized
        for tensor in (layer.keys, layer.values)
    ]
    return copy.deepcopy(cache, {id(tensor): tensor for tensor in shared})


class Sharing:
    """Shared prefixes of one model, unused where they would change its results.

    Args:
        model: a causal language model, in evaluation mode when prefixes are used.
        faithful: called with a prefix and a sample of prompts; tells whether they have the same results after the
            prefix's cache as when run whole. Called once, with the longest prefix.

    Attributes:
        holds: the result of that call; None before it.
    """

    def __init__(self, model: nn.Module, faithful: Callable[[SharedPrefix, list[Prompt]], bool]) -> None:
        self._model = model
        self._faithful = faithful
        self.holds: bool | None = None

    def prefixes(self, prompts: Sequence[Prompt]) -> Iterator[tuple[SharedPrefix, list[int]]]:
        """Each shared prefix with the indices of the prompts to run after it; every prompt occurs once."""
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
        sample = [min(prompts, key=len), max(prompts, key=len)]  # two, so that copies and padding are checked too
        # These errors mean that a cache cannot be copied, spread or joined. Whole prompts are slower, not wrong.
        with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
            return self._faithful(prefix, sample)
        return False
