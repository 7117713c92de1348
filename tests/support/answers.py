"""Answers with tool calls, the tools that they call, and arbitrary arguments."""

from hypothesis import settings
from hypothesis import strategies as st

from asa_adapter import ToolCall, ToolCallParser

LFM2_START, LFM2_END = "<|tool_call_start|>", "<|tool_call_end|>"
ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
}
SAY = {
    "name": "say",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}
NOW = {"name": "now"}
TOOLS = [ADD, SAY, NOW]

WEATHER_TOOLS = [
    {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
    {"name": "now"},
]
OSLO_JSON = '{"name": "get_weather", "arguments": {"city": "Oslo", "days": 3}}'
OSLO_ARGUMENTS = '{"city": "Oslo", "days": 3}'

FUZZ = settings(deadline=None, max_examples=150, derandomize=True, database=None)


def lfm2(payload: str) -> str:
    return f"{LFM2_START}{payload}{LFM2_END}"


def hermes(payload: str) -> str:
    return f"<tool_call>{payload}</tool_call>"


def parse_lfm2(payload: str) -> list[ToolCall]:
    return ToolCallParser("lfm2").parse(lfm2(payload))


def text_of(*code_points: st.SearchStrategy[int], longest: int) -> st.SearchStrategy[str]:
    # hypothesis's own text() first builds tables of all of Unicode, which takes seconds.
    return st.lists(st.one_of(*code_points), max_size=longest).map(lambda codes: "".join(map(chr, codes)))


STRINGS = text_of(st.integers(0, 0x2FF), st.integers(0xE000, 0x10FFFF), longest=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["a", "b", "some_name", "städte"]), VALUES, max_size=3)
