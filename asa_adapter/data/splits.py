"""`load_splits`: labelled prompts as four disjoint splits, from files, data sets or the Hub."""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from asa_adapter.data.conversation_cutting import cut_states, is_trajectory
from asa_adapter.data.duplicates import indices_of_groups, row_groups
from asa_adapter.data.rows import CONVERSATION, check_row, complete_row, read_tools
from asa_adapter.data.sources import SPLITS, SourcePart, read_parts

if TYPE_CHECKING:
    import datasets

Rows = list[dict[str, Any]]

# Shares of one labelled set: as many rows for the classifiers as for the directions, half as many to choose the
# settings, and as many as for either to test.
_SHARES = {"cal": 2, "train": 2, "valid": 1, "test": 2}
# VALID has to make a gain sure, which few rows cannot (tests/benchmarks/sure_gain.py): so many of a small set, up to a
# share of it. A smaller set has too few rows in any case.
_FEWEST_VALID, _MOST_OF_SMALL, _SMALL = 48, 0.3, 100
_SPLIT_HINT = (
    "; the set was split here with near-duplicates on one side, and rows that are alike but for a number count as "
    "such: give more varied rows, or cal/train/valid/test.jsonl of your own"
)


def load_splits(source: Any, *, seed: int = 42) -> "datasets.DatasetDict":
    """Labelled rows as a DatasetDict with cal, train, valid and test.

    A row has `instruction` (str) or `messages` (list of chat turns), `label` (0 or 1: is a tool needed?), `domain`
    (derived from the offered tools where it is missing, else "general"), and optionally `tools` (JSON-schema tools),
    `gold_calls`, `id` and `conversation` (rows that name the same one stay in one split). Nested columns come back
    exactly as written. A row without a label whose messages end with an assistant's turn is a whole conversation, and
    is cut into its states (`conversations.cut`).

    Args:
        source: a folder of cal, train, valid and test, each .jsonl or .csv; one labelled .jsonl or .csv file, list or
            Dataset (split here: stratified by domain and label, near-duplicates kept on one side); the id of a data
            set on the Hub, a DatasetDict, or a table (pandas, Arrow, polars) in place of any Dataset. Of train,
            validation and test, or of train and test, those that are missing are taken from train. A tools.json
            beside the files is for rows that have no tools. Keys that Arrow's columns gave to objects which had none
            are left out again.
        seed: seed of the split.

    Returns:
        The splits; the `info.description` of each says, a line each, how they were made and where tools are from.

    Raises:
        FileNotFoundError: no such file, folder or data set on the Hub, or a split's file is missing.
        ValueError: a row without a prompt or a label, or with tools that no call can fit; classes of label whose names
            do not say which needs a tool; a split without rows or with one label only. Rows are named by number.
    """
    import datasets

    parts, tools_file = read_parts(source)
    tools = None if tools_file is None else read_tools(tools_file)
    given = {name: _complete_rows(part, name, tools) for name, part in parts.items()}
    complete = _all_splits(given, seed)
    named = any(row[CONVERSATION] is not None for rows in complete.values() for row in rows)
    if not named:
        complete = {name: [_without_conversation_name(row) for row in rows] for name, rows in complete.items()}
    told = [_split_in_words(given, seed)]
    if tools_file is not None and (
        without := sum(row.get("tools") is None for part in parts.values() for row in part)
    ):
        rest = sum(map(len, parts.values())) - without
        told.append(
            f"tools: those of {tools_file} for {without} rows" + (f", and {rest} have their own" if rest else "")
        )
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
        | ({CONVERSATION: datasets.Value("string")} if named else {})
    )
    info = datasets.DatasetInfo(features=features, description="\n".join(told))
    return datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows, features=features, info=info) for name, rows in complete.items()}
    )


def _complete_rows(part: SourcePart, name: str, tools: list[dict[str, Any]] | None) -> Rows:
    """The rows of a split with all columns; of a whole conversation, those that it is cut into."""
    rows: Rows = []
    for i, row in enumerate(part):
        states = cut_states(row, part.place(i)) if is_trajectory(row) else [row]
        rows += [complete_row(state, part.place(i), f"{name}-{i}", tools) for state in states]
    return rows


def _without_conversation_name(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a split without the name of the conversation it is cut from."""
    return {column: value for column, value in row.items() if column != CONVERSATION}


def how_made(splits: Mapping[str, Any]) -> dict[str, str]:
    """How `load_splits` made splits ("splits") and where their tools are from ("tools"), as far as they say so."""
    told = str(getattr(getattr(splits["cal"], "info", None), "description", None) or "")
    return dict(line.split(": ", 1) for line in told.splitlines() if line.startswith(("splits: ", "tools: ")))


def _all_splits(given: Mapping[str, Rows], seed: int) -> dict[str, Rows]:
    """The four splits, checked, those that are not given taken from the one set or from "train"."""
    hint, complete = "", dict(given)
    if missing := [name for name in SPLITS if name not in given]:
        name = next(iter(given)) if len(given) == 1 else "train"
        check_split(given[name], name)
        names = [split for split in SPLITS if split in missing or split == "train"]
        made, hint = split_rows(given[name], seed, names), _SPLIT_HINT
        complete = {split: {**given, **made}[split] for split in SPLITS}
    for name, rows in complete.items():
        try:
            check_split(rows, name)
        except ValueError as error:
            raise ValueError(f"{error}{hint}") from None
    return complete


def _split_in_words(given: Mapping[str, Rows], seed: int) -> str:
    """How the splits came to be, in words."""
    missing = [name for name in SPLITS if name not in given]
    if not missing:
        return "splits: as given"
    if len(given) == 1:
        return f"splits: made here of {next(iter(given))}, by domain and label, near-duplicates together (seed {seed})"
    kept = [name for name in given if name != "train"]
    return f"splits: {' and '.join(kept)} as given; {', '.join([*missing, 'train'])} made here of train (seed {seed})"


@functools.cache
def _exact_json() -> Any:
    """A column type for nested values of the splits that returns exactly what was stored.

    `datasets.Json` writes ten decimals and turns integers beyond 64 bits into text, so it is only given text here.
    """
    import datasets

    class ExactJson(datasets.Json):
        def encode_example(self, value: Any) -> str:
            return json.dumps(json.dumps(value))

        def decode_example(self, value: str, token_per_repo_id: Any = None) -> Any:
            return json.loads(json.loads(value))

    return ExactJson


def split_rows(
    rows: Sequence[Mapping[str, Any]], seed: int = 42, names: Sequence[str] = SPLITS
) -> dict[str, list[dict[str, Any]]]:
    """Splits one labelled set, stratified by domain and label; rows of one group (`row_groups`) stay on one side.

    Two sevenths are for each of CAL, TRAIN and TEST, and one for VALID; of 100 to 335 rows VALID gets 48, or .3 of
    them if that is less.

    Args:
        rows: the rows.
        seed: seed of the split.
        names: which of the splits to make; their shares keep their proportions.
    """
    shares = _split_shares(names, len(rows))
    generator = np.random.default_rng(seed)
    strata: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for group in indices_of_groups(row_groups(rows)):
        first = rows[group[0]]
        strata[(str(first.get("domain")), first.get("label", 0))].append(group)
    parts: dict[str, list[int]] = {name: [] for name in names}
    for _, groups in sorted(strata.items(), key=lambda item: str(item[0])):
        total = sum(map(len, groups))
        filled = dict.fromkeys(names, 0)
        for k in generator.permutation(len(groups)):
            # Each group goes to the split that lacks the most rows of its share.
            name = max(names, key=lambda split: shares[split] * total - filled[split])
            parts[name] += groups[k]
            filled[name] += len(groups[k])
    return {name: [dict(rows[i]) for i in sorted(indices)] for name, indices in parts.items()}


def _split_shares(names: Sequence[str], rows: int) -> dict[str, float]:
    """The share of each split in a set of so many rows."""
    parts = {name: float(_SHARES[name]) for name in names}
    if "valid" in parts and rows >= _SMALL:
        share = min(_FEWEST_VALID / rows, _MOST_OF_SMALL)
        others = sum(parts.values()) - parts["valid"]
        parts["valid"] = max(parts["valid"], others * share / (1 - share))
    return {name: part / sum(parts.values()) for name, part in parts.items()}


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
