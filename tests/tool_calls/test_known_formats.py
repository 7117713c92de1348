"""Every tool-call format: hand-made good, odd and broken answers, and prose."""

import pytest
from answers import OSLO_ARGUMENTS, OSLO_JSON
from answers import WEATHER_TOOLS as TOOLS

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.tool_calls.known_formats import FORMATS

OSLO = ToolCall("get_weather", {"city": "Oslo", "days": 3})
NOW = ToolCall("now", {})
OSLO_PYTHON = '[get_weather(city="Oslo", days=3)]'

# One call alone; two calls, where the format has room for two.
GOOD: dict[str, list[tuple[str, list[ToolCall]]]] = {
    "lfm2": [
        (f"<|tool_call_start|>{OSLO_PYTHON}<|tool_call_end|><|im_end|>", [OSLO]),
        ('<|tool_call_start|>[get_weather(city="Oslo", days=3), now()]<|tool_call_end|>', [OSLO, NOW]),
    ],
    "hermes": [
        (f"<tool_call>\n{OSLO_JSON}\n</tool_call><|im_end|>", [OSLO]),
        (
            f'<tool_call>{OSLO_JSON}</tool_call>\n<tool_call>{{"name": "now", "arguments": {{}}}}</tool_call>',
            [OSLO, NOW],
        ),
    ],
    "qwen3_coder": [
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
            "</parameter>\n</function>\n</tool_call>",
            [OSLO],
        ),
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n"
            "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
            [OSLO, NOW],
        ),
    ],
    "llama3": [
        ('{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}<|eot_id|>', [OSLO]),
        (
            '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo", "days": 3}}; '
            '{"name": "now", "parameters": {}}<|eom_id|>',
            [OSLO, NOW],
        ),
    ],
    "llama4": [
        (f"{OSLO_PYTHON}<|eot|>", [OSLO]),
        ("<|python_start|>[get_weather(city='Oslo', days=3), now()]<|python_end|><|eom|>", [OSLO, NOW]),
    ],
    "mistral": [
        (f'[TOOL_CALLS][{OSLO_JSON[:-1]}, "id": "abcdef123"}}]</s>', [OSLO]),
        (f"[TOOL_CALLS]get_weather[CALL_ID]abcdef123[ARGS]{OSLO_ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}</s>", [OSLO, NOW]),
    ],
    "gemma4": [
        ('<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|><turn|>', [OSLO]),
        (
            '<|tool_call>call:get_weather{city:<|"|>Oslo<|"|>,days:3}<tool_call|><|tool_call>call:now{}<tool_call|>',
            [OSLO, NOW],
        ),
    ],
    "functiongemma": [
        (
            "<start_function_call>call:get_weather{city:<escape>Oslo<escape>,days:3}<end_function_call>"
            "<start_function_response>",
            [OSLO],
        ),
        (
            "<start_function_call>call:get_weather{city:<escape>Oslo<escape>,days:3}<end_function_call>"
            "<start_function_call>call:now{}<end_function_call>",
            [OSLO, NOW],
        ),
    ],
    "granite": [
        (f"<|tool_call|>[{OSLO_JSON}]<|end_of_text|>", [OSLO]),
        (f'<tool_call>[{OSLO_JSON}, {{"name": "now", "arguments": {{}}}}]', [OSLO, NOW]),
    ],
    "deepseek_v3": [
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
            f"{OSLO_ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
            [OSLO],
        ),
        (
            f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{OSLO_ARGUMENTS}<｜tool▁call▁end｜>"
            "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            [OSLO, NOW],
        ),
    ],
    "phi4": [
        (f"functools[{OSLO_JSON}]<|end|>", [OSLO]),
        (f'<|tool_call|>[{OSLO_JSON}, {{"name": "now", "arguments": {{}}}}]<|/tool_call|>', [OSLO, NOW]),
    ],
    "glm4": [
        (
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n"
            "<arg_value>3</arg_value>\n</tool_call>",
            [OSLO],
        ),
        (
            "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Oslo</arg_value><arg_key>days</arg_key>"
            "<arg_value>3</arg_value></tool_call><tool_call>now</tool_call>",
            [OSLO, NOW],
        ),
    ],
    "kimi_k2": [
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            f"{OSLO_ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
            [OSLO],
        ),
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
            f"{OSLO_ARGUMENTS}<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{{}}"
            "<|tool_call_end|><|tool_calls_section_end|><|im_end|>",
            [OSLO, NOW],
        ),
    ],
    "gpt_oss": [
        (
            "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>commentary "
            f"to=functions.get_weather <|constrain|>json<|message|>{OSLO_ARGUMENTS}<|call|>",
            [OSLO],
        ),
        (
            f" to=functions.get_weather<|channel|>commentary json<|message|>{OSLO_ARGUMENTS}<|call|><|start|>"
            "assistant to=functions.now<|channel|>commentary<|message|>{}<|call|>",
            [OSLO, NOW],
        ),
    ],
    "json": [
        (f"{OSLO_JSON}<|im_end|>", [OSLO]),
        (f'```json\n[{OSLO_JSON}, {{"name": "now", "parameters": {{}}}}]\n```<|im_end|>', [OSLO, NOW]),
    ],
}

# Not as the documentation has it, and readable all the same.
ODD: list[tuple[str, str, list[ToolCall]]] = [
    ("lfm2", f"Let me look. <|tool_call_start|> {OSLO_PYTHON} <|tool_call_end|> Done.", [OSLO]),
    ("lfm2", f"<|tool_call_start|>[{OSLO_JSON}]<|tool_call_end|>", [OSLO]),
    (
        "lfm2",
        "<|tool_call_start|>[say(text='it's so', loud=true)]",
        [ToolCall("say", {"text": "it's so", "loud": True})],
    ),
    ("lfm2", '<|tool_call_start|>[say(text="a "b" c")]', [ToolCall("say", {"text": 'a "b" c'})]),
    ("lfm2", '<|tool_call_start|>[say(text="<|tool_call_end|>")]', [ToolCall("say", {"text": "<|tool_call_end|>"})]),
    ("lfm2", '<|tool_call_start|>now(), say(text="x")<|tool_call_end|>', [NOW, ToolCall("say", {"text": "x"})]),
    ("hermes", f"<tool_call>{OSLO_JSON}<|im_end|>", [OSLO]),
    (
        "hermes",
        '<tool_call>{"name": "say", "arguments": "{\\"text\\": \\"x\\"}"}</tool_call>',
        [ToolCall("say", {"text": "x"})],
    ),
    ("hermes", '<tool_call>{"type": "function", "function": {"name": "now"}}</tool_call>', [NOW]),
    (
        "hermes",
        '<tool_call>{"name": "say", "arguments": {"text": "two\nlines"}}',
        [ToolCall("say", {"text": "two\nlines"})],
    ),
    (
        "hermes",
        '<tool_call>{"name": "say", "arguments": {"text": "</tool_call>"}}</tool_call>',
        [ToolCall("say", {"text": "</tool_call>"})],
    ),
    (
        "qwen3_coder",
        "<tool_call><function=say><parameter=text>\na\n\nb\n\n</parameter></function>",
        [ToolCall("say", {"text": "a\n\nb\n"})],
    ),
    (
        "qwen3_coder",
        "<tool_call><function=f><parameter=a>{'k': [True, None]}</parameter></function>",
        [ToolCall("f", {"a": {"k": [True, None]}})],
    ),
    (
        "qwen3_coder",
        '<tool_call><function=f><parameter=a>"quoted"</parameter></function></tool_call>',
        [ToolCall("f", {"a": '"quoted"'})],
    ),
    ("llama3", f"I look it up. {OSLO_JSON}", [OSLO]),
    ("llama3", f"```json\n{OSLO_JSON}\n```<|eot_id|>", [OSLO]),
    ("llama3", f"```\n[{OSLO_JSON}]\n```", [OSLO]),
    ("llama3", f"{OSLO_JSON} This is the call.", [OSLO]),
    ("llama3", f"<function=get_weather>{OSLO_ARGUMENTS}</function><|eom_id|>", [OSLO]),
    ("llama3", f"I look it up.\n<function=get_weather>{OSLO_ARGUMENTS}", [OSLO]),
    ("llama3", '\n\n{"type": "function", "name": "now", "parameters": {}}', [NOW]),
    (
        "llama3",
        '<|python_tag|>brave_search.call(query="Oslo")<|eom_id|>',
        [ToolCall("brave_search", {"query": "Oslo"})],
    ),
    ("llama3", '{"name": "now", "parameters": {}};', [NOW]),
    ("llama4", '<|python_start|><|python_end|>{"name": "now", "parameters": {}}<|eom|>', [NOW]),
    ("mistral", f"[TOOL_CALLS] get_weather{OSLO_ARGUMENTS}", [OSLO]),
    ("mistral", f"I look it up.[TOOL_CALLS]get_weather[ARGS]{OSLO_ARGUMENTS}", [OSLO]),
    (
        "gemma4",
        '<|tool_call>call:f{a:None,b:[true,1.5,-2],c:{k:<|"|>x, }<|"|>}}<tool_call|>',
        [ToolCall("f", {"a": None, "b": [True, 1.5, -2], "c": {"k": "x, }"}})],
    ),
    ("gemma4", '<|tool_call>call:f{ "a" : "x" , b : word }', [ToolCall("f", {"a": "x", "b": "word"})]),
    (
        "functiongemma",
        "<start_function_call>call:f{a:<escape>{b:1}<escape>,true:false}",
        [ToolCall("f", {"a": "{b:1}", "true": False})],
    ),
    ("granite", f"<|tool_call|> {OSLO_JSON}", [OSLO]),
    (
        "deepseek_v3",
        f"Yes.<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{OSLO_ARGUMENTS}",
        [OSLO],
    ),
    ("phi4", f"Sure. functools[{OSLO_JSON}]", [OSLO]),
    ("glm4", "<think>I must look.</think><tool_call>now\n</tool_call>", [NOW]),
    ("glm4", '<tool_call>f<arg_key>a</arg_key>\n<arg_value>[1, "x"]</arg_value>', [ToolCall("f", {"a": [1, "x"]})]),
    (
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|> functions.now:12 <|tool_call_argument_begin|> {} "
        "<|tool_call_end|>",
        [NOW],
    ),
    ("gpt_oss", f"<|channel|>commentary to=functions.get_weather<|message|>{OSLO_ARGUMENTS}", [OSLO]),
    ("json", f"I look it up: {OSLO_JSON}", [OSLO]),
    ("json", f"<tools>\n{OSLO_JSON}\n</tools>", [OSLO]),
    ("json", f"```\n{OSLO_JSON}\n```\nand then\n```python\n{OSLO_JSON}\n```", [OSLO, OSLO]),
    ("json", f"{OSLO_JSON}; {OSLO_JSON}", [OSLO, OSLO]),
    ("json", '{"type": "function", "function": {"name": "now", "parameters": "{}"}}', [NOW]),
    ("json", '{"name": "now", "arguments": {}<|im_end|>', [NOW]),
]

# A call begins, and it cannot be read; what could be read before it is in the last column.
BROKEN: list[tuple[str, str, list[ToolCall]]] = [
    ("lfm2", "<|tool_call_start|>[get_weather(city=", []),
    ("lfm2", "<|tool_call_start|>[now(), get_weather(city='Os<|tool_call_end|>", [NOW]),
    ("lfm2", "<|tool_call_start|>Let me see<|tool_call_end|>", []),
    ("hermes", "<tool_call>{'name': 'now'}</tool_call>", []),
    ("hermes", '<tool_call>{"name": "now"</tool_call>', []),
    ("hermes", '<tool_call>{"name": "now"} and so on</tool_call>', [NOW]),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', []),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>', []),
    ("qwen3_coder", "<tool_call><function=f><parameter=a>1</function></tool_call>", []),
    ("qwen3_coder", "<tool_call><function=f><parameter=a>1</parameter>", []),
    ("qwen3_coder", '<tool_call>\n{"name": "now"}\n</tool_call>', []),
    ("llama3", '{"name": "now", "parameters": ', []),
    ("llama3", "<|python_tag|>print(1)", []),
    ("llama4", "[get_weather(city=", []),
    ("mistral", "[TOOL_CALLS]get_weather[ARGS]{", []),
    ("mistral", "[TOOL_CALLS]get_weather[CALL_ID]abc", []),
    ("mistral", "[TOOL_CALLS]", []),
    ("gemma4", '<|tool_call>call:f{a:<|"|>x', []),
    ("gemma4", "<|tool_call>call:f{a:two words}<tool_call|>", []),
    ("gemma4", "<|tool_call>f{}<tool_call|>", []),
    ("functiongemma", "<start_function_call>call:f{a:1<end_function_call>", []),
    ("granite", '<|tool_call|>[{"arguments": {}}]', []),
    ("deepseek_v3", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{", []),
    ("deepseek_v3", "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>", []),
    ("phi4", 'functools[{"name": "now"', []),
    ("glm4", "<tool_call>f<arg_key>a</arg_key></tool_call>", []),
    ("glm4", "<tool_call>f<arg_key>a</arg_key><arg_value>1", []),
    ("glm4", "<tool_call></tool_call>", []),
    ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>[]", []),
    ("gpt_oss", " to=functions.get_weather<|channel|>commentary json<|message|>Oslo<|call|>", []),
    ("gpt_oss", " to=functions.get_weather", []),
    ("json", '```json\n{\n  "name": "now",\n  "arguments": {\n    "a": "cut', []),
    ("json", '{"name": "f", "parameters": {"n": 7 * 3}}', []),
    ("json", '{"name": "f", "arguments": {"a": NaN}}', []),
    ("json", '[{"name": "now", "arguments": {}}, {"name": "Bingo"}]', [NOW]),
]

# Nothing here begins a call.
PROSE: list[tuple[str, str]] = [
    *((format, "It is 3 degrees in Oslo.") for format in FORMATS),
    ("lfm2", OSLO_PYTHON),
    ("hermes", OSLO_JSON),
    ("llama3", '{"city": "Oslo"}'),
    ("llama3", '{"name": "Bingo", "age": 30}'),
    ("llama3", '{"type": "function", "name": "now"}'),
    ("llama4", "[1, 2, 3]"),
    ("llama4", f"Here: {OSLO_PYTHON}"),
    ("phi4", "functools is a module"),
    ("gpt_oss", "<|channel|>commentary<|message|>I shall look it up.<|end|>"),
    ("gpt_oss", "<|channel|>final<|message|>Write to=functions.get_weather in the header.<|return|>"),
    ("qwen3_coder", "Write <function=name> first."),
    ("json", '{"name": "Bingo", "age": 30}'),
    ("json", '[{"name": "Bingo"}, {"name": "Rex"}]'),
    ("json", '{"name": "now"}'),
    ("json", '{"name": "Bingo", "arguments": "good ones"}'),
    ("json", '{"name": "now", "argu'),
    ("json", '{"name": "f", "description": "A tool.", "parameters": {"type": "object", "properties": {}}}'),
    ("json", f'{{"calls": [{OSLO_JSON}]}}'),
    ("json", f"```python\ncall = {OSLO_JSON}\nprint(call)\n```\nEnd."),
    ("json", f"Write call({OSLO_JSON}), calls = [{OSLO_JSON}] or `{OSLO_JSON}`."),
]


def test_every_format_of_the_contract_is_there_and_tested() -> None:
    contract = "lfm2 hermes qwen3_coder llama3 llama4 mistral gemma4 functiongemma granite deepseek_v3 phi4 glm4 "
    assert set(FORMATS) == set((contract + "kimi_k2 gpt_oss json").split()) == set(GOOD)
    assert {format for format, *_ in ODD} == {format for format, *_ in BROKEN} == set(FORMATS)


@pytest.mark.parametrize(
    ("format", "text", "calls"), [(format, *example) for format, examples in GOOD.items() for example in examples]
)
def test_good_calls_are_read_and_fit(format: str, text: str, calls: list[ToolCall]) -> None:
    parser = ToolCallParser(format)
    assert parser.parse(text) == calls
    assert parser.check(text, TOOLS) == {
        "triggered": True,
        "format": True,
        "tool_name": True,
        "arguments": True,
        "errors": [],
    }


@pytest.mark.parametrize(("format", "text", "calls"), ODD)
def test_odd_calls_are_read(format: str, text: str, calls: list[ToolCall]) -> None:
    parser = ToolCallParser(format)
    assert repr(parser.parse(text)) == repr(calls)
    assert parser.triggered(text)
    assert parser.check(text, [])["format"]


@pytest.mark.parametrize(("format", "text", "calls"), BROKEN)
def test_broken_calls_are_triggers_that_do_not_parse(format: str, text: str, calls: list[ToolCall]) -> None:
    parser = ToolCallParser(format)
    assert parser.triggered(text)
    assert parser.parse(text) == calls
    result = parser.check(text, TOOLS)
    assert (result["format"], result["tool_name"], result["arguments"]) == (False, False, False)
    assert result["errors"][0].startswith("not readable as a call: ")


@pytest.mark.parametrize(("format", "text"), PROSE)
def test_prose_is_no_trigger(format: str, text: str) -> None:
    parser = ToolCallParser(format)
    assert not parser.triggered(text)
    assert parser.parse(text) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_block_leaves_the_good_one_behind_it(format: str) -> None:
    parser = ToolCallParser(format)
    start = {"gpt_oss": "<|start|>assistant to=functions.", "phi4": "<|tool_call|>"}.get(format, parser.start)
    start += "<arg_key>" if format == "glm4" else ""
    good, calls = GOOD[format][1] if format in ("llama3", "llama4") else GOOD[format][0]
    good = {"phi4": f"functools[{OSLO_JSON}]", "gpt_oss": f"<|start|>assistant{GOOD['gpt_oss'][1][0]}"}.get(
        format, good
    )
    calls = GOOD["gpt_oss"][1][1] if format == "gpt_oss" else calls
    assert parser.parse(f"{start} oops {good}") == calls
