"""Rows of .csv files are those of the same rows in JSON."""

import json
from pathlib import Path

import pandas
import pytest
from rows import labelled, write

from asa_adapter import load_splits
from asa_adapter.data.csv_tables import read_csv

TOOLS = [{"name": "clock", "parameters": {"type": "object", "properties": {}}}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_of_texts_gives_the_rows_of_a_file(tmp_path: Path, delimiter: str, encoding: str) -> None:
    rows = labelled(56, tools=TOOLS)
    rows[5]["instruction"] = 'Say "one, two; three"\nin a new line.'
    cells = pandas.DataFrame([row | {"tools": json.dumps(row["tools"])} for row in rows])
    cells.to_csv(tmp_path / "all.csv", index=False, sep=delimiter, encoding=encoding)
    from_csv, from_json = load_splits(tmp_path / "all.csv"), load_splits(write(tmp_path / "all.jsonl", rows))
    assert {name: list(part) for name, part in from_csv.items()} == {
        name: list(part) for name, part in from_json.items()
    }


def test_a_folder_may_hold_tables(tmp_path: Path) -> None:
    for name, first, count in (("train", 0, 40), ("validation", 50, 8), ("test", 60, 12)):
        pandas.DataFrame(labelled(count, first)).to_csv(tmp_path / f"{name}.csv", index=False)
    assert {name: len(rows) for name, rows in load_splits(tmp_path).items()} == {
        "cal": 20,
        "train": 20,
        "valid": 8,
        "test": 12,
    }


@pytest.mark.parametrize(("word", "label"), [("1", 1), ("TRUE", 1), ("yes", 1), ("0", 0), ("False", 0), (" no ", 0)])
def test_labels_are_read_from_words(tmp_path: Path, word: str, label: int) -> None:
    (tmp_path / "a.csv").write_text(f"instruction,label\nHello,{word}\n")
    assert read_csv(tmp_path / "a.csv") == [(2, {"instruction": "Hello", "label": label})]


def test_empty_cells_are_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("instruction,label,domain,tools\nHello,1,,\nBye,0\n")
    assert [row["domain"] for _, row in read_csv(tmp_path / "a.csv")] == [None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("instruction,label\nHello, you,1\n", "line 2: 3 cells; expected 2, one for each column (a text with commas"),
        ("instruction,\nHello,1\n", "line 1: the columns are ['instruction', '']; expected a name for each"),
        ("label,label\n1,1\n", "line 1: the columns are ['label', 'label']; expected a name for each, and each once"),
        ('instruction,label\n"Hello" you,1\n', "line 2: not valid CSV: "),
        ("instruction,label\nHello,maybe\n", "line 2: label is 'maybe'; expected 0 (no tool needed) or 1"),
        ("", "there are no rows; expected labelled prompts"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a Git LFS pointer, in place of the file itself",
        ),
        (f"instruction,label\n{'x' * 140_000},1\n", "rows with longer cells can be given as .jsonl"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        load_splits(tmp_path / "a.csv")
    assert message in str(error.value)


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("instruction,label\nGrüße,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.csv: not UTF-8 text .* at byte 20\); save it as UTF-8"):
        load_splits(tmp_path / "a.csv")
