"""Calls that lost markers, drafts in reasoning, and what only the offered tools tell from data."""

import json
import re

import pytest
from answers import OSLO_ARGUMENTS, OSLO_JSON
from answers import WEATHER_TOOLS as TOOLS

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.tool_calls.known_formats import FORMATS

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


# The end of a call that has lost its opener, behind a sentence; the last have lost every marker.
GLM = "get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key>\n<arg_value>3</arg_value>"
UNOPENED = [
    ("lfm2", f"{OSLO_PYTHON}<|tool_call_end|>"),
    ("lfm2", f"{OSLO_JSON}<|tool_call_end|><|im_end|>"),
    ("hermes", f"{OSLO_JSON}\n</tool_call>"),
    ("hermes", f"{OSLO_JSON}</tool_call><|im_end|>"),
    ("gemma4", 'call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>'),
    ("functiongemma", "call:get_weather{city:<escape>Oslo<escape>,days:3}<end_function_call>"),
    ("llama4", f"{OSLO_PYTHON}<|python_end|>"),
    ("deepseek_v3", f"get_weather<｜tool▁sep｜>{OSLO_ARGUMENTS}<｜tool▁calls▁end｜>"),
    ("glm4", f"{GLM}\n</tool_call>"),
    ("qwen3_coder", WHOLE["qwen3_coder"].removeprefix("<tool_call>\n")),
]
UNMARKED = [
    ("lfm2", OSLO_PYTHON),
    ("lfm2", f"[{OSLO_JSON}]"),
    ("gemma4", 'call:get_weather{city:<|"|>Oslo<|"|>,days:3}<turn|>'),
    ("functiongemma", "call:get_weather{city:<escape>Oslo<escape>,days:3}"),
    ("llama4", f"{OSLO_PYTHON}<|eot|>"),
    ("granite", f"[{OSLO_JSON}]<|end_of_text|>"),
    ("phi4", f"[{OSLO_JSON}]"),
    ("mistral", f"get_weather{OSLO_ARGUMENTS}</s>"),
    ("deepseek_v3", f"get_weather{OSLO_ARGUMENTS}"),
]


@pytest.mark.parametrize("words", ["I look it up. ", "Let me see:\n\n", "<think>\nHm.\n</think>\n\nYes.\n"])
@pytest.mark.parametrize(("format", "text"), [*UNOPENED, *UNMARKED])
def test_a_call_that_lost_its_opener_behind_a_sentence_is_read(format: str, text: str, words: str) -> None:
    parser = ToolCallParser(format)
    assert parser.parse(words + text, TOOLS) == [OSLO]
    assert parser.check(words + text, TOOLS)["arguments"]
    assert parser.triggered(words + text) is ((format, text) in UNOPENED)


@pytest.mark.parametrize(("format", "text"), UNOPENED)
def test_two_calls_that_lost_their_openers_are_two(format: str, text: str) -> None:
    assert ToolCallParser(format).parse(f"I look both up.\n{text}\n{text}", TOOLS) == [OSLO, OSLO]


NOW = ToolCall("now", {})
IN_A_ROW = [
    ("lfm2", f"{OSLO_PYTHON}\n[now()]"),
    ("gemma4", 'call:get_weather{city:<|"|>Oslo<|"|>,days:3}call:now{}'),
    ("gemma4", '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|>call:now{}<tool_call|>'),
    ("functiongemma", "call:get_weather{city:<escape>Oslo<escape>,days:3}\ncall:now{}"),
    ("mistral", f"get_weather{OSLO_ARGUMENTS}now{{}}"),
    ("mistral", f"[TOOL_CALLS]get_weather[ARGS]{OSLO_ARGUMENTS}now[ARGS]{{}}"),
    ("mistral", f"get_weather[ARGS]{OSLO_ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}"),
    ("deepseek_v3", f"get_weather{OSLO_ARGUMENTS}now{{}}"),
    ("deepseek_v3", f"{DEEPSEEK}{OSLO_ARGUMENTS}<｜tool▁call▁end｜>now<｜tool▁sep｜>{{}}<｜tool▁calls▁end｜>"),
    ("kimi_k2", f"functions.get_weather:0{OSLO_ARGUMENTS}functions.now:1{{}}"),
    (
        "kimi_k2",
        f"{KIMI}{OSLO_ARGUMENTS}<|tool_call_end|>functions.now:1<|tool_call_argument_begin|>{{}}<|tool_call_end|>",
    ),
    (
        "gpt_oss",
        f"commentary to=functions.get_weather json{OSLO_ARGUMENTS}assistantcommentary to=functions.now json{{}}",
    ),
    (
        "gpt_oss",
        f" to=functions.get_weathercommentary json{OSLO_ARGUMENTS}assistant to=functions.nowcommentary json{{}}",
    ),
    ("glm4", f"{GLM}</tool_call>\nnow\n</tool_call>"),
    ("glm4", f"<tool_call>{GLM}<|observation|>\n<tool_call>now<|observation|>"),
]


@pytest.mark.parametrize("words", ["", "I look both up.\n"])
@pytest.mark.parametrize(("format", "text"), IN_A_ROW)
def test_two_calls_in_a_row_that_lost_markers_are_both_read(format: str, text: str, words: str) -> None:
    before = f"analysis{words}assistant" if format == "gpt_oss" and words else words
    assert ToolCallParser(format).parse(before + text, TOOLS) == [OSLO, NOW]


@pytest.mark.parametrize("format", ["lfm2", "mistral", "granite", "phi4", "hermes", "llama4"])
@pytest.mark.parametrize("words", ["", "The tools are:\n"])
def test_a_tools_definition_is_no_call(format: str, words: str) -> None:
    for tools in (
        TOOLS[:1],
        [{"name": "now", "description": "The time."}],
        [{"type": "function", "function": TOOLS[0]}],
    ):
        assert not ToolCallParser(format).triggered(f"{words}{json.dumps(tools)}", TOOLS)


@pytest.mark.parametrize("format", FORMATS)
def test_a_call_that_is_cut_anywhere_is_not_taken_for_another(format: str) -> None:
    parser = ToolCallParser(format)
    calls = [ToolCall("get_weather", {"city": 'New "York", [x](y) {z}'}), ToolCall("now", {})]
    text = parser.write(calls)
    begun = False
    for end in range(1, len(text)):
        found = parser.check(text[:end], TOOLS)
        assert found["triggered"] or not begun
        begun = found["triggered"]
        # GLM's name and its line end alone could be a call without arguments.
        if found["format"] and not text[:end].endswith("get_weather\n"):
            assert parser.parse(text[:end], TOOLS) == calls[: len(parser.parse(text[:end], TOOLS))]


@pytest.mark.parametrize(("format", "text"), UNMARKED)
@pytest.mark.parametrize(
    "around",
    [
        "Write {} to call it.",
        "The call is {}",
        "Write {}",
        "For this:\n{}\nis what you write.",
        "Such as:\n```python\n{}",
        "`{}`",
        "(\n{})",
    ],
)
def test_a_call_without_markers_in_an_explanation_is_text(format: str, text: str, around: str) -> None:
    assert not ToolCallParser(format).triggered(around.format(re.sub(r"<[|/]?\w+[|]?>\Z", "", text)), TOOLS)


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("hermes", 'Here:\n{"name": "Bingo", "age": 30}'),
        ("hermes", 'Here:\n{"name": "Bingo", "age": 30}</tool_call>'),
        ("hermes", f"Here:\n{OSLO_JSON}"),
        ("hermes", f"Here:\n{OSLO_JSON} is JSON.\n</tool_call>"),
        ("lfm2", 'Here.\n[{"name": "Bingo", "age": 30}]'),
        ("lfm2", "Here.\n[1, 2]<|tool_call_end|>"),
        ("lfm2", 'Here.\n[see(city="Oslo")]'),
        ("lfm2", f"Here.\n[{OSLO_JSON}]</tools>"),
        ("llama4", 'Here.\n[see(city="Oslo")]<|eot|>'),
        ("granite", 'Here.\n[{"name": "Bingo"}, {"name": "Rex"}]'),
        ("mistral", 'Here.\nage{"Bingo": 30}'),
        ("gemma4", "Here.\ncall:see{a:1}"),
        ("lfm2", 'Here.\n[get_weather(city="Os'),
    ],
)
def test_data_behind_a_sentence_is_no_call(format: str, text: str) -> None:
    assert not ToolCallParser(format).triggered(text, TOOLS)


@pytest.mark.parametrize("end", ["\n</tool_call>", "<|im_end|>", "\n</tool_call><|im_end|>"])
def test_a_call_of_qwen3_coder_without_its_functions_end_is_read(end: str) -> None:
    parser = ToolCallParser("qwen3_coder")
    call = WHOLE["qwen3_coder"].removesuffix("\n</function>\n</tool_call>")
    assert parser.parse(call + end, TOOLS) == [OSLO]
    assert parser.parse(call + end + "\n" + WHOLE["qwen3_coder"], TOOLS) == [OSLO, OSLO]
    assert parser.parse(call + call.removeprefix("<tool_call>") + end, TOOLS) == [OSLO, OSLO]
    assert parser.check(call, TOOLS)["format"] is False  # cut
    assert parser.parse("<tool_call>\n<function=now>\n</tool_call>", TOOLS) == [ToolCall("now", {})]


def test_a_value_of_qwen3_coder_may_hold_a_marker() -> None:
    calls = [ToolCall("get_weather", {"city": "a </tool_call> <function=b> </function> b", "days": 3})]
    parser = ToolCallParser("qwen3_coder")
    assert parser.parse(parser.write(calls), TOOLS) == calls
    broken = "<tool_call><function=now><parameter=city>1</function></tool_call>"
    assert parser.parse(broken + WHOLE["qwen3_coder"], TOOLS) == [OSLO]


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
    "thought",
    [
        "<think>\nI could say {}\n</think>\n\n",
        "[THINK]{}[/THINK]",
        "So {}?\n</think>\n",
        "<think>{}",
        "<scratchpad>{}</scratchpad>\n",
        "<scratch_pad>\n{}\n</scratch_pad>",
        "<REFLECTION>\n{}\n</REFLECTION>\n",
        "<!-- {} -->\n",
        "Yes.<!--\n{}\n-->\n",
    ],
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
def test_a_comment_that_never_ends_hides_no_call(format: str) -> None:
    """`<!--` in words begins nothing."""
    parser = ToolCallParser(format)
    good = f"<|start|>assistant {parser.write([OSLO])}" if format == "gpt_oss" else parser.write([OSLO])
    words = "Comments begin with <!--" + ("" if format == "llama4" else " in HTML.") + "\n"
    assert parser.parse(words + good, TOOLS) == [OSLO]
    nested = [ToolCall("get_weather", {"city": "<!-- x --> <scratchpad> y </scratchpad>"})]
    assert parser.parse(parser.write(nested), TOOLS) == nested


@pytest.mark.parametrize("format", FORMATS)
def test_tags_of_reasoning_inside_an_argument_are_text(format: str) -> None:
    parser = ToolCallParser(format)
    calls = [ToolCall("f", {"a": "x <think> y </think> z"})]
    assert parser.parse(parser.write(calls)) == calls
