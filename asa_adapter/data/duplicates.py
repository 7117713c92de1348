"""Near-duplicate rows: those of one split must not appear in another."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer

NEAR_DUPLICATE = 0.8

# Texts compared with all others at once: memory grows with this times the number of texts, not with its square.
_BLOCK = 512


class Leak(NamedTuple):
    """Two rows of different splits that are duplicates.

    Attributes:
        kind: "exact" (except for case and spaces) or "near".
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
    pairs = np.array(list(near_duplicates(texts)), dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(texts), len(texts)))
    groups: dict[int, list[int]] = defaultdict(list)
    if len(texts):
        for i, component in enumerate(connected_components(graph, directed=False)[1]):
            groups[int(component)].append(i)
    return list(groups.values())


def leaks(splits: Mapping[str, Sequence[tuple[str, str]]]) -> list[Leak]:
    """Exact and near duplicates between two splits.

    Args:
        splits: for each split the name and the text of each row.
    """
    places = [(f"{split}:{name}", split, text) for split, rows in splits.items() for name, text in rows]
    plain = [" ".join(text.lower().split()) for _, _, text in places]
    return [
        Leak("exact" if plain[i] == plain[j] else "near", places[i][0], places[j][0])
        for i, j in near_duplicates(plain)
        if places[i][1] != places[j][1]
    ]


def leak_summary(found: Sequence[Leak], shown: int = 3) -> str:
    """The leaks in one sentence, the first few by name."""
    exact = sum(leak.kind == "exact" for leak in found)
    named = "; ".join(f"{leak.first} and {leak.second}" for leak in found[:shown])
    more = f" and {len(found) - shown} more" if len(found) > shown else ""
    return f"{exact} exact and {len(found) - exact} near duplicates stand in two splits: {named}{more}"


def row_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The id of each row, or "row" and its number."""
    return [str(row["id"]) if row.get("id") is not None else f"row {i}" for i, row in enumerate(rows)]
