"""Schemas of tools that no call can fit, told before a training counts every call as wrong."""

import itertools
from typing import Any

import pytest

from asa_adapter.notations.tool_schemas import parameters_fault, schema_errors


def need(schema: Any, name: str = "a") -> dict[str, Any]:
    """An object's schema with one required argument."""
    return {"type": "object", "properties": {name: schema}, "required": [name]}


WITH_NEED: list[tuple[Any, str]] = [
    ({"type": "number", "minimum": 5, "maximum": 1}, "its minimum 5 is above its maximum 1"),
    ({"type": "string", "minLength": 5, "maxLength": 1}, "its minLength 5 is above its maxLength 1"),
    ({"type": "array", "minItems": 2, "maxItems": 1}, "its minItems 2 is above its maxItems 1"),
    ({"type": "integer", "minimum": 1.2, "maximum": 1.8}, "its bounds leave no whole number"),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "its bounds leave no whole number"),
    ({"type": "number", "exclusiveMinimum": 1, "maximum": 1}, "its bounds leave no number"),
    ({"enum": []}, "that fits none of its values []"),
    ({"type": "integer", "enum": ["1", "2"]}, "that fits none of its values ['1', '2']"),
    ({"type": "string", "const": 1}, "that fits none of its values [1]"),
    ({"type": "string", "maxLength": 0}, "that can only be an empty text"),
    ({"enum": [""]}, "that can only be an empty text"),
    (False, "that is false"),
    ({"not": {}}, "that fits nothing, by its `not`"),
    ({"type": "string", "allOf": [{"type": "integer"}]}, "that has no type that fits"),
    ({"anyOf": [False, {"type": "null", "enum": [1]}]}, "that fits no part of its anyOf, since the first is false"),
    (
        {"type": "array", "items": {"enum": []}, "minItems": 1},
        "that needs items, but an item fits none of its values []",
    ),
    (need({"enum": []}, "b"), "that requires 'b', but that fits none of its values []"),
    ({"$ref": "#"}, "that requires 'a', but that refers to itself by '#' without an end"),
    ({"$ref": "#/properties/a"}, "that refers to itself by '#/properties/a' without an end"),
]
ALONE: list[tuple[dict[str, Any], str]] = [
    ({"required": ["a"], "additionalProperties": False}, "requires 'a', but its additionalProperties is false"),
    ({"minProperties": 2, "maxProperties": 1}, "its minProperties 2 is above its maxProperties 1"),
    (need({}) | {"maxProperties": 0}, "requires 1 arguments, but its maxProperties is 0"),
    ({"type": "object", "not": {}}, "fits nothing, by its `not`"),
    ({"allOf": [{"type": "object"}, need({"enum": []})]}, "requires 'a', but that fits none of its values []"),
    ({"allOf": [{"type": "string"}]}, "has no type that fits"),
]


@pytest.mark.parametrize(
    ("parameters", "fault"), [*((need(schema), f"requires 'a', but {fault}") for schema, fault in WITH_NEED), *ALONE]
)
def test_a_schema_that_nothing_can_fit_is_told(parameters: dict[str, Any], fault: str) -> None:
    tool = {"name": "f", "parameters": parameters}
    assert parameters_fault(tool) == f"has parameters that no call can fit: it {fault}"
    for value in (0, 1, 1.5, 5, "", "x", "1", [], [1], [1, 2], {}, {"a": 1}, True, None):
        assert schema_errors({"a": value}, tool)


@pytest.mark.parametrize(
    ("parameters", "value"),
    [
        ({"properties": {"a": {}, "b": {"enum": []}, "c": False}}, 1),
        (need({"anyOf": [{"type": "null"}, {"$ref": "#"}]}), None),
        (need({"type": "array", "items": {"$ref": "#"}}), []),
        (need({"type": ["string", "integer"], "minimum": 5, "maximum": 1}), "x"),
        (need({"type": "integer", "exclusiveMinimum": 0.5, "maximum": 1}), 1),
        (need({"type": "integer", "minimum": 3, "exclusiveMinimum": 1, "maximum": 3}), 3),
        (need({"enum": ["", "x"]}), "x"),
        (need({"type": "number", "enum": [1]}), 1),
        (need({"type": "array", "items": False}), []),
        (need({"type": "array", "items": False, "prefixItems": [{}], "minItems": 1}), [1]),
        (need({"$ref": "#/$defs/x"}) | {"$defs": {"x": {"type": "string", "enum": ["m"]}}}, "m"),
        (need({"enum": ["m"], "pattern": "^(a+)+$"}), "m"),
        (need({"minimum": 5, "maximum": 1}), "x"),
        (need({}) | {"patternProperties": {"^a": {}}, "additionalProperties": False}, 1),
        ({"properties": {}, "patternProperties": {"^a": {}}, "additionalProperties": False, "required": ["a"]}, 1),
        ({"properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"properties": {"a": {"$ref": "#"}}}}}, {}),
    ],
)  # fmt: skip
def test_a_schema_that_something_fits_is_taken(parameters: dict[str, Any], value: Any) -> None:
    tool = {"name": "f", "parameters": parameters}
    assert parameters_fault(tool) is None
    assert schema_errors({"a": value}, tool) == []


def test_a_schema_of_doubling_references_is_looked_at_in_bounded_time() -> None:
    names = [f"x{i}" for i in range(40)]
    parts = {name: {"allOf": [{"$ref": f"#/$defs/{after}"}] * 2} for name, after in itertools.pairwise(names)}
    tool = {"name": "f", "parameters": need({"$ref": "#/$defs/x0"}) | {"$defs": {**parts, "x39": {"type": "string"}}}}
    assert parameters_fault(tool) is None


def test_many_values_are_not_each_held_against_the_whole_schema() -> None:
    """Two thousand took a second, and their number squared: a stranger's row could take minutes."""
    values = [f"x{i}" for i in range(20_000)]
    assert (
        parameters_fault({"name": "f", "parameters": need({"type": "string", "enum": values, "maxLength": 1})}) is None
    )
