"""Rows from data sets and tables of every kind are the rows of a file: what storage adds to them is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
from rows import SPLITS, folder_of, labelled, write

from asa_adapter import load_splits
from asa_adapter.data.sources import labels_of_classes

TOOLS = [
    [
        {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
        {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}},
    ],
    [
        {"name": "clock", "parameters": {"type": "object", "properties": {}}},
        {"name": "weather"},
        {"name": "add", "parameters": {}},
    ],
]
CHATS = [
    [
        {"role": "user", "content": "Add one."},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "2"},
    ],
    [{"role": "user", "content": "The weather?"}],
]
GOLD = [[{"name": "add", "arguments": {"a": 1}}], [{"name": "weather", "arguments": {"city": "Rome"}}]]


def nested() -> list[dict[str, Any]]:
    """Rows whose objects have different keys, which columns of Arrow give to all of them."""
    return [
        row | {"tools": TOOLS[i % 2], "messages": CHATS[i // 2 % 2], "gold_calls": GOLD[i // 2 % 2]}
        for i, row in enumerate(labelled(4))
    ]


class Table:
    """A table of some other library, by Arrow's protocol."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._table = pyarrow.Table.from_pylist(rows)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._table.__arrow_c_stream__(requested_schema)


def parquet(rows: list[dict[str, Any]], folder: Path) -> pandas.DataFrame:
    datasets.Dataset.from_list(rows).to_parquet(folder / "rows.parquet")
    return pandas.read_parquet(folder / "rows.parquet")


STORED: dict[str, Callable[[list[dict[str, Any]], Path], Any]] = {
    "Dataset": lambda rows, _: datasets.Dataset.from_list(rows),
    "IterableDataset": lambda rows, _: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    "DataFrame": lambda rows, _: pandas.DataFrame(rows),
    "DataFrame of a parquet file": parquet,
    "Arrow table": lambda rows, _: pyarrow.Table.from_pylist(rows),
    "table of another library": lambda rows, _: Table(rows),
    "generator": lambda rows, _: iter(rows),
    **{
        f"Dataset in {kind}'s format": lambda rows, _, kind=kind: datasets.Dataset.from_list(rows).with_format(kind)
        for kind in ("numpy", "torch", "pandas", "arrow")
    },
}


@pytest.mark.parametrize("kind", STORED)
def test_rows_are_those_of_a_file_however_they_are_stored(tmp_path: Path, kind: str) -> None:
    stored = STORED[kind](nested(), tmp_path)
    if not isinstance(stored, datasets.Dataset):
        assert list(load_splits({**dict.fromkeys(SPLITS, nested()), "cal": stored})["cal"]) == nested()
        return
    assert list(load_splits(dict.fromkeys(SPLITS, stored))["cal"]) == nested()


def test_a_table_is_split_here_like_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "all.jsonl", labelled(56))
    for table in (pandas.DataFrame(labelled(56)), pyarrow.Table.from_pylist(labelled(56))):
        assert {k: list(v) for k, v in load_splits(table).items()} == {
            k: list(v) for k, v in load_splits(path).items()
        }


def test_rows_of_numpy_and_torch_are_read_as_plain_values() -> None:
    torch = pytest.importorskip("torch")
    rows = labelled(4)
    given = [row | {"label": np.int64(row["label"]), "id": np.str_(row["id"])} for row in rows]
    given[1]["gold_calls"] = [{"name": "f", "arguments": {"x": np.float32(0.5), "y": torch.tensor([1, 2])}}]
    cal = list(load_splits(dict.fromkeys(SPLITS, given))["cal"])
    assert [row["label"] for row in cal] == [0, 1, 0, 1]
    assert cal[1]["gold_calls"] == [{"name": "f", "arguments": {"x": 0.5, "y": [1, 2]}}]


def test_missing_cells_of_a_table_are_missing() -> None:
    frame = pandas.DataFrame(labelled(4))
    frame["domain"] = [None, float("nan"), pandas.NA, "code"]
    assert load_splits(dict.fromkeys(SPLITS, frame))["cal"]["domain"][:] == ["general", "general", "general", "code"]


def test_explicit_nulls_of_a_file_stay(tmp_path: Path) -> None:
    rows = labelled(4)
    rows[0]["gold_calls"] = [{"name": "f", "arguments": {"unit": None}}]
    assert load_splits(folder_of(tmp_path, cal=rows))["cal"][0]["gold_calls"] == rows[0]["gold_calls"]


def test_a_transform_of_the_users_makes_the_rows() -> None:
    def shouted(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "instruction": [text.upper() for text in batch["instruction"]]}

    data = datasets.Dataset.from_list(labelled(4)).with_transform(shouted)
    assert load_splits(dict.fromkeys(SPLITS, data))["cal"][0]["instruction"] == labelled(1)[0]["instruction"].upper()


def test_columns_that_a_format_hides_are_read() -> None:
    data = datasets.Dataset.from_list(labelled(4)).with_format("numpy", columns=["label"])
    assert list(load_splits(dict.fromkeys(SPLITS, data))["cal"])[3]["domain"] == "code"


@pytest.mark.parametrize(("wanted", "unwanted"), [("needed", "not needed"), ("yes", "no"), ("tool", "no_tool")])
def test_labels_of_encoded_classes_go_by_their_names(wanted: str, unwanted: str) -> None:
    """`class_encode_column` sorts the names, so that "needed" becomes 0."""
    rows = [row | {"label": wanted if row["label"] else unwanted} for row in labelled(4)]
    data = datasets.Dataset.from_list(rows).class_encode_column("label")
    assert load_splits(dict.fromkeys(SPLITS, data))["cal"]["label"][:] == [0, 1, 0, 1]


def test_classes_of_other_columns_are_given_by_name() -> None:
    data = datasets.Dataset.from_list(labelled(4)).class_encode_column("domain")
    assert load_splits(dict.fromkeys(SPLITS, data))["cal"]["domain"][:] == ["math", "math", "code", "code"]


def test_a_row_without_a_class_is_named() -> None:
    features = datasets.Features(
        instruction=datasets.Value("string"), label=datasets.ClassLabel(names=["not needed", "needed"])
    )
    rows = [
        {"instruction": row["instruction"], "label": row["label"] if i else -1} for i, row in enumerate(labelled(4))
    ]
    data = datasets.Dataset.from_list(rows, features=features)
    with pytest.raises(ValueError, match=r"^cal, row 0: label is None; expected 0"):
        load_splits(dict.fromkeys(SPLITS, data))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["0", "1"], [0, 1]),
        (["1", "0"], [1, 0]),
        (["False", "True"], [0, 1]),
        (["NEEDED", "Not-Needed"], [1, 0]),
        (["necessary", "unnecessary"], [1, 0]),
        (["call_tool", "do not call a tool"], [1, 0]),
        (["needs tools", "no tool"], [1, 0]),
        (["none", "tool"], [0, 1]),
        (["tool call", "without tool call"], [1, 0]),
        (["negative", "positive"], [0, 1]),
    ],
    ids=str,
)
def test_names_say_which_class_needs_a_tool(names: list[str], labels: list[int]) -> None:
    assert labels_of_classes(names, "data") == labels


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b"], ["direct", "not direct"], ["needed"], ["needed", "not needed", "unsure"], ["needed", "needed "],
        ["lazy", "eager"], ["no tool", "not needed"], ["true", "no"][:1], ["tool", "not sure"],
    ],
    ids=str,
)  # fmt: skip
def test_names_that_do_not_say_it_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^data: the classes of label are \[.*do not say which of them needs a tool"):
        labels_of_classes(names, "data")


@pytest.mark.parametrize("row", ["text", 5, ["a"], None], ids=repr)
def test_a_row_that_is_no_object_is_named(row: Any) -> None:
    message = f"^data, row 2: found a {type(row).__name__}; expected an object with an instruction and a label$"
    with pytest.raises(ValueError, match=message):
        load_splits([*labelled(2), row])


@pytest.mark.parametrize("source", ["rows", b"rows", {"instruction": "a"}], ids=repr)
def test_a_split_that_is_no_series_of_rows_is_refused(source: Any) -> None:
    with pytest.raises(ValueError, match=f"^cannot read rows from a {type(source).__name__}$"):
        load_splits({"train": source})


# --- files as editors on Windows write them


def test_byte_order_marks_and_carriage_returns_are_no_part_of_the_data(tmp_path: Path) -> None:
    folder_of(tmp_path)
    plain = {name: list(rows) for name, rows in load_splits(tmp_path).items()}
    for name in SPLITS:
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "tools.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(TOOLS[1], indent=1).encode().replace(b"\n", b"\r\n")
    )
    marked = {name: list(rows) for name, rows in load_splits(tmp_path).items()}
    assert marked == {name: [row | {"tools": TOOLS[1]} for row in rows] for name, rows in plain.items()}


def test_a_byte_order_mark_alone_is_an_empty_file(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "cal.jsonl").write_bytes(b"\xef\xbb\xbf\r\n")
    with pytest.raises(ValueError, match=r"cal.jsonl: there are no rows"):
        load_splits(tmp_path)


def test_a_column_alone_and_a_column_twice_are_refused() -> None:
    frame = pandas.DataFrame(labelled(56))
    with pytest.raises(ValueError, match=r"^data: found a pandas Series, which is one column; expected a DataFrame"):
        load_splits(frame["instruction"])
    for twice in (pandas.concat([frame, frame[["label"]]], axis=1), pyarrow.Table.from_pandas(frame)):
        if isinstance(twice, pyarrow.Table):
            twice = twice.append_column("label", twice["label"])
        with pytest.raises(ValueError, match=r"^data: there are two columns 'label'; expected each column once"):
            load_splits(twice)
