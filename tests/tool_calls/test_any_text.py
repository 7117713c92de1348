"""Every tool-call format: what is written comes back, any text can be checked, and nothing hangs."""

import gc
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from answers import OSLO_ARGUMENTS, OSLO_JSON
from answers import WEATHER_TOOLS as TOOLS
from hypothesis import given, settings
from hypothesis import strategies as st

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.tool_calls.known_formats import FORMATS

# --- what is written comes back

FUZZ = settings(deadline=None, max_examples=60, derandomize=True, database=None)
NAMES = st.sampled_from(["f", "get_weather", "a_1", "städte"])
LETTERS = st.lists(st.sampled_from("ab \n\t\"'\\{}[]()<>|,:;=#é北☔0"), max_size=12).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | LETTERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(st.builds(ToolCall, NAMES, st.dictionaries(NAMES, VALUES, max_size=3)), min_size=1, max_size=3)


def schema_of(value: Any) -> dict[str, Any]:
    """A JSON schema that says whether a value is text."""
    return {"type": "string"} if isinstance(value, str) else {}


@FUZZ
@given(CALLS)
@pytest.mark.parametrize("format", FORMATS)
def test_written_calls_come_back(format: str, calls: list[ToolCall]) -> None:
    calls = [ToolCall(f"{call.name}_{i}", call.arguments) for i, call in enumerate(calls)]
    tools = [
        {"name": call.name, "parameters": {"properties": {k: schema_of(v) for k, v in call.arguments.items()}}}
        for call in calls
    ]
    parser = ToolCallParser(format)
    text = parser.write(calls)
    assert repr(parser.parse(text, tools)) == repr(calls)
    assert parser.triggered(text)
    assert parser.check(text, tools)["format"]


# --- any text at all

PIECES = [
    *(mark for known in FORMATS.values() for mark in (known.start, known.end) if mark),
    *"[]{}(),.:;=\"'*\\-\n<>",
    *(
        "f",
        "a",
        "1",
        "f(a=1)",
        OSLO_JSON,
        OSLO_ARGUMENTS,
        '"name"',
        "call:f{",
        "<escape>",
        '<|"|>',
        "true",
        "1e999",
        "NaN",
    ),
    *("<function=f>", "</function>", "<parameter=a>", "</parameter>", "<arg_key>", "</arg_key>", "<arg_value>"),
    *(
        "</arg_value>",
        "[ARGS]",
        "[CALL_ID]",
        "<|message|>",
        "<|channel|>",
        "<|start|>assistant",
        "functools[",
        "```json\n",
        "```\n",
        "<think>",
        "</think>",
        "functions.f:0",
        '{"name": "f", "arguments": ',
    ),
    *(
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<|tool_call_begin|>",
        "<|tool_call_end|>",
        "0x",
    ),
]


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
@pytest.mark.parametrize("format", FORMATS)
def test_any_text_is_checked_without_an_exception(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    result = parser.check(text, TOOLS)
    assert result["triggered"] is parser.triggered(text, TOOLS)
    assert result["format"] >= result["tool_name"] >= result["arguments"]
    assert result["arguments"] is (result["triggered"] and not result["errors"])
    for call in parser.parse(text):
        json.dumps(call.arguments, allow_nan=False)


def hostile(format: str) -> list[str]:
    """Beginnings that a careless reader would go through again and again."""
    known = FORMATS[format]
    inner = ["", "[", "{", '{"a":', '["', "['", '[\\"', "[f(a='", '[f(a="', "f(", "call:f{", "call:f{a:<escape>"]
    inner += ['call:f{a:<|"|>', "<function=f>", "<function=f><parameter=a>", "f<arg_key>", "f<arg_key>a</arg_key>"]
    inner += ['{"name":', '{"name": "f", "arguments": {', '[{"name": "f", "arguments": {"a": "', "```", "```\n", "= {"]
    inner += ["<think>", "</think>", "\n</think>", "\n", "[{", "<function=f>{", "functions.f:0", '{"a": NaN, "b": {']
    inner += ["f<arg_key>a</arg_key><arg_value>", "f[ARGS]", "f[CALL_ID]", "f[ARGS]{", "<｜tool▁call▁begin｜>"]
    inner += [
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{",
        "<|tool_call_begin|>",
        "f<|message|>",
        "f<|message|>{",
        " ",
        "f ",
        "9",
    ]
    marks = [
        known.start,
        {"phi4": "functools", "gpt_oss": "<|start|>assistant to=functions."}.get(format, known.start),
    ]
    return [mark + piece for mark in dict.fromkeys(marks) for piece in inner]


@pytest.fixture
def no_collection() -> Iterator[None]:
    """No garbage collection: a whole one takes longer than what is measured."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("format", FORMATS)
def test_hostile_text_takes_linear_time(format: str) -> None:
    parser = ToolCallParser(format)

    def seconds(size: int, piece: str, once: str) -> float:
        text = (once + piece * size)[:size]
        began = time.process_time()
        parser.check(text, TOOLS)
        return time.process_time() - began

    start = parser.start
    cases = [(piece, "") for piece in hostile(format)]
    cases += [
        (piece, start)
        for piece in ("[", "{", '{"a":', "-", "9", '"', "'", "\\", " ", "(", "f(", "a=", "1,", "[1,", "<", '{"name":')
    ]
    cases += [
        (piece, "") for piece in ("\n[f(a='", '.[f(a="', '\n{"a": ', "\ncall:f{", '\nf{"', '\n[{"', "f<arg_key>")
    ]
    cases += [(piece, "") for piece in ("<!--", "--><!--", "<scratchpad>", "<function=f><parameter=a>1</parameter>")]
    slow = {
        (piece, once): long
        for piece, once in cases
        if (long := seconds(48_000, piece, once)) > 0.1 and long > 8 * max(seconds(12_000, piece, once), 0.01)
        if (long := min(long, seconds(48_000, piece, once))) > 8 * max(seconds(12_000, piece, once), 0.01)
    }
    # Four times the text: four times the time, and eight leave room for a busy machine; squares would take sixteen.
    # What looks slow is measured once more, since one pause of the machine is enough for that.
    assert slow == {}
