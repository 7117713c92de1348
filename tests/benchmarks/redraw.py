"""CAL, TRAIN and VALID drawn anew from their own rows, so that a result does not rest on one draw; TEST stays."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from asa_adapter.data.duplicates import near_duplicate_groups
from asa_adapter.data.rows import row_text

_DRAWN = ("cal", "train", "valid")


def redrawn(
    splits: Mapping[str, Sequence[dict[str, Any]]], seed: int, share: float = 1.0
) -> dict[str, list[dict[str, Any]]]:
    """The splits with the rows of CAL, TRAIN and VALID dealt anew, as many of each label and domain as before.

    Near-duplicates stay on one side, as far as the sizes allow it: groups are dealt whole, the largest first.

    Args:
        splits: rows by name of the split.
        seed: 0 leaves everything as it is, but for a smaller share.
        share: of the groups that are dealt at all, so that what is fitted on all three knows other rows in each draw.
    """
    found = {name: list(rows) for name, rows in splits.items()}
    if seed == 0 and share == 1:
        return found
    pool = [row for name in _DRAWN for row in found[name]]
    room: dict[Any, dict[str, float]] = defaultdict(lambda: dict.fromkeys(_DRAWN, 0.0))
    for name in _DRAWN:
        for row in found[name]:
            room[_kind(row)][name] += share
    groups = near_duplicate_groups([row_text(row) for row in pool])
    order = np.random.default_rng(seed).permutation(len(groups))[: round(share * len(groups))]
    dealt: dict[str, list[dict[str, Any]]] = {name: [] for name in _DRAWN}
    for group in sorted((groups[i] for i in order), key=len, reverse=True):
        left = {name: sum(room[_kind(pool[i])][name] for i in group) for name in _DRAWN}
        home = max(left, key=lambda name: left[name])
        for i in group:
            free = room[_kind(pool[i])]
            name = home if free[home] > 0 else max(free, key=lambda name: free[name])
            free[name] -= 1
            dealt[name].append(pool[i])
    return found | dealt


def _kind(row: Mapping[str, Any]) -> tuple[int, str]:
    return int(row["label"]), str(row["domain"])
