"""Which format is found for a tokenizer: templates here are ours, after the shape of those that families use."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from asa_adapter import ToolCall, ToolCallParser
from asa_adapter.tool_calls.format_detection import detected_format, written_sample_call

HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
EACH = "{% for call in m.tool_calls or [] %}{% set f = call.function %}"


def template(call: str, tail: str = TAIL) -> str:
    """A chat template that writes each call of a turn so."""
    return HEAD + EACH + call + "{% endfor %}" + tail


JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
PARAMETERS = '{"name": "{{ f.name }}", "parameters": {{ f.arguments | tojson }}}'
KEYWORDS = "{% for k, v in f.arguments.items() %}{{ k }}={{ v | tojson }}{% endfor %}"
WRITTEN = {
    "lfm2": "<|tool_call_start|>[{{ f.name }}(" + KEYWORDS + ")]<|tool_call_end|>",
    "hermes": "<tool_call>\n" + JSON + "\n</tool_call>",
    "qwen3_coder": "<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}<parameter={{ k }}>\n"
    "{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
    "llama3": PARAMETERS,
    "llama4": "<|python_start|><|python_end|>" + PARAMETERS,
    "mistral": "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}",
    "gemma4": '<|tool_call>call:{{ f.name }}{{ "{" }}{% for k, v in f.arguments.items() %}{{ k }}:<|"|>{{ v }}<|"|>'
    '{% endfor %}{{ "}" }}<tool_call|>',
    "functiongemma": '<start_function_call>call:{{ f.name }}{{ "{" }}{% for k, v in f.arguments.items() %}{{ k }}:'
    '<escape>{{ v }}<escape>{% endfor %}{{ "}" }}<end_function_call>',
    "granite": "<|tool_call|>[" + JSON + "]",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ f.name }}\n```json\n"
    "{{ f.arguments | tojson }}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "phi4": "functools[" + JSON + "]",
    "glm4": "<tool_call>{{ f.name }}\n{% for k, v in f.arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>"
    "{{ v }}</arg_value>\n{% endfor %}</tool_call>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.{{ f.name }}:0<|tool_call_argument_begin|>"
    "{{ f.arguments | tojson }}<|tool_call_end|><|tool_calls_section_end|>",
    "gpt_oss": "<|start|>assistant to=functions.{{ f.name }}<|channel|>commentary json<|message|>"
    "{{ f.arguments | tojson }}<|call|>",
}


class TemplateTokenizer:
    """A chat template rendered by transformers, and a vocabulary of added tokens."""

    def __init__(self, chat_template: Any = None, tokens: tuple[str, ...] = ()) -> None:
        self.chat_template = chat_template
        self.tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def apply_chat_template(self, messages: Any, tools: Any = None, **keywords: Any) -> str:
        keywords = {"add_generation_prompt": keywords["add_generation_prompt"]}
        return str(render_jinja_template([messages], tools, chat_template=self.chat_template, **keywords)[0][0])


@pytest.mark.parametrize("format", WRITTEN)
def test_the_format_of_a_template_that_writes_calls_is_found(format: str) -> None:
    assert detected_format(TemplateTokenizer(template(WRITTEN[format]))) == format


@pytest.mark.parametrize("format", ["hermes", "gemma4", "mistral"])
def test_a_marker_that_begins_like_the_generation_prompt_is_seen_whole(format: str) -> None:
    begun = {"hermes": "<think>", "gemma4": "<|channel>", "mistral": "[THINK]"}[format]
    tail = TAIL.replace("assistant\n", f"assistant\n{begun}")
    assert detected_format(TemplateTokenizer(template(WRITTEN[format], tail))) == format


def test_calls_of_a_kind_that_nobody_here_reads_are_no_format() -> None:
    tokenizer = TemplateTokenizer(template("<tool_call><invoke name={{ f.name }}/></tool_call>"), ("<tool_call>",))
    assert "probe_tool" in written_sample_call(tokenizer)
    assert detected_format(tokenizer) is None


@pytest.mark.parametrize(
    ("text", "tokens", "format"),
    [
        ("", ("<|tool_call_start|>", "<|tool_call_end|>"), "lfm2"),
        ("", ("<tool_call>", "</tool_call>"), "hermes"),
        ("", ("<|tool_call|>",), "granite"),
        ("", ("<|tool_call|>", "<|/tool_call|>"), "phi4"),
        ("", ("<|python_tag|>",), "llama3"),
        ("", ("<|python_start|>", "<|python_end|>"), "llama4"),
        ("", ("<tool_call>", "<arg_key>", "<arg_value>"), "glm4"),
        ("", ("<|channel|>", "<|constrain|>", "<|message|>"), "gpt_oss"),
        ("Write <tool_call><function=NAME>.", ("<tool_call>",), "qwen3_coder"),
        ("Write <tool_call>{}</tool_call>.", ("<|python_tag|>",), "hermes"),
        ("Write functools[].", (), "phi4"),
        ("Hello.", ("<s>",), None),
    ],
)
def test_a_template_that_drops_calls_leaves_the_markers_to_tell(
    text: str, tokens: tuple[str, ...], format: str | None
) -> None:
    assert detected_format(TemplateTokenizer(text + HEAD + TAIL, tokens)) == format


def test_a_template_that_fails_leaves_the_markers_to_tell() -> None:
    tokenizer = TemplateTokenizer("{{ raise_exception('no calls here') }}", ("<|tool_call_start|>",))
    assert written_sample_call(tokenizer) == ""
    assert detected_format(tokenizer) == "lfm2"


def test_arguments_as_text_are_tried_where_a_template_wants_them_so() -> None:
    tokenizer = TemplateTokenizer(template('<tool_call>{"name": "{{ f.name }}", "arguments": {{ "" + f.arguments }}}'))
    assert detected_format(tokenizer) == "hermes"


@pytest.mark.parametrize("format", ["hermes", None])
def test_format_and_markers_can_be_set_by_hand(format: str | None) -> None:
    tokenizer = TemplateTokenizer(HEAD + TAIL, ("<tool_call>", "<tools>"))
    parser = ToolCallParser.from_tokenizer(tokenizer, format, start="<tools>", end="</tools>")
    assert (parser.format, parser.start, parser.end, parser.start_id) == ("hermes", "<tools>", "</tools>", 1)
    text = '<tools>{"name": "now"}</tools>'
    assert parser.parse(text) == [ToolCall("now", {})]
    assert parser.triggered(text)
    assert not parser.triggered('<tool_call>{"name": "now"}</tool_call>')
    assert parser.parse(parser.write([ToolCall("now", {"a": 1})])) == [ToolCall("now", {"a": 1})]


def test_markers_by_hand_replace_the_rule_for_calls_without_one() -> None:
    parser = ToolCallParser("llama3", start="<fn>", end="</fn>")
    assert not parser.triggered('{"name": "now"}')
    assert parser.parse('<fn>{"name": "now"}</fn>') == [ToolCall("now", {})]
