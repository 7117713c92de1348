"""`load_splits`: labelled prompts as four disjoint splits, from files, data sets or the Hub."""

import functools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asa_adapter.data.duplicates import near_duplicate_groups
from asa_adapter.data.prompts import DEFAULT_DOMAIN
from asa_adapter.files import looks_like_path, read_jsonl, strict_json
from asa_adapter.notations.schemas import unwrapped

if TYPE_CHECKING:
    import datasets

SPLITS = ("cal", "train", "valid", "test")

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
            side), the id of a data set on the Hub, or a DatasetDict.
        seed: seed of the split.

    Raises:
        FileNotFoundError: no such file, folder or data set on the Hub, or a split's file is missing.
        ValueError: a row without a prompt or a label, a split without rows or with one label only.
    """
    import datasets

    parts, tools = _read(source)
    complete = {
        name: [_complete(row, f"{name}, row {i}", f"{name}-{i}", tools) for i, row in enumerate(rows)]
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


def read_tools(path: Path) -> list[dict[str, Any]]:
    """Reads a JSON file of tools.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, or not a list of tools with a name.
    """
    try:
        tools = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(t, dict) and unwrapped(t).get("name") for t in tools):
        raise ValueError(f"{path}: expected a list of JSON-schema tools, each with a name")
    return tools


def split_rows(rows: Sequence[Mapping[str, Any]], seed: int = 42) -> dict[str, list[dict[str, Any]]]:
    """Splits one labelled set, stratified by domain and label; near-duplicates stay on one side.

    Near-duplicates are rows whose texts have a cosine above 0.8 in character 3- to 5-grams.
    """
    generator = np.random.default_rng(seed)
    strata: dict[tuple[str, int], list[list[int]]] = defaultdict(list)
    for group in near_duplicate_groups([row_text(row) for row in rows]):
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


def row_text(row: Mapping[str, Any]) -> str:
    """The text of a row's prompt: its instruction, or all of its turns."""
    if row.get("messages"):
        return "\n".join(str(turn.get("content") or "") for turn in row["messages"])
    return str(row.get("instruction") or "")


def check_row(row: Mapping[str, Any], where: str) -> None:
    """Refuses a row without a prompt or a label; `where` is how errors name it.

    Raises:
        ValueError: no prompt, messages that are not chat turns, or a label that is neither 0 nor 1.
    """
    messages = row.get("messages")
    if messages and not (isinstance(messages, list) and all(isinstance(turn, Mapping) for turn in messages)):
        raise ValueError(f"{where}: messages is {messages!r:.80}; expected a list of chat turns with role and content")
    if not row_text(row).strip():
        raise ValueError(f"{where}: no instruction and no messages; expected one of them")
    label = row.get("label")
    if type(label) is not int or label not in (0, 1):
        raise ValueError(f"{where}: label is {label!r:.80}; expected 0 (no tool needed) or 1 (tool needed)")


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


def _read(source: Any) -> tuple[dict[str, list[dict[str, Any]]], list[dict[str, Any]] | None]:
    """The rows of the four splits, or of one set to be split, and the tools of a folder."""
    import datasets

    if not isinstance(source, str | Path):
        return _parts_of_dataset(source), None
    path = Path(source)
    if path.is_dir():
        parts = {name: _rows_of_file(_split_file(path, name)) for name in SPLITS}
        return parts, read_tools(path / "tools.json") if (path / "tools.json").is_file() else None
    if path.suffix == ".jsonl":
        return {path.name: _rows_of_file(path)}, None
    if path.exists():
        raise ValueError(f"{source}: expected a folder of cal/train/valid/test.jsonl, or one .jsonl file")
    if isinstance(source, Path) or looks_like_path(source):
        raise FileNotFoundError(f"no such file or folder: {source}")
    try:
        return _parts_of_dataset(datasets.load_dataset(source)), None
    except (FileNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(f"no file or folder {source!r} here, and from the Hub: {error}") from error


def _split_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    if not path.is_file():
        expected = ", ".join(f"{split}.jsonl" for split in SPLITS)
        raise FileNotFoundError(f"{folder} has no {path.name}; expected {expected}")
    return path


def _rows_of_file(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no data file at {path}")
    rows = read_jsonl(path)
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, found a {type(row).__name__}")
    if not rows:
        raise ValueError(f"{path}: there are no rows; expected labelled prompts")
    return [row for _, row in rows]


def _parts_of_dataset(loaded: Any) -> dict[str, list[dict[str, Any]]]:
    """The four splits of a DatasetDict, or the one set to be split."""
    if isinstance(loaded, Mapping):
        if set(SPLITS) <= set(loaded):
            return {name: list(loaded[name]) for name in SPLITS}
        if len(loaded) == 1:
            return {name: list(rows) for name, rows in loaded.items()}
        raise ValueError(
            f"the data has splits {sorted(loaded)}; expected {', '.join(SPLITS)}, or one to be split here"
        )
    try:
        return {"data": list(loaded)}
    except TypeError as error:
        raise ValueError(f"cannot read rows from a {type(loaded).__name__}") from error


def _complete(row: Mapping[str, Any], where: str, name: str, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A row with all columns; nested ones may be JSON text, as data sets on the Hub often store them."""
    nested = {column: _parsed(row.get(column), f"{where}, {column}") for column in ("messages", "tools", "gold_calls")}
    check_row({**row, **nested}, where)
    offered = tools if nested["tools"] is None else nested["tools"]
    return {
        "id": name if row.get("id") is None else str(row["id"]),
        "instruction": row.get("instruction"),
        "messages": nested["messages"],
        "label": row["label"],
        "domain": str(row.get("domain") or _domain_of_tools(offered)),
        "tools": offered,
        "gold_calls": nested["gold_calls"],
    }


def _parsed(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return strict_json(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {value!r:.80} is not valid JSON: {error}") from error


def _domain_of_tools(tools: Sequence[Mapping[str, Any]] | None) -> str:
    """The domain by the offered tools: the name of a single one, else the default."""
    return str(unwrapped(tools[0]).get("name") or DEFAULT_DOMAIN)[:64] if tools and len(tools) == 1 else DEFAULT_DOMAIN
