"""Rows that belong together: near-duplicates and turns of one conversation stand in one split, and count as one."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

from asa_adapter.data.rows import row_names

NEAR_DUPLICATE = 0.8
# Share of groups among rows below which that is worth a word.
_FEW = 0.8

# Texts compared with all others at once: memory grows with this times the number of texts, not with its square.
_BLOCK = 512


class Leak(NamedTuple):
    """Two rows of different splits that belong together.

    Attributes:
        kind: "exact" (except for case and spaces), "near", or "conversation" (cut from one).
        first: split and row of one, as "train:row-17".
        second: split and row of the other.
    """

    kind: str
    first: str
    second: str


def near_duplicates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of indices, the smaller first, of texts whose character 3- to 5-grams have a cosine above 0.8."""
    if len(texts) < 2 or not any(text.strip() for text in texts):
        return
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), dtype=np.float32).fit_transform(texts)
    for start in range(0, len(texts), _BLOCK):
        similar = (grams[start : start + _BLOCK] @ grams.T).tocoo()
        alike = similar.data > NEAR_DUPLICATE
        pairs = zip((start + similar.row[alike]).tolist(), similar.col[alike].tolist(), strict=True)
        yield from sorted((i, j) for i, j in pairs if i < j)


def near_duplicate_groups(texts: Sequence[str]) -> list[list[int]]:
    """Indices of all texts in groups; a chain of near-duplicates is one group.

    Example:
        >>> near_duplicate_groups(["Say it in French, please.", "A joke!", "Say it in french, please!"])
        [[0, 2], [1]]
    """
    return indices_of_groups(_linked_groups(near_duplicates(texts), len(texts)))


def indices_of_groups(numbers: NDArray[np.int64]) -> list[list[int]]:
    """The indices with each number, in the order of their first."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, number in enumerate(numbers.tolist()):
        groups[number].append(i)
    return list(groups.values())


def row_groups(rows: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """(N,) int64 number, from 0, of the group of duplicates or of one conversation that each of N rows is in.

    Rows are in one group if their prompts are near-duplicates, if they are cut from one conversation (they name the
    same `conversation`, the turns of one begin with all turns of the other, or both begin with the same question and
    answer), or by a chain of these. System turns do not count: all rows may share them.

    Example:
        >>> texts = ["Say it in French, please.", "A joke!", "Say it in french, please!"]
        >>> row_groups([{"instruction": text} for text in texts]).tolist()
        [0, 1, 0]
    """
    chats = [_compared_turns(row) for row in rows]
    pairs = itertools.chain(
        near_duplicates(["\n".join(chat) for chat in chats]), _linked_by_turns(chats), _linked_by_name(rows)
    )
    return _linked_groups(pairs, len(rows))


def _compared_turns(row: Mapping[str, Any]) -> list[str]:
    """The texts of a row's turns, as duplicates are compared: without system turns, capitals and spaces."""
    turns = row.get("messages") or [{"content": row.get("instruction")}]
    said = [turn for turn in turns if turn.get("role") not in ("system", "developer")]
    return [" ".join(f"{turn.get('content') or ''} {turn.get('tool_calls') or ''}".lower().split()) for turn in said]


def _linked_by_turns(chats: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of indices that link the chats of one conversation."""
    begun: dict[tuple[str, ...], int] = {}
    for i, chat in enumerate(chats):
        if len(chat) > 1 and (first := begun.setdefault(tuple(chat[:2]), i)) != i:
            yield first, i
    questions: dict[str, list[int]] = defaultdict(list)
    for (question, *_), i in begun.items():
        questions[question].append(i)
    for i, chat in enumerate(chats):
        if len(chat) == 1:
            yield from ((i, other) for other in questions[chat[0]])


def _linked_by_name(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    """Pairs of indices that link the rows which name one conversation."""
    named: dict[str, int] = {}
    for i, row in enumerate(rows):
        name = row.get("conversation")
        if isinstance(name, str | int) and (first := named.setdefault(str(name), i)) != i:
            yield first, i


def _linked_groups(pairs: Iterable[tuple[int, int]], count: int) -> NDArray[np.int64]:
    """(count,) int64 number, from 0, of the component of each index in the graph of pairs."""
    edges = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64) if count else np.zeros(0, dtype=np.int64)


def leaks(splits: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Leak]:
    """Rows of two splits that belong together, as `row_groups` has it.

    Args:
        splits: the rows of each split.
    """
    places = [(split, name) for split, rows in splits.items() for name in row_names(rows)]
    every = [row for rows in splits.values() for row in rows]
    chats = [_compared_turns(row) for row in every]
    plain = ["\n".join(chat) for chat in chats]
    pairs = {pair: "exact" if plain[pair[0]] == plain[pair[1]] else "near" for pair in near_duplicates(plain)}
    cut = itertools.chain(_linked_by_turns(chats), _linked_by_name(every))
    pairs = {(min(pair), max(pair)): "conversation" for pair in cut} | pairs
    return [
        Leak(kind, ":".join(places[i]), ":".join(places[j]))
        for (i, j), kind in sorted(pairs.items())
        if places[i][0] != places[j][0]
    ]


def leak_summary(found: Sequence[Leak], shown: int = 3) -> str:
    """The leaks in one sentence, the first few by name."""
    exact, near, cut = (sum(leak.kind == kind for leak in found) for kind in ("exact", "near", "conversation"))
    turns = f" and {cut} pair{'s' * (cut > 1)} of turns of one conversation" if cut else ""
    named = "; ".join(f"{leak.first} and {leak.second}" for leak in found[:shown])
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return f"{exact} exact and {near} near duplicates{turns} stand in two splits: {named}{more}"


def group_summary(splits: Mapping[str, tuple[int, int]]) -> str:
    """The splits whose rows form far fewer groups, in words; "" if there are none.

    Args:
        splits: for each split the number of groups and of rows.

    Example:
        >>> group_summary({"train": (95, 100)})
        ''
    """
    few = [
        f"{split} has {rows} rows in {groups} groups"
        for split, (groups, rows) in splits.items()
        if groups < _FEW * rows
    ]
    if not few:
        return ""
    return (
        f"{'; '.join(few)}: near-duplicates and turns of one conversation belong together and count as one in "
        "intervals and in the decision whether a gain is sure. More varied rows would tell more"
    )
