"""The tool-call formats: for each family of models the markers around a call, and how to read and write the inside.

One entry of `FORMATS` is one format; a new format is a new entry.
"""

import re
from collections.abc import Callable, Sequence

from asa_adapter.notations.json_calls import (
    read_harmony,
    read_json,
    read_json_sections,
    read_json_sequence,
    read_named_json,
    read_unquoted_keys,
    write_json,
    write_json_list,
    write_unquoted_keys,
)
from asa_adapter.notations.json_values import json_text
from asa_adapter.notations.python_calls import read_llama3, read_pythonic_or_json, write_pythonic
from asa_adapter.notations.tag_calls import (
    read_argument_tags,
    read_function_tags,
    write_argument_tags,
    write_function_tags,
)
from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.tool_calls.call_format import ToolCallFormat


def _each(write: Callable[[ToolCall], str]) -> Callable[[Sequence[ToolCall]], str]:
    """A writer of calls from a writer of one."""
    return lambda calls: "".join(map(write, calls))


_NAME = r"[\w.:/-]{1,200}"
_PYTHON_LIST = r"\[\s*[^\W\d][\w.-]{0,200}\s*\("
_JSON_LIST = r"\[\s*\{\s*\""
_BARE_KEYS = rf"call:{_NAME}\{{"
_DEEPSEEK_CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>")
_KIMI_CALL = ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>")

FORMATS: dict[str, ToolCallFormat] = {
    "lfm2": ToolCallFormat(
        models="LFM2, LFM2.5",
        start="<|tool_call_start|>",
        end="<|tool_call_end|>",
        read=read_pythonic_or_json,
        write=write_pythonic,
        several=True,
        unopened=rf"{_PYTHON_LIST}|{_JSON_LIST}|\{{\s*\"",
        json="start",
        skipped=True,
    ),
    "hermes": ToolCallFormat(
        models="Hermes, Qwen2.5, Qwen3, Granite 4",
        start="<tool_call>",
        end="</tool_call>",
        read=read_json_sequence,
        write=_each(lambda call: f"\n{write_json(call)}\n"),
        unopened=r"\{\s*\"",
    ),
    "qwen3_coder": ToolCallFormat(
        models="Qwen3-Coder, Qwen3.5, Nemotron 3",
        start="<tool_call>",
        end="</tool_call>",
        read=read_function_tags,
        write=_each(write_function_tags),
        loose=rf"(?=<function={_NAME}>\s*<(?:parameter=|/function>))",
        signs=(("<tool_call>", "<function="),),
    ),
    "llama3": ToolCallFormat(
        models="Llama 3.1 to 3.3",
        start="<|python_tag|>",
        end=None,
        read=read_llama3,
        write=lambda calls: "; ".join(write_json(call, "parameters") for call in calls),
        several=True,
        loose=rf"(?=<function={_NAME}>\s*\{{)",
        bare=r"[^\W\d][\w.-]{0,200}\.call\(",  # of a built-in tool, whose marker decoders skip
        json="anywhere",
        around=("", "", ""),
        opening='{"',
    ),
    "llama4": ToolCallFormat(
        models="Llama 4",
        start="<|python_start|>",
        end="<|python_end|>",
        read=read_pythonic_or_json,
        write=write_pythonic,
        several=True,
        opens=r"<\|python_start\|>(?:\s*<\|python_end\|>)?",
        unopened=_PYTHON_LIST,
        bare=_PYTHON_LIST,
        json="anywhere",
        around=("", "", ""),
        opening="[",
    ),
    "mistral": ToolCallFormat(
        models="Mistral, Ministral, Devstral",
        start="[TOOL_CALLS]",
        end=None,
        read=read_named_json,
        write=_each(lambda call: f"{call.name}[ARGS]{json_text(call.arguments)}"),
        unopened=rf"{_JSON_LIST}|(?<![\w.:/-]){_NAME}\s*(?:\[(?:ARGS|CALL_ID)\]|\{{\s*[\"}}])",
        bare=rf"{_NAME}\[(?:ARGS|CALL_ID)\]",
        json="start",
        skipped=True,
        around=("[TOOL_CALLS]", "", ""),
    ),
    "gemma4": ToolCallFormat(
        models="Gemma 4",
        start="<|tool_call>",
        end="<tool_call|>",
        read=read_unquoted_keys('<|"|>'),
        write=_each(lambda call: write_unquoted_keys(call, '<|"|>')),
        unopened=_BARE_KEYS,
        bare=_BARE_KEYS,
        around=("<|tool_call>", "<tool_call|>", ""),
    ),
    "functiongemma": ToolCallFormat(
        models="FunctionGemma",
        start="<start_function_call>",
        end="<end_function_call>",
        read=read_unquoted_keys("<escape>"),
        write=_each(lambda call: write_unquoted_keys(call, "<escape>")),
        unopened=_BARE_KEYS,
        bare=_BARE_KEYS,
        around=("<start_function_call>", "<end_function_call>", ""),
    ),
    "granite": ToolCallFormat(
        models="Granite 3.0 to 3.3",
        start="<|tool_call|>",
        end=None,
        read=read_json,
        write=write_json_list,
        several=True,
        opens=r"<\|tool_call\|>|<tool_call>",
        unopened=_JSON_LIST,
        json="start",
        skipped=True,
    ),
    "deepseek_v3": ToolCallFormat(
        models="DeepSeek V3, V3.1, R1",
        start="<｜tool▁calls▁begin｜>",
        end="<｜tool▁calls▁end｜>",
        read=read_json_sections(*_DEEPSEEK_CALL),
        write=_each(
            lambda call: json_text(call.arguments).join(
                (f"{_DEEPSEEK_CALL[0]}{call.name}{_DEEPSEEK_CALL[1]}", _DEEPSEEK_CALL[2])
            )
        ),
        several=True,
        loose=rf"(?={_DEEPSEEK_CALL[0]})",
        unopened=rf"(?<![\w.:/-]){_NAME}\s*(?:{_DEEPSEEK_CALL[1]}|\{{\s*[\"}}])",
        skipped=True,
    ),
    "phi4": ToolCallFormat(
        models="Phi-4-mini",
        start="functools[",
        end=None,
        read=read_json,
        write=write_json_list,
        several=True,
        opens=r"functools(?=\[)|<\|tool_call\|>",
        unopened=_JSON_LIST,
        json="start",
        skipped=True,
        around=("functools", "", ""),
        signs=(("functools[",), ("<|tool_call|>", "<|/tool_call|>")),
    ),
    "glm4": ToolCallFormat(
        models="GLM-4.5 to 4.7",
        start="<tool_call>",
        end="</tool_call>",
        read=read_argument_tags,
        write=_each(write_argument_tags),
        unopened=rf"(?<![\w.:/-]){_NAME}\s*<arg_key>|(?<=\n){_NAME}\s*</tool_call>",
        signs=(("<tool_call>", "<arg_key>"),),
    ),
    "kimi_k2": ToolCallFormat(
        models="Kimi K2",
        start="<|tool_calls_section_begin|>",
        end="<|tool_calls_section_end|>",
        read=read_json_sections(*_KIMI_CALL),
        write=lambda calls: "".join(
            f"{_KIMI_CALL[0]}functions.{call.name}:{i}{_KIMI_CALL[1]}{json_text(call.arguments)}{_KIMI_CALL[2]}"
            for i, call in enumerate(calls)
        ),
        several=True,
        loose=rf"(?={re.escape(_KIMI_CALL[0])}|functions\.{_NAME}:\d{{1,9}}\s*(?:{re.escape(_KIMI_CALL[1])}\s*)?\{{)",
    ),
    "gpt_oss": ToolCallFormat(
        models="gpt-oss",
        start="to=functions.",
        end="<|call|>",
        read=read_harmony,
        write=_each(lambda call: f"{call.name}<|channel|>commentary json<|message|>{json_text(call.arguments)}"),
        # The recipient is in a message's header, before or after the channel; in its text it means nothing.
        opens=r"(?:\A|<\|start\|>assistant|<\|channel\|>\w+)\s*to=functions\.",
        # As decoders leave it that skip special tokens.
        loose=r"(?:\A|(?<=\n)|assistant)(?:analysis|commentary)\s*to=functions\."
        rf"|assistant\s*to=functions\.(?={_NAME}\s*(?:<\|channel\|>\w+\s*)?(?:<\|constrain\|>)?(?:json)?\s*"
        r"(?:<\|message\|>)?\s*\{)",
        around=("to=functions.", "<|call|>", "<|start|>assistant "),
        opening=" to=functions.",
        signs=(("to=functions.",), ("<|channel|>", "<|constrain|>")),
    ),
    "json": ToolCallFormat(
        models="models that were told to, and Qwen2.5-Coder unasked",
        start="",
        end=None,
        read=read_json,
        write=_each(write_json),
        json="anywhere",
        opening='{"',
    ),
}
