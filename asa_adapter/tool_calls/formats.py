"""The tool-call formats: for each family of models the markers around a call, and how to read and write the inside.

One entry of `FORMATS` is one format; a new format is a new entry.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asa_adapter.notations.as_json import (
    read_bare_keys,
    read_harmony,
    read_json,
    read_json_sections,
    read_json_sequence,
    read_named_json,
    write_bare_keys,
    write_json,
    write_json_list,
)
from asa_adapter.notations.as_python import read_llama3, read_pythonic_or_json, write_pythonic
from asa_adapter.notations.as_tags import (
    read_argument_tags,
    read_function_tags,
    write_argument_tags,
    write_function_tags,
)
from asa_adapter.notations.call import Reader, ToolCall
from asa_adapter.notations.values import json_text

# What may follow a call that was read: the tokens that end a turn, padding, white space.
_NOTHING_MORE = re.compile(r"(?:\s|<[^<>\s]{1,40}>)*")
_JSON_CALL = r'\{\s*"(?:name"\s*:|type"\s*:\s*"function")'


class Block(NamedTuple):
    """One stretch of an answer that began as a tool call.

    Attributes:
        calls: the calls that could be read.
        whole: whether all of it could be read.
        text: the payload as the model wrote it.
    """

    calls: list[ToolCall]
    whole: bool
    text: str


@dataclass(frozen=True)
class ToolCallFormat:
    """How a family of models writes tool calls.

    Attributes:
        models: the models that write it.
        start: the marker that opens a block.
        end: the marker that closes it; None where the end of the turn does.
        read: reads the payload of a block.
        write: writes the payload of a block.
        several: whether one block holds all calls of a turn, or each call has its own.
        opens: pattern that a payload directly follows; the start marker if empty.
        bare: pattern of an answer that is a call from its first character, without a marker; never matches if empty.
        around: what is written before a payload, after it, and between two blocks; None: the markers and a line end.
        opening: how an answer that is a call begins, where that is not the start marker.
        signs: texts that distinguish the format in a chat template or vocabulary: all those of one tuple.
    """

    models: str
    start: str
    end: str | None
    read: Reader
    write: Callable[[Sequence[ToolCall]], str]
    several: bool = False
    opens: str = ""
    bare: str = ""
    around: tuple[str, str, str] | None = None
    opening: str = ""
    signs: tuple[tuple[str, ...], ...] = ()

    def triggered(self, text: str) -> bool:
        """Whether a tool call begins anywhere in the text."""
        return self._bare_begin(text) is not None or self._payload_begin(text, 0) is not None

    def blocks(self, text: str) -> list[Block]:
        """The block at each position where a call begins; malformed text is a block that is not whole."""
        found: list[Block] = []
        begin = self._bare_begin(text)
        begin = self._payload_begin(text, 0) if begin is None else begin
        while begin is not None:
            limit = self._next_mark(text, begin)
            calls, whole, end = self.read(text, begin, limit)
            if whole and self.end is not None:
                whole = _NOTHING_MORE.fullmatch(text, end, self._next_mark(text, end)) is not None
            found.append(Block(calls, whole and bool(calls), text[begin:limit].strip()))
            begin = self._payload_begin(text, end if whole else limit)
        return found

    def written(self, calls: Sequence[ToolCall]) -> str:
        """The calls as a model of this family writes them, markers included."""
        before, after, between = self.around or (self.start, self.end or "", "\n")
        groups = [list(calls)] if self.several else [[call] for call in calls]
        return between.join(f"{before}{self.write(group)}{after}" for group in groups)

    @functools.cached_property
    def _opens(self) -> re.Pattern[str]:
        return re.compile(self.opens or re.escape(self.start))

    @functools.cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile("|".join([self._opens.pattern, *([re.escape(self.end)] if self.end else [])]))

    def _bare_begin(self, text: str) -> int | None:
        """Where a call without a marker begins; None if the text is not such a call."""
        found = re.match(rf"\s*(?=(?:{self.bare}))", text) if self.bare else None
        return found.end() if found else None

    def _payload_begin(self, text: str, position: int) -> int | None:
        """Where the first payload from a position on begins; None if there is none."""
        opened = self._opens.search(text, position)
        return opened.end() if opened else None

    def _next_mark(self, text: str, position: int) -> int:
        """Where the next marker from a position on begins, or the text ends."""
        found = self._marks.search(text, position)
        return found.start() if found else len(text)


def _each(write: Callable[[ToolCall], str]) -> Callable[[Sequence[ToolCall]], str]:
    """A writer of calls from a writer of one."""
    return lambda calls: "".join(map(write, calls))


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
    ),
    "hermes": ToolCallFormat(
        models="Hermes, Qwen2.5, Qwen3, Granite 4",
        start="<tool_call>",
        end="</tool_call>",
        read=read_json_sequence,
        write=_each(lambda call: f"\n{write_json(call)}\n"),
    ),
    "qwen3_coder": ToolCallFormat(
        models="Qwen3-Coder, Qwen3.5, Nemotron 3",
        start="<tool_call>",
        end="</tool_call>",
        read=read_function_tags,
        write=_each(write_function_tags),
        signs=(("<tool_call>", "<function="),),
    ),
    "llama3": ToolCallFormat(
        models="Llama 3.1 to 3.3",
        start="<|python_tag|>",
        end=None,
        read=read_llama3,
        write=lambda calls: "; ".join(write_json(call, "parameters") for call in calls),
        several=True,
        bare=_JSON_CALL,
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
        bare=rf"\[\s*[^\W\d][\w.-]*\s*\(|{_JSON_CALL}",
        around=("", "", ""),
        opening="[",
    ),
    "mistral": ToolCallFormat(
        models="Mistral, Ministral, Devstral",
        start="[TOOL_CALLS]",
        end=None,
        read=read_named_json,
        write=_each(lambda call: f"{call.name}[ARGS]{json_text(call.arguments)}"),
        around=("[TOOL_CALLS]", "", ""),
    ),
    "gemma4": ToolCallFormat(
        models="Gemma 4",
        start="<|tool_call>",
        end="<tool_call|>",
        read=read_bare_keys('<|"|>'),
        write=_each(lambda call: write_bare_keys(call, '<|"|>')),
        around=("<|tool_call>", "<tool_call|>", ""),
    ),
    "functiongemma": ToolCallFormat(
        models="FunctionGemma",
        start="<start_function_call>",
        end="<end_function_call>",
        read=read_bare_keys("<escape>"),
        write=_each(lambda call: write_bare_keys(call, "<escape>")),
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
    ),
    "phi4": ToolCallFormat(
        models="Phi-4-mini",
        start="functools[",
        end=None,
        read=read_json,
        write=write_json_list,
        several=True,
        opens=r"functools(?=\[)|<\|tool_call\|>",
        around=("functools", "", ""),
        signs=(("functools[",), ("<|tool_call|>", "<|/tool_call|>")),
    ),
    "glm4": ToolCallFormat(
        models="GLM-4.5 to 4.7",
        start="<tool_call>",
        end="</tool_call>",
        read=read_argument_tags,
        write=_each(write_argument_tags),
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
    ),
    "gpt_oss": ToolCallFormat(
        models="gpt-oss",
        start="to=functions.",
        end="<|call|>",
        read=read_harmony,
        write=_each(lambda call: f"{call.name}<|channel|>commentary json<|message|>{json_text(call.arguments)}"),
        # The recipient is in a message's header, before or after the channel; in its text it means nothing.
        opens=r"(?:\A|<\|start\|>assistant|<\|channel\|>\w+)\s*to=functions\.",
        around=("to=functions.", "<|call|>", "<|start|>assistant "),
        opening=" to=functions.",
        signs=(("to=functions.",), ("<|channel|>", "<|constrain|>")),
    ),
}
