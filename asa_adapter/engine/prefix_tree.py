"""What prompts begin with in common, as a tree: system turn, tools, what several rows offer, turns of a conversation.

A model reads each beginning once, going on from the one it continues. A prompt then costs only the tokens behind it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

Prompt = Sequence[int]

# The fewest tokens that a beginning adds to the one it continues, and the fewest that it saves: it costs a pass of its
# own, and the prompts behind it run apart from the others.
_SHORTEST = 16
_LEAST_SAVED = 32


@dataclass(eq=False)
class Beginning:
    """Tokens that prompts begin with.

    Attributes:
        length: number of tokens; 0 for prompts that share nothing worth it.
        parent: the shorter beginning that this one continues; None if it is read from the first token on.
        rows: indices of the prompts that are run right behind it, in the order of their tokens. Those that begin with
            a longer one are not among them.
        prompt: the index of a prompt that begins with it.
    """

    length: int
    parent: "Beginning | None" = None
    rows: list[int] = field(default_factory=list)
    prompt: int = 0

    @property
    def added(self) -> int:
        """Number of tokens that are read for it, behind its parent's."""
        return self.length - (self.parent.length if self.parent else 0)

    def lineage(self) -> "list[Beginning]":
        """All that it continues, the shortest first, and itself."""
        return [*(self.parent.lineage() if self.parent else ()), self]


def beginnings(prompts: Sequence[Prompt]) -> list[Beginning]:
    """The tree of the prompts' shared beginnings, with all prompts behind them, so that few tokens have to be run.

    A beginning comes after its parent, and before what does not continue that; so those which are still needed are the
    parents of the latest one. The last token of a prompt is never part of a beginning. Prompts that share nothing come
    last, behind one of length 0.
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    common = [common_tokens(prompts[a], prompts[b]) for a, b in itertools.pairwise(order)]
    alone = Beginning(0)
    found: list[Beginning] = []
    parts = [(range(len(order)), alone)] if order else []
    while parts:
        part, parent = parts.pop()
        if len(part) == 1:
            parent.rows.append(order[part.start])
            continue
        least = min(common[part.start : part.stop - 1])
        length = min(least, min(len(prompts[order[i]]) for i in part) - 1)
        if _worth_sharing(len(part), length - parent.length):
            parent = Beginning(length, parent if parent is not alone else None, [], order[part.start])
            found.append(parent)
        cuts = [part.start, *(i + 1 for i in part[:-1] if common[i] == least), part.stop]
        parts += reversed([(range(begin, end), parent) for begin, end in itertools.pairwise(cuts)])
    return [*found, *([alone] if alone.rows else [])]


def tokens_run(prompts: Sequence[Prompt]) -> int:
    """Number of tokens in prompts whose beginnings are run once."""
    return sum(
        beginning.added + sum(len(prompts[row]) - beginning.length for row in beginning.rows)
        for beginning in beginnings(prompts)
    )


def common_tokens(a: Prompt, b: Prompt) -> int:
    """Number of tokens that two prompts begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _worth_sharing(prompts: int, tokens: int) -> bool:
    """Whether so many prompts should share a beginning of so many tokens more."""
    return tokens >= _SHORTEST and (prompts - 1) * tokens >= _LEAST_SAVED
