"""The rows of a split: their columns, nested ones included, and the tools of the folder."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rows import folder_of, ids, labelled, words, write

from asa_adapter import load_splits

ADD = {
    "name": "add",
    "description": "Adds two numbers. Für immer ☔",
    "parameters": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "default": None, "enum": [1, 2.5, "three", None, True, {"deep": []}]},
            "b": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {}]},
        },
        "required": [],
    },
}
NOW = {"type": "function", "function": {"name": "now", "parameters": {}}}
CHAT = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Add one and two, then wait."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": ["2"]}}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "user", "content": [{"type": "text", "text": "And now?"}]},
]


# --- rows


def test_missing_columns_are_none(tmp_path: Path) -> None:
    row = load_splits(folder_of(tmp_path))["cal"][0]
    assert row == {
        "id": "r0", "instruction": words(0), "messages": None, "label": 0, "domain": "math", "tools": None,
        "gold_calls": None,
    }  # fmt: skip


def test_missing_id_is_the_split_and_the_row(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[2]["id"]
    assert ids(load_splits(folder_of(tmp_path, train=rows)))["train"] == ["r0", "r1", "train-2", "r3"]


@pytest.mark.parametrize("given", [0, 7], ids=str)
def test_id_that_is_a_number_becomes_a_text(tmp_path: Path, given: int) -> None:
    rows = labelled(4)
    rows[2]["id"] = given
    assert ids(load_splits(folder_of(tmp_path, train=rows)))["train"] == ["r0", "r1", str(given), "r3"]


@pytest.mark.parametrize(
    ("tools", "domain"),
    [
        ([ADD], "add"),
        ([NOW], "now"),
        ([ADD, NOW], "general"),
        ([], "general"),
        (None, "general"),
        ([{"name": "x" * 100}], "x" * 64),
    ],
    ids=["bare tool", "wrapped tool", "two tools", "no tool", "no list", "long name"],
)
def test_missing_domain_is_derived_from_the_offered_tools(tmp_path: Path, tools: Any, domain: str) -> None:
    rows = labelled(4, tools=tools)
    del rows[1]["domain"]
    rows[2]["domain"] = None
    assert load_splits(folder_of(tmp_path, cal=rows))["cal"]["domain"][:] == ["math", domain, domain, "code"]


def test_missing_domain_is_derived_from_tools_json_too(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[1]["domain"]
    folder_of(tmp_path, cal=rows)
    (tmp_path / "tools.json").write_text(json.dumps([ADD]))
    assert load_splits(tmp_path)["cal"]["domain"][:] == ["math", "add", "code", "code"]


@pytest.mark.parametrize("label", [None, "true", "1", "", 2, -1, 0.5, [1], {}], ids=repr)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_row_with_another_label_is_refused(tmp_path: Path, kind: str, label: Any) -> None:
    rows = labelled(40)
    rows[2]["label"] = label
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    message = f"label is {label!r}; expected 0 (no tool needed) or 1 (tool needed)"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_splits(source)


def test_labels_may_be_true_and_false(tmp_path: Path) -> None:
    rows = [row | {"label": bool(row["label"])} for row in labelled(4)]
    for source in (folder_of(tmp_path, cal=rows), {name: rows for name in ("cal", "train", "valid", "test")}):
        labels = load_splits(source)["cal"]["label"][:]
        assert labels == [0, 1, 0, 1]
        assert {type(label) for label in labels} == {int}


def test_unlabelled_row_is_named(tmp_path: Path) -> None:
    rows = labelled(4)
    del rows[3]["label"]
    with pytest.raises(
        ValueError, match=r"^valid.jsonl, line 4: label is None; expected 0 \(no tool needed\) or 1 \(tool needed\)$"
    ):
        load_splits(folder_of(tmp_path, valid=rows))


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"instruction": None},
        {"instruction": ""},
        {"instruction": " \n"},
        {"messages": []},
        {"messages": None, "instruction": ""},
        {"messages": [{"role": "user", "content": ""}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_row_without_a_prompt_is_refused(tmp_path: Path, kind: str, prompt: dict[str, Any]) -> None:
    rows = labelled(40)
    rows[2] = {"label": 0, "domain": "math", **prompt}
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match=r"^(cal|all).jsonl, line 3: no instruction and no messages; expected one"):
        load_splits(source)


def test_file_without_any_prompt_is_refused_as_such(tmp_path: Path) -> None:
    rows = [{"prompt": words(i), "label": i % 2} for i in range(40)]
    with pytest.raises(ValueError, match="no instruction and no messages; expected one of them"):
        load_splits(write(tmp_path / "all.jsonl", rows))


@pytest.mark.parametrize("messages", ["hello", {"role": "user", "content": "hello"}, ["hello"], [["hello"]]], ids=repr)
@pytest.mark.parametrize("kind", ["folder", "one file"])
def test_messages_that_are_no_chat_turns_are_refused(tmp_path: Path, kind: str, messages: Any) -> None:
    rows = labelled(40)
    rows[2]["messages"] = messages
    source = folder_of(tmp_path, cal=rows) if kind == "folder" else write(tmp_path / "all.jsonl", rows)
    with pytest.raises(ValueError, match="messages"):
        load_splits(source)


# --- nested columns


NESTED = {
    "whole": [{"name": "add", "x": [0, -7, 2**63 - 1, -(2**63), 2**64 - 1]}],
    "beyond 64 bits": [{"name": "add", "x": [2**64, -(2**63) - 1, 10**30]}],
    "halves": [{"name": "add", "x": [0.5, -2.25, 1.0, 1e22, 100000.0]}],
    "fractions": [{"name": "add", "x": [1 / 3, 0.1 + 0.2, 48.8566969, -4.68737736882076]}],
    "small and large": [{"name": "add", "x": [2.5e-10, 1e-15, 1e-300, 1.7976931348623157e308]}],
    "texts": [{"name": "add", "x": ["é☔😀\u2028\0</a>\"\\", "", "12", "null", '{"a": 1}', "[1]", "NaN"]}],
    "words": [{"name": "add", "x": [True, False, None]}],
    "empty": [{"name": "add", "x": [{}, [], [{}], [[]], ""]}],
    "order": [{"z": 1, "name": "add", "a": {"z": 2, "b": 3}}],
    "mixed": [{"name": "add", "x": [1, "a", None, [1, ["b"]], {"k": {"l": [None]}}]}],
    "uneven": [{"name": "add"}, {"name": "sub", "more": [1]}, {"name": "mul", "more": {"k": 1}}],
    "a real schema": [ADD, NOW],
}  # fmt: skip


@pytest.mark.parametrize("column", ["tools", "gold_calls"])
@pytest.mark.parametrize("name", NESTED)
def test_nested_column_comes_back_as_written(tmp_path: Path, name: str, column: str) -> None:
    rows = labelled(4)
    rows[1][column] = NESTED[name]
    cal = list(load_splits(folder_of(tmp_path, cal=rows))["cal"])
    assert json.dumps(cal[1][column]) == json.dumps(NESTED[name])
    assert [cal[i][column] for i in (0, 2, 3)] == [None, None, None]


def test_messages_with_tool_calls_come_back_as_written(tmp_path: Path) -> None:
    rows = labelled(4)
    rows[1] = {"messages": CHAT, "label": 1}
    rows[2]["messages"] = [{"role": "user", "content": "Short."}]
    cal = list(load_splits(folder_of(tmp_path, cal=rows))["cal"])
    assert json.dumps(cal[1]["messages"]) == json.dumps(CHAT)
    assert cal[1]["instruction"] is None
    assert cal[2]["messages"] == [{"role": "user", "content": "Short."}]
    assert cal[3]["messages"] is None


def test_empty_tools_stay_empty(tmp_path: Path) -> None:
    cal = load_splits(folder_of(tmp_path, cal=labelled(4, tools=[])))["cal"]
    assert cal["tools"][:] == [[], [], [], []]


def test_nested_columns_survive_a_second_reading(tmp_path: Path) -> None:
    first = load_splits(folder_of(tmp_path, cal=labelled(4, tools=[ADD, NOW], messages=CHAT)))
    second = load_splits(first)
    assert {name: list(rows) for name, rows in second.items()} == {name: list(rows) for name, rows in first.items()}


# --- tools.json


def test_tools_json_fills_rows_that_have_no_tools(tmp_path: Path) -> None:
    rows = labelled(4)
    rows[1]["tools"], rows[2]["tools"], rows[3]["tools"] = [NOW], [], None
    folder_of(tmp_path, cal=rows)
    (tmp_path / "tools.json").write_text(json.dumps([ADD]))
    assert load_splits(tmp_path)["cal"]["tools"][:] == [[ADD], [NOW], [], [ADD]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "tools.json: not valid JSON: "),
        ("", "tools.json: not valid JSON: "),
        ("{}", "tools.json: expected a list of JSON-schema tools, each with a name"),
        ('["add"]', "tools.json: expected a list of JSON-schema tools, each with a name"),
        ('[{"description": "x"}]', "tools.json: expected a list of JSON-schema tools, each with a name"),
        (
            '[{"type": "function", "function": {}}]',
            "tools.json: expected a list of JSON-schema tools, each with a name",
        ),
    ],
)
def test_other_tools_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (folder_of(tmp_path) / "tools.json").write_text(content)
    with pytest.raises(ValueError, match=f"^{tmp_path}/{message}"):
        load_splits(tmp_path)
