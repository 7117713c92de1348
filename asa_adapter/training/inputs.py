"""What a run is given, checked: its splits, and the layers to try."""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.data.prompts import Row
from asa_adapter.data.sources import SPLITS
from asa_adapter.data.splits import check_split
from asa_adapter.parts.classifiers import MIN_ROWS_PER_CLASS


def checked_splits(splits: Any) -> dict[str, list[Row]]:
    """The rows of each split, checked.

    Raises:
        ValueError: no mapping of splits, a split is missing or cannot be fitted or measured on, or TRAIN has too few
            rows of a label.
    """
    if not isinstance(splits, Mapping):
        raise ValueError(f"splits is {splits!r:.80}; expected what load_splits gives: cal, train, valid and test")
    if missing := [name for name in SPLITS if name not in splits]:
        raise ValueError(f"the data has no {', '.join(missing)} split; expected cal, train, valid and test")
    found: dict[str, list[Row]] = {name: list(splits[name]) for name in SPLITS}
    for name, rows in found.items():
        check_split(rows, name)
    labels = [int(row["label"]) for row in found["train"]]
    for label in (0, 1):
        if (count := labels.count(label)) < MIN_ROWS_PER_CLASS:
            raise ValueError(
                f"train: {count} rows have label {label}; expected at least {MIN_ROWS_PER_CLASS} of each label, since "
                "router and probes are fitted on them and judged on others of them"
            )
    return found


def layers_to_try(layers: str | Sequence[int], depth: int) -> list[int]:
    """Indices of the decoder blocks that the arguments name.

    Raises:
        ValueError: an index is not below `depth`, the model's number of blocks.
    """
    chosen = list(range(depth)) if isinstance(layers, str) else list(layers)
    if wrong := [layer for layer in chosen if not 0 <= layer < depth]:
        raise ValueError(f"layers holds {wrong[0]}; expected 0 to {depth - 1} in this model")
    return chosen
