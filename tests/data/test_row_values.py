"""Values that no training can use are refused with the row's number, where they were taken without a word."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rows import SPLITS, folder_of, labelled

from asa_adapter import load_splits
from asa_adapter.data.rows import check_tools, read_tools
from asa_adapter.training.input_checks import checked_splits

SHORTHAND = {"name": "weather", "parameters": {"city": "string"}}


def refused(message: str, **changes: Any) -> None:
    rows = labelled(4)
    rows[2].update(changes)
    with pytest.raises(ValueError, match=f"^valid, row 2{re.escape(message)}"):
        load_splits({name: rows if name == "valid" else labelled(4) for name in SPLITS})


@pytest.mark.parametrize("instruction", [["Add one."], {"text": "Add one."}, 5, True], ids=repr)
def test_an_instruction_that_is_no_text_is_refused(instruction: Any) -> None:
    refused(f": instruction is {instruction!r}; expected a text", instruction=instruction)


@pytest.mark.parametrize(
    "tools",
    [
        {"name": "add"},
        '{"name": "add"}',
        ["add"],
        [[]],
        [{"description": "x"}],
        [{"name": 5}],
        5,
        [{"name": " "}],
        [{"name": "f\n"}],
    ],
    ids=repr,
)
def test_tools_that_are_no_list_of_tools_are_refused(tools: Any) -> None:
    refused(", tools: expected a list of JSON-schema tools, each with a name; found ", tools=tools)


@pytest.mark.parametrize(
    ("parameters", "fault"),
    [
        ({"city": "string"}, "has parameters with 'city', but no word of JSON Schema"),
        ({"city": {"type": "string"}}, "has parameters with 'city', but no word of JSON Schema"),
        ({"title": "string", "description": "string"}, "has parameters with 'title', but no word of JSON Schema"),
        ({"type": "object", "city": "string"}, "has parameters with 'city' outside `properties`"),
        ({"type": "string"}, "has parameters of type 'string'"),
        ({"type": "dict", "properties": {}}, "has parameters of type 'dict'"),
        ({"type": None}, "has parameters of type None"),
        ({"properties": {"city": "string"}}, "has parameters that are no JSON schema: 'string' at properties.city"),
        ({"properties": {"description": "string"}}, "has parameters that are no JSON schema: 'string' at properties."),
        ({"properties": {"x": {"type": "float"}}}, "has parameters that are no JSON schema: 'float' at properties.x"),
        ({"properties": ["city"]}, "has parameters that are no JSON schema: ['city'] at properties"),
        ({"properties": {}, "required": True}, "has parameters that are no JSON schema: True at required"),
        (["city"], "has parameters that are no JSON schema: ['city']"),
        ("city: string", "has parameters that are no JSON schema: 'city: string'"),
        ({"properties": {"city": {}}, "required": ["town"]}, "requires 'town', which is not among its `properties`"),
        ({"required": ["town"]}, "requires 'town', which is not among its `properties`"),
        ({"properties": {"city": {"$ref": "#/$defs/x"}}}, "refers to '#/$defs/x', which is not in its parameters"),
        ({"$ref": "https://x.example/y.json"}, "refers to 'https://x.example/y.json', which is not in its parameters"),
        ({"properties": {"a": {"items": {"pattern": "^\\p{L}+$"}}}}, "has the pattern '^\\\\p{L}+$', which Python"),
        ({"anyOf": [{"properties": {"a": {"pattern": "("}}}]}, "has the pattern '(', which Python does not read"),
        ({"properties": {"a": {"enum": []}}, "required": ["a"]}, "has parameters that no call can fit: it req"),
    ],
    ids=str,
)  # fmt: skip
def test_parameters_that_are_no_json_schema_are_refused(parameters: Any, fault: str) -> None:
    """No call of such a tool could be valid, and no error said so."""
    refused(f", tools: 'weather' {fault}", tools=[{"name": "weather", "parameters": parameters}])
    wrapped = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    refused(f", tools: 'weather' {fault}", tools=[wrapped])


def test_a_schema_under_another_name_is_refused() -> None:
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    refused(", tools: 'weather' has its schema under 'input_schema'; expected it under 'parameters'", tools=[tool])


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        None,
        {"type": "object"},
        {"properties": {"type": {"type": "string"}, "description": {"type": ["string", "null"]}}},
        {"type": "object", "properties": {"a": {"type": "integer", "required": True, "description": None}}},
        {"type": "object", "properties": {"a": {"enum": [1, None], "examples": "1", "x-unit": "m"}, "b": True}},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}},
        {"type": ["object", "null"], "description": "city: string"},
        {"properties": {"$ref": {"type": "string"}, "pattern": {"enum": [{"$ref": "#/none", "pattern": "("}]}}},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"default": {"$ref": "#/none"}}}, "required": ["a"]},
        {"required": ["a"], "additionalProperties": {"type": "string"}},
        {"required": ["a"], "$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {}}}}},
        {"$id": "https://x.example/", "properties": {"a": {"$ref": "other"}}},
    ],
    ids=str,
)
def test_parameters_with_which_calls_can_be_valid_are_taken(parameters: Any) -> None:
    check_tools([{"name": "f", "parameters": parameters}], "tools")


def test_shorthand_in_tools_json_is_refused(tmp_path: Path) -> None:
    (folder_of(tmp_path) / "tools.json").write_text(json.dumps([SHORTHAND]))
    with pytest.raises(
        ValueError, match=r"tools.json: 'weather' has parameters with 'city', but no word of JSON Schema"
    ):
        load_splits(tmp_path)


POINTER = "version https://git-lfs.github.com/spec/v1\n"


@pytest.mark.parametrize("content", ['[{"name": "f", "name": "g"}]', '[{"name": "f", "x": NaN}]', POINTER])
def test_tools_json_is_read_as_strictly_as_rows(tmp_path: Path, content: str) -> None:
    (tmp_path / "tools.json").write_text(content)
    with pytest.raises(ValueError, match=r"tools.json: not valid JSON: "):
        read_tools(tmp_path / "tools.json")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("instruction", "Add \ud83d one."),
        ("messages", [{"role": "user", "content": "Add \ude00 one."}]),
        ("tools", [{"name": "f", "description": "\ud800"}]),
        ("tools", '[{"name": "f", "description": "\\ud800"}]'),
        ("gold_calls", [{"name": "f", "arguments": {"\udc00": 1}}]),
        ("domain", "\ud800"),
        ("id", "\ud800"),
    ],
    ids=ascii,
)
def test_half_a_surrogate_pair_is_refused(column: str, value: Any) -> None:
    rows = labelled(4)
    rows[2][column] = value
    with pytest.raises(ValueError, match=f"^cal, row 2, {column}: .*half of a surrogate pair .*that UTF-8 can hold"):
        load_splits(dict.fromkeys(SPLITS, rows))


def test_half_a_surrogate_pair_in_a_file_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    (tmp_path / "test.jsonl").write_text('{"instruction": "Add \\ud83d one.", "label": 1}\n')
    with pytest.raises(
        ValueError, match=r"^test.jsonl, line 1, instruction: .*half of a surrogate pair \('\\ud83d'\)"
    ):
        load_splits(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"x": float("nan")}, "found nan; expected finite numbers"),
        ({"x": float("-inf")}, "found -inf; expected finite numbers"),
        ({1: "x"}, "an object has the key 1; expected texts as keys"),
        ({"x": b"x"}, "found a bytes, b'x'; expected what JSON can hold"),
        ({"x": {1, 2}}, "found a set, {1, 2}; expected what JSON can hold"),
        ({"x": 10**5000}, "found a number of 16610 bits; expected at most 4096"),
        ({"x": json.loads("[" * 500 + "]" * 500)}, "values are nested in each other; expected at most 64 levels"),
    ],
    ids=lambda value: str(type(value))[:40] if isinstance(value, dict) else value[:40],
)
def test_values_that_json_does_not_have_are_refused(value: Any, message: str) -> None:
    refused(f", gold_calls: {message}", gold_calls=[{"name": "f", "arguments": value}])


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        ({"name": "f"}, ": gold_calls is {'name': 'f'}; expected a list of calls with a name and arguments"),
        (["f"], ", gold_calls: a gold call is 'f'; expected a name and an object of arguments"),
        ([{"name": "f", "arguments": [1]}], ", gold_calls: a gold call is {'name': 'f', 'arguments': [1]}; expected"),
        ([{"name": "f", "allowed": {"a": 1}}], ", gold_calls: a gold call allows {'a': 1}; expected a list of values"),
        ([{"arguments": {}}], ", gold_calls: a gold call is {'arguments': {}}; expected a name and an object of"),
        ([{"name": "f", "args": {"a": 1}}], ", gold_calls: a gold call is {'name': 'f', 'args': {'a': 1}}; expected"),
        ([{"name": "f", "input": {}, "type": "tool_use"}], ", gold_calls: a gold call is {'name': 'f', 'input': {}"),
    ],
    ids=str,
)  # fmt: skip
def test_gold_calls_of_another_shape_are_refused(gold: Any, message: str) -> None:
    refused(message, gold_calls=gold)


def test_gold_calls_of_tools_that_are_not_offered_are_refused() -> None:
    """No answer could match them, so every call of the row would count as wrong."""
    tools = [{"name": "add"}, {"type": "function", "function": {"name": "now"}}]
    message = ": gold_calls calls 'sum', which is not among the offered tools (add, now); expected calls of these"
    refused(message, tools=tools, gold_calls=[{"name": "now", "arguments": {}}, {"sum": {"a": [1]}}])
    refused(message.replace("add, now", "none"), tools=[], gold_calls=[{"function": {"name": "sum", "arguments": {}}}])
    rows = [row | {"gold_calls": [{"name": "sum", "arguments": {}}]} for row in labelled(4)]
    assert load_splits(dict.fromkeys(SPLITS, rows))["cal"][0]["tools"] is None  # the trainer's tools may have it
    tools = [{"name": "add"}]
    with pytest.raises(ValueError, match=r"^cal, row 0: gold_calls calls 'sum', which is not"):
        checked_splits(dict.fromkeys(SPLITS, rows), 0, tools)

    def sum() -> None:
        """A function that is a tool."""

    assert len(checked_splits({name: rows * 6 for name in SPLITS}, 0, [sum])[0]["cal"]) == 24


def test_a_chat_that_ends_with_the_answer_is_refused() -> None:
    messages = [{"role": "user", "content": "Add one."}, {"role": "assistant", "content": "Two."}]
    refused(": messages ends with an assistant's turn, which is what the model shall say; expected", messages=messages)


@pytest.mark.parametrize(
    "turn",
    [
        {"from": "human", "value": "Add one."},
        {"role": None, "content": "x"},
        {"role": "user", "content": 5},
        {"role": "user", "content": {"text": "x"}},
    ],
    ids=str,
)
def test_turns_without_a_role_and_content_are_refused(turn: dict[str, Any]) -> None:
    messages = [{"role": "system", "content": "Be brief."}, turn]
    refused(f": turn 1 of messages is {turn!r}; expected a role and content", messages=messages)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"tool_calls": "now()"}, "tool_calls is 'now()'; expected a list of calls"),
        ({"tool_calls": [{"nme": "x"}]}, "a tool call is {'nme': 'x'}; expected a name and an object of arguments"),
        ({"tool_calls": [{"name": "x", "input": {"a": 1}}]}, "a tool call is {'name': 'x', 'input': {'a': 1}}"),
        ({"tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}, "a tool call is {'function': "),
    ],
    ids=str,
)  # fmt: skip
def test_malformed_calls_in_a_chat_are_refused_with_the_row(turn: dict[str, Any], message: str) -> None:
    """They were refused when the prompt was rendered, without the row."""
    messages = [{"role": "user", "content": "Add one."}, {"role": "assistant", "content": "", **turn}]
    refused(f": turn 1 of messages: {message}", messages=messages)


def test_content_whose_parts_are_texts_is_refused() -> None:
    messages = [{"role": "user", "content": ["Add one."]}]
    refused(": turn 0 of messages has the part 'Add one.'; expected parts such as", messages=messages)


def test_empty_cells_of_nested_columns_are_missing_values() -> None:
    rows = [row | {"tools": "", "gold_calls": " ", "messages": ""} for row in labelled(4)]
    found = load_splits(dict.fromkeys(SPLITS, rows))["cal"][0]
    assert (found["tools"], found["gold_calls"], found["messages"]) == (None, None, None)


@pytest.mark.parametrize(("column", "value"), [("domain", ["a"]), ("domain", {"a": 1}), ("id", [1])], ids=str)
def test_names_that_are_no_texts_are_refused(column: str, value: Any) -> None:
    refused(f": {column} is {value!r}; expected a text", **{column: value})


def test_a_domain_that_is_the_number_zero_is_a_domain() -> None:
    rows = [row | {"domain": i % 2} for i, row in enumerate(labelled(4))]
    assert load_splits(dict.fromkeys(SPLITS, rows))["cal"]["domain"][:] == ["0", "1", "0", "1"]


@pytest.mark.parametrize(("spelled", "known"), [("Tools", "tools"), ("goldCalls", "gold_calls"), ("DOMAIN", "domain")])
def test_a_column_that_is_spelled_otherwise_is_not_ignored(spelled: str, known: str) -> None:
    rows = labelled(4)
    for row in rows:
        row.pop(known, None)
    rows[2][spelled] = None
    with pytest.raises(ValueError, match=f"^cal, row 2: the column '{spelled}' is not read; expected.*'{known}'$"):
        load_splits(dict.fromkeys(SPLITS, rows))


def test_the_error_names_columns_that_may_hold_what_is_missing() -> None:
    rows = [{"question": row["instruction"], "label": row["label"]} for row in labelled(4)]
    with pytest.raises(
        ValueError, match=r"^cal, row 0: no instruction and no messages; .*the row also has 'question'"
    ):
        load_splits(dict.fromkeys(SPLITS, rows))
