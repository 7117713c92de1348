"""A call's arguments against the tool's schema, however malformed the schema or the number is."""

import contextlib
import time
import urllib.request
from typing import Any

import pytest
from answers import hermes, lfm2
from slowness import slowness

from asa_adapter import ToolCallParser
from asa_adapter.notations.tool_schemas import parameters_fault, schema_errors


def check_add(parameters: Any, payload: str = "[add(a=1)]") -> dict[str, Any]:
    return ToolCallParser("lfm2").check(lfm2(payload), [{"name": "add", "parameters": parameters}])


def test_empty_string_of_an_optional_argument_is_allowed() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "string"}}}
    assert check_add(parameters, '[add(a="")]')["arguments"] is True


def test_schema_may_allow_other_arguments() -> None:
    parameters = {"type": "object", "properties": {}, "additionalProperties": {"type": "integer"}}
    assert check_add(parameters, "[add(x=1)]")["arguments"] is True


def test_schema_may_refer_to_its_own_definitions() -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/number"}},
        "$defs": {"number": {"type": "integer"}},
    }
    assert check_add(parameters, '[add(a="x")]')["errors"] == ["add: 'x' is not of type 'integer'"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"allOf": [{"properties": {"a": {"type": "string"}}}]},
        {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"a": {"type": "string"}}}}},
        {"anyOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {}}}]},
        {"patternProperties": {"^a": {"type": "string"}}},
        {"properties": {"c": {}}, "if": {"required": ["c"]}, "else": {"properties": {"a": {"type": "string"}}}},
    ],
    ids=str,
)
def test_arguments_that_a_part_of_the_schema_names_are_known(parameters: dict[str, Any]) -> None:
    """They were unknown arguments, so that no call of such a tool was valid."""
    assert check_add(parameters, '[add(a="x")]')["errors"] == []
    assert check_add(parameters, '[add(a="x", z=1)]')["errors"] == [
        "add: Unevaluated properties are not allowed ('z' was unexpected)"
    ]
    assert check_add(parameters, "[add(a=1)]")["arguments"] is False


BROKEN_SCHEMAS = [
    "a schema",
    5,
    {"type": "number!"},
    {"type": {"a": 1}},
    {"properties": 5},
    {"properties": ["a"]},
    {"properties": {"a": 5}},
    {"properties": {"a": {"enum": 5}}},
    {"properties": {"a": {"multipleOf": 0}}},
    {"properties": {"a": {"minimum": "x"}}},
    {"properties": {"a": {"$ref": "#/nowhere"}}},
    {"properties": {"a": {"$ref": 5}}},
    {"patternProperties": {"(": {}}},
    {"required": 5},
    {"required": [["a"]]},
    {"allOf": 5},
    {"$id": 5},
    {"$ref": "#"},
]


@pytest.mark.parametrize("parameters", BROKEN_SCHEMAS, ids=str)
def test_broken_schema_is_told_and_not_raised(parameters: Any) -> None:
    result = check_add(parameters)
    assert (result["format"], result["tool_name"], result["arguments"]) == (True, True, False)
    assert len(result["errors"]) == 1
    assert result["errors"][0].startswith("add: ")


def test_broken_pattern_is_told_and_not_raised() -> None:
    result = check_add({"properties": {"a": {"pattern": "("}}}, '[add(a="x")]')
    assert result["arguments"] is False


TWENTY_EIGHT = "a" * 28 + "!"
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "string"}}
EXPLOSIVE: list[dict[str, Any]] = [
    {"properties": {"a": {"pattern": "^(a+)+$"}}},
    {"properties": {"a": {"pattern": "a*a*a*a*a*a*a*a*$"}}},
    {"properties": {"a": {"pattern": "^" + "a?" * 28 + "a" * 28 + "$"}}},
    {"properties": {"a": {"pattern": "^(a|a)*$"}}},
    {"properties": {"a": {"$ref": "#/hidden/pattern"}}, "hidden": {"pattern": {"pattern": "^(a+)+$"}}},
    {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}}},
    {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": DOUBLING},
    {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": {}},
    {"allOf": [{"patternProperties": {"^(a+)+$": {}}}], "unevaluatedProperties": {"type": "string"}},
    {"propertyNames": {"pattern": "^(a+)+$"}},
    {"properties": {f"a{i}": {"pattern": f"{chr(500 + i)}" + "[a-\uffff]" * 39} for i in range(100)}},
    {"properties": {f"a{i}": {"pattern": f"(?i)[\\u{i:04d}-\\U0010ffff]"} for i in range(5000)}},
    {"patternProperties": {f"[{chr(500 + i)}-\U0010ffff]": {} for i in range(5000)}},
    {"properties": {"a": {"pattern": "(?i)" + "[a-\uffff]" * 5000}}},
    {"properties": {"a": {"pattern": "x" * 900_000}}},
]  # fmt: skip


@pytest.mark.parametrize("parameters", EXPLOSIVE, ids=lambda parameters: str(parameters)[:60])
def test_no_schema_takes_long_on_a_short_text(parameters: dict[str, Any]) -> None:
    arguments = {"a": TWENTY_EIGHT, TWENTY_EIGHT: "a"}
    slow, began = slowness(), time.process_time()
    schema_errors(arguments, {"name": "add", "parameters": parameters})
    parameters_fault({"name": "add", "parameters": parameters})
    assert time.process_time() - began < 4 * max(slow, slowness())


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        (r"^\d{4}-\d{2}-\d{2}$", "2026-01-31", "31.01.2026"),
        ("^[A-Z]{3}$", "EUR", "euro"),
        (r"^[\w.-]+$", "a.b-c", "a b"),
        (r"^https://", "https://a", "http://a"),
        (r"^\+\d{3,15}$", "+4912345", "12345"),
    ],
)
def test_a_plain_pattern_is_held_against_the_argument(pattern: str, fitting: str, other: str) -> None:
    tool = {"parameters": {"properties": {"a": {"type": "string", "pattern": pattern}}}}
    assert schema_errors({"a": fitting}, tool) == []
    assert schema_errors({"a": other}, tool) == [f"{other!r} does not match {pattern!r}"]


def test_an_argument_may_be_called_pattern() -> None:
    tool = {"parameters": {"properties": {"pattern": {"type": "string"}, "$schema": {"type": "integer"}}}}
    assert schema_errors({"pattern": 1, "$schema": "x"}, tool) == [
        "1 is not of type 'string'",
        "'x' is not of type 'integer'",
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/schema.json", "file:///etc/hostname"])
def test_schema_never_opens_what_it_refers_to(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    opened: list[Any] = []

    def urlopen(request: Any, *_args: Any, **_keywords: Any) -> Any:
        opened.append(request)
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with contextlib.suppress(Exception):
        check_add({"properties": {"a": {"$ref": url}}})
    assert opened == []


@pytest.mark.parametrize("value", ["1e999", "-1e999", "0x" + "f" * 5000], ids=lambda value: value[:10])
@pytest.mark.parametrize("schema", [{"type": "string"}, {"multipleOf": 0.1}], ids=str)
def test_absurd_number_is_checked_without_an_exception(value: str, schema: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": {"a": schema}}
    assert check_add(parameters, f"[add(a={value})]")["arguments"] is False


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_absurd_number_in_json_is_checked_without_an_exception(value: str) -> None:
    tools = [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"multipleOf": 0.1}}}}]
    text = hermes(f'{{"name": "add", "arguments": {{"a": {value}}}}}')
    assert ToolCallParser("hermes").check(text, tools)["arguments"] is False
