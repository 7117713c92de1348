"""Calls that lost markers, drafts in reasoning, and what only the offered tools tell from data."""

import re

import pytest
from answers import OSLO_ARGUMENTS, OSLO_JSON
from answers import WEATHER_TOOLS as TOOLS

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.tool_calls.formats import FORMATS

OSLO = ToolCall("get_weather", {"city": "Oslo", "days": 3})
OSLO_PYTHON = '[get_weather(city="Oslo", days=3)]'

# Calls that lost a marker or all of them, as where a decoder skips special tokens. Without tools some are data.
KIMI = "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
DEEPSEEK = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
DEEPSEEK_V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
WHOLE = {
    "lfm2": f"<|tool_call_start|>{OSLO_PYTHON}<|tool_call_end|>",
    "qwen3_coder": "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
    "</parameter>\n</function>\n</tool_call>",
    "kimi_k2": f"{KIMI}{OSLO_ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "deepseek_v3": f"{DEEPSEEK}{OSLO_ARGUMENTS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "gpt_oss": "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    f"{OSLO_ARGUMENTS}<|call|>",
    "granite": f"<|tool_call|>[{OSLO_JSON}]",
    "phi4": f"<|tool_call|>[{OSLO_JSON}]<|/tool_call|>",
    "mistral": f"[TOOL_CALLS]get_weather[ARGS]{OSLO_ARGUMENTS}",
    "llama4": f"<|python_start|>{OSLO_PYTHON}<|python_end|>",
    "hermes": f"<tool_call>{OSLO_JSON}</tool_call>",
}
MARKER = re.compile(r"<[|｜][^<>]+[|｜]>|</?tool_call>|\[(?:TOOL_CALLS|ARGS)\]")
LOST = [
    (format, text[: mark.start()] + text[mark.end() :])
    for format, text in [*WHOLE.items(), ("deepseek_v3", f"{DEEPSEEK_V3}{OSLO_ARGUMENTS}\n```<｜tool▁call▁end｜>")]
    for mark in MARKER.finditer(text)
]
SKIPPED = [(format, MARKER.sub("", text)) for format, text in WHOLE.items() if format != "hermes"]


@pytest.mark.parametrize(("format", "text"), [*LOST, *SKIPPED])
def test_a_call_that_lost_markers_is_read(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    assert parser.parse(text, TOOLS) == [OSLO]
    assert parser.triggered(text, TOOLS)


@pytest.mark.parametrize("words", ["Checking the weather of Oslo.", "\n\nI look [it] up (now)."])
@pytest.mark.parametrize("format", ["lfm2", "deepseek_v3", "granite", "phi4", "mistral"])
def test_words_behind_a_call_without_markers_leave_it_a_call(format: str, words: str) -> None:
    """LFM2 tells what it does behind its call; a decoder that skips special tokens leaves nothing between the two."""
    parser, text = ToolCallParser(format), MARKER.sub("", WHOLE[format]) + words
    assert parser.parse(text, TOOLS) == [OSLO]
    assert parser.check(text, TOOLS)["errors"] == []
    if format not in ("granite", "phi4"):  # there a name and arguments as JSON are a call whatever is offered
        assert not parser.triggered(text)
        assert not parser.triggered(text.replace("get_weather", "see"), TOOLS)


def test_a_built_in_tool_of_llama_is_called_without_its_marker() -> None:
    parser = ToolCallParser("llama3")
    assert parser.parse('brave_search.call(query="Oslo")') == [ToolCall("brave_search", {"query": "Oslo"})]
    assert not parser.triggered('Use brave_search.call(query="Oslo") for that.')


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("lfm2", OSLO_PYTHON),
        ("mistral", f"get_weather{OSLO_ARGUMENTS}"),
        ("deepseek_v3", f"get_weather{OSLO_ARGUMENTS}"),
        ("json", '{"name": "get_weather"}'),
        ("llama3", '{"name": "get_weather"}'),
        ("granite", '[{"name": "get_weather"}]'),
    ],
)
def test_what_only_the_offered_tools_tell_from_data(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    assert parser.triggered(text, TOOLS)
    assert [call.name for call in parser.parse(text, TOOLS)] == ["get_weather"]
    assert not parser.triggered(text)
    assert not parser.triggered(text, [{"name": "now"}])
    assert parser.check(text, [{"name": "now"}])["triggered"] is False


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "thought", ["<think>\nI could say {}\n</think>\n\n", "[THINK]{}[/THINK]", "So {}?\n</think>\n", "<think>{}"]
)
def test_a_call_drafted_in_reasoning_is_none(format: str, thought: str) -> None:
    parser = ToolCallParser(format)
    good = parser.write([OSLO])
    drafted = thought.format(good)
    assert not parser.triggered(drafted, TOOLS)
    assert parser.parse(f"{drafted}It is warm.", TOOLS) == []
    if thought != "<think>{}":
        again = f"<|start|>assistant {good}" if format == "gpt_oss" else good
        assert parser.parse(drafted + again, TOOLS) == [OSLO]


@pytest.mark.parametrize("format", FORMATS)
def test_tags_of_reasoning_inside_an_argument_are_text(format: str) -> None:
    parser = ToolCallParser(format)
    calls = [ToolCall("f", {"a": "x <think> y </think> z"})]
    assert parser.parse(parser.write(calls)) == calls
