"""`load_splits`: labelled prompts as four disjoint splits, from files, data sets or the Hub."""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asa_adapter.data.duplicates import grouped, row_groups
from asa_adapter.data.rows import check_row, complete_row, read_tools
from asa_adapter.data.sources import SPLITS, read_parts

if TYPE_CHECKING:
    import datasets

# Shares of one labelled set: as many rows for the classifiers as for the directions, half as many to choose the
# settings, and as many as for either to test.
_SHARES = {"cal": 2 / 7, "train": 2 / 7, "valid": 1 / 7, "test": 2 / 7}
_SPLIT_HINT = (
    "; the set was split here with near-duplicates on one side, and rows that are alike but for a number count as "
    "such: give more varied rows, or cal/train/valid/test.jsonl of your own"
)


def load_splits(source: Any, *, seed: int = 42) -> "datasets.DatasetDict":
    """Labelled rows as a DatasetDict with cal, train, valid and test.

    A row has `instruction` (str) or `messages` (list of chat turns), `label` (0 or 1: is a tool needed?), `domain`
    (derived from the offered tools where it is missing, else "general"), and optionally `tools` (JSON-schema tools),
    `gold_calls` and `id`. Nested columns come back exactly as written.

    Args:
        source: a folder of cal/train/valid/test.jsonl (with an optional tools.json for rows that have no tools), one
            labelled .jsonl file or Dataset (split here: stratified by domain and label, near-duplicates kept on one
            side), the id of a data set on the Hub, a DatasetDict, or a table (pandas, Arrow, polars) in place of any
            Dataset. Keys that Arrow's columns gave to objects which had none are left out again.
        seed: seed of the split.

    Raises:
        FileNotFoundError: no such file, folder or data set on the Hub, or a split's file is missing.
        ValueError: a row without a prompt or a label, or with tools that no call can fit; classes of label whose names
            do not say which needs a tool; a split without rows or with one label only. Rows are named by number.
    """
    import datasets

    parts, tools_file = read_parts(source)
    tools = None if tools_file is None else read_tools(tools_file)
    complete = {
        name: [complete_row(row, f"{name}, row {i}", f"{name}-{i}", tools) for i, row in enumerate(rows)]
        for name, rows in parts.items()
    }
    hint = ""
    if set(complete) != set(SPLITS):
        ((name, rows),) = complete.items()
        check_split(rows, name)
        complete, hint = split_rows(rows, seed), _SPLIT_HINT
    for name, rows in complete.items():
        try:
            check_split(rows, name)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from None
    nested = _exact_json()
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "instruction": datasets.Value("string"),
            "messages": nested(),
            "label": datasets.Value("int64"),
            "domain": datasets.Value("string"),
            "tools": nested(),
            "gold_calls": nested(),
        }
    )
    return datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows, features=features) for name, rows in complete.items()}
    )


@functools.cache
def _exact_json() -> Any:
    """A column type for nested values that returns exactly what was stored.

    `datasets.Json` writes ten decimals and turns integers beyond 64 bits into text, so it is only given text here.
    """
    import datasets

    class ExactJson(datasets.Json):
        def encode_example(self, value: Any) -> str:
            return json.dumps(json.dumps(value))

        def decode_example(self, value: str, token_per_repo_id: Any = None) -> Any:
            return json.loads(json.loads(value))

    return ExactJson


def split_rows(rows: Sequence[Mapping[str, Any]], seed: int = 42) -> dict[str, list[dict[str, Any]]]:
    """Splits one labelled set, stratified by domain and label; rows of one group (`row_groups`) stay on one side."""
    generator = np.random.default_rng(seed)
    strata: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for group in grouped(row_groups(rows)):
        first = rows[group[0]]
        strata[(str(first.get("domain")), first.get("label", 0))].append(group)
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    for _, groups in sorted(strata.items(), key=lambda item: str(item[0])):
        total = sum(map(len, groups))
        filled = dict.fromkeys(SPLITS, 0)
        for k in generator.permutation(len(groups)):
            # Each group goes to the split that lacks the most rows of its share.
            name = max(SPLITS, key=lambda split: _SHARES[split] * total - filled[split])
            parts[name] += groups[k]
            filled[name] += len(groups[k])
    return {name: [dict(rows[i]) for i in sorted(indices)] for name, indices in parts.items()}


def check_split(rows: Iterable[Mapping[str, Any]], name: str) -> None:
    """Refuses a split on which nothing can be fitted or measured.

    Raises:
        ValueError: no rows, a row without a prompt or a label, or one label only.
    """
    labels = set()
    for i, row in enumerate(rows):
        check_row(row, f"{name}, row {i}")
        labels.add(row["label"])
    if not labels:
        raise ValueError(f"{name}: there are no rows; expected labelled prompts")
    if len(labels) == 1:
        raise ValueError(f"{name}: every label is {labels.pop()}; expected rows of both labels")
