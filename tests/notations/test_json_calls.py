"""Calls written as JSON between the markers of Hermes."""

import json
from typing import Any

import pytest
from answers import ARGUMENTS, FUZZ, hermes
from hypothesis import given

from asa_adapter import ToolCall, ToolCallParser


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (hermes('{"name": "f", "arguments": {"a": [1, {"b": null}]}}'), [ToolCall("f", {"a": [1, {"b": None}]})]),
        (hermes('\n{"name": "f", "arguments": {}}\n'), [ToolCall("f", {})]),
        (hermes('{"name": "f"}'), [ToolCall("f", {})]),
        (hermes('{"name": "f", "parameters": {"a": 1}}'), [ToolCall("f", {"a": 1})]),
        (hermes('[{"name": "f"}, {"name": "g"}]'), [ToolCall("f", {}), ToolCall("g", {})]),
        (hermes('{"name": "f"}\n{"name": "g"}'), [ToolCall("f", {}), ToolCall("g", {})]),
        ("So: " + hermes('{"name": "f"}') + "\n" + hermes('{"name": "g"}'), [ToolCall("f", {}), ToolCall("g", {})]),
        ('<tool_call>{"name": "f"}', [ToolCall("f", {})]),
        (hermes('{"name": "f"}') + '<tool_call>{"name": "g", "argu', [ToolCall("f", {})]),
        (hermes("{broken") + hermes('{"name": "g"}'), [ToolCall("g", {})]),
    ],
    ids=[
        "nested",
        "lines",
        "no arguments",
        "parameters",
        "list",
        "two in a block",
        "two blocks",
        "no end",
        "cut",
        "one broken",
    ],
)
def test_hermes_blocks_are_read(text: str, calls: list[ToolCall]) -> None:
    assert ToolCallParser("hermes").parse(text) == calls


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "f(a=1)",
        "[f(a=1)]",
        "{'name': 'f'}",
        '{"arguments": {}}',
        '{"name": 1, "arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": null}',
        '"f"',
        "[]",
        "[1]",
        "null",
        "[" * 50_000,
    ],
    ids=lambda payload: payload[:30] or "nothing",
)
def test_other_hermes_payload_gives_no_call(payload: str) -> None:
    assert ToolCallParser("hermes").parse(hermes(payload)) == []


@FUZZ
@given(ARGUMENTS)
def test_any_json_arguments_come_back(arguments: dict[str, Any]) -> None:
    text = hermes(json.dumps({"name": "f", "arguments": arguments}))
    assert ToolCallParser("hermes").parse(text) == [ToolCall("f", arguments)]
