"""Reads and writes tool calls as JSON, `{"name": "f", "arguments": {"a": "x"}}`, or in notations near it.

Models write loosely, so some things are accepted: line ends inside strings, arguments as JSON text, `parameters` in
place of `arguments`. NaN and infinity are not: no JSON can hold them.
"""

import re
from collections.abc import Sequence
from typing import Any

from asa_adapter.notations.json_values import json_text, json_value
from asa_adapter.notations.python_literals import read_literal
from asa_adapter.notations.tool_call import NAME, Reader, Reading, ToolCall, call_from_object, skip_space
from asa_adapter.notations.tool_schemas import unwrapped

_SECTION_NAME = re.compile(r"[^\n<{`]{1,1000}")
# What is between a recipient and its arguments; the message's marker may be missing.
_HARMONY_HEADER = re.compile(r"(?:(?!<\|message\|>)[^{\n]){0,200}(?:<\|message\|>|(?=\{))")
_SKIPPED_CHANNEL = re.compile(r"\s*(?:json)?\s*(?:<\|message\|>)?\s*\{")
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def read_json(text: str, begin: int, limit: int) -> Reading:
    """Reads one `{"name": ..., "arguments": ...}`, or a list of them (Granite, Phi-4)."""
    start = skip_space(text, begin)
    try:
        value, end = json_value(text, start, limit)
    except ValueError:
        return Reading([], False, begin)
    calls = [json_call(item) for item in (value if isinstance(value, list) else [value])]
    readable = [call for call in calls if call is not None]
    return Reading(readable, True, end) if len(readable) == len(calls) else Reading([], False, begin)


def read_json_sequence(text: str, begin: int, limit: int) -> Reading:
    """Reads JSON objects in a row, with semicolons, commas or nothing between them (Hermes, Qwen)."""
    calls: list[ToolCall] = []
    end = begin
    while True:
        found, whole, stop = read_json(text, end, max(limit, end))
        calls += found
        if not whole:
            return Reading(calls, False, begin)
        end = skip_space(text, stop)
        if text.startswith((";", ","), end):
            end = stop = skip_space(text, end + 1)
        if not text.startswith("{", end):
            return Reading(calls, True, stop)


def read_named_json(text: str, begin: int, limit: int) -> Reading:
    """Reads `NAME[ARGS]{json}`, `NAME[CALL_ID]ID[ARGS]{json}`, or a list as `read_json` does (Mistral)."""
    start = skip_space(text, begin)
    name = NAME.match(text, start)
    if name is None:
        return read_json(text, begin, limit)
    at = skip_space(text, name.end())
    if text.startswith("[CALL_ID]", at) and (at := text.find("[ARGS]", at, limit)) < 0:
        return Reading([], False, begin)
    if text.startswith("[ARGS]", at):
        at += len("[ARGS]")
    return _call_of_json_arguments(name[0], text, at, begin, limit)


def read_tagged_json(text: str, begin: int, limit: int) -> Reading:
    """Reads `<function=NAME>{json}</function>` (Llama 3, where its prompt says so)."""
    start = skip_space(text, begin) + len("<function=")
    name = NAME.match(text, start)
    if name is None or not text.startswith(">", name.end()):
        return Reading([], False, begin)
    calls, whole, end = _call_of_json_arguments(name[0], text, name.end() + 1, begin, limit)
    return Reading(calls, whole, end + len("</function>") * text.startswith("</function>", end))


def read_unquoted_keys(quote: str) -> Reader:
    """A reader of `call:NAME{key:value}`: keys without quotes, strings between two `quote` (Gemma)."""
    token = re.compile(
        rf'(?P<string>{re.escape(quote)}(?P<text>.*?){re.escape(quote)})|(?P<json>"(?:\\.|[^"\\])*")'
        r"|(?P<word>[\w.+$-]+)|(?P<other>.)",
        re.DOTALL,
    )

    def read(text: str, begin: int, limit: int) -> Reading:
        start = skip_space(text, begin)
        name = NAME.match(text, start + len("call:")) if text.startswith("call:", start) else None
        if name is None or not text.startswith("{", name.end()):
            return Reading([], False, begin)
        parts, depth = [], 0
        for found in token.finditer(text, name.end()):
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found["other"] or "", 0)
            if found["other"] in ("<", "\\", '"'):
                break
            parts.append(_token_as_json(found, text))
            if not depth:
                try:
                    value, _ = json_value("".join(parts), 0)
                except ValueError:
                    break
                return _call_if_object(name[0], value, found.end(), begin)
        return Reading([], False, begin)

    return read


def read_json_sections(begins: str, separator: str, ends: str) -> Reader:
    """A reader of `begins NAME separator {json} ends`, one section for each call (DeepSeek, Kimi).

    One of the three markers may be missing, as where a decoder skips special tokens.
    """

    named = re.compile(rf"{NAME.pattern}\s*{re.escape(separator)}")

    def read(text: str, begin: int, limit: int) -> Reading:
        calls: list[ToolCall] = []
        at = skip_space(text, begin)
        while not calls or text.startswith(begins, at) or named.match(text, at):
            begun = text.startswith(begins, at)
            name, split, at = _section_head(text, skip_space(text, at + len(begins) * begun), separator)
            found, whole, at = _call_of_json_arguments(name, text, at, begin, limit)
            if not (name and whole and (begun or split or not calls)):
                return Reading(calls, False, begin)
            calls += found
            at = skip_space(text, at)
            at = skip_space(text, at + 3) if text.startswith("```", at) else at
            at = skip_space(text, at + len(ends)) if text.startswith(ends, at) else at
        return Reading(calls, True, at)

    return read


def read_harmony(text: str, begin: int, limit: int) -> Reading:
    """Reads `NAME<|channel|>commentary json<|message|>{json}`, which follows `to=functions.` (gpt-oss)."""
    name = NAME.match(text, begin)
    header = _HARMONY_HEADER.match(text, name.end()) if name else None
    if name is None or header is None:
        return Reading([], False, begin)
    # Without its marker the channel is written to the name.
    plain = name[0].removesuffix("commentary") if _SKIPPED_CHANNEL.match(text, name.end()) else name[0]
    return _call_of_json_arguments(plain or name[0], text, header.end(), begin, limit)


def write_json(call: ToolCall, arguments: str = "arguments") -> str:
    """Writes one call as a JSON object.

    Example:
        >>> write_json(ToolCall("f", {"a": "x", "n": 3}))
        '{"name": "f", "arguments": {"a": "x", "n": 3}}'
    """
    return json_text({"name": call.name, arguments: call.arguments})


def write_json_list(calls: Sequence[ToolCall]) -> str:
    """Writes calls as one JSON list."""
    return f"[{', '.join(map(write_json, calls))}]"


def write_unquoted_keys(call: ToolCall, quote: str) -> str:
    """Writes one call with keys without quotes (Gemma).

    Example:
        >>> write_unquoted_keys(ToolCall("f", {"a": "x", "n": 3}), "<escape>")
        'call:f{a:<escape>x<escape>,n:3}'
    """
    return f"call:{call.name}{_unquoted_value(call.arguments, quote)}"


def json_call(item: Any) -> ToolCall | None:
    """The call of one JSON object, bare or as {"type": "function", "function": ...}; arguments may be JSON text."""
    if not isinstance(item, dict):
        return None
    call = call_from_object(unwrapped(item), lambda text: json_value(text, 0)[0], ("arguments", "parameters"))
    return call if call and call.name else None


def _section_head(text: str, at: int, separator: str) -> tuple[str, bool, int]:
    """The name before a section's JSON arguments, whether a separator follows it, and where the arguments begin."""
    name, end = _section_name(text, at)
    split = text.startswith(separator, end)
    end = skip_space(text, end + len(separator) * split)
    if name == "function" and split and (inner := _section_name(text, end))[0]:
        name, end = inner
    end = skip_space(text, end)
    if text.startswith("```", end):
        end = skip_space(text, end + 3 + 4 * text.startswith("json", end + 3))
        name = name if split else name.removeprefix("function")
    return re.sub(r":\d+$", "", name).removeprefix("functions."), split, end


def _section_name(text: str, at: int) -> tuple[str, int]:
    found = _SECTION_NAME.match(text, at)
    return (found[0].strip(), found.end()) if found else ("", at)


def _call_of_json_arguments(name: str, text: str, at: int, begin: int, limit: int) -> Reading:
    """The call of a tool whose arguments are the JSON object at a position in the text."""
    at = skip_space(text, at)
    try:
        value, end = json_value(text, at, max(limit, at))
    except ValueError:
        return Reading([], False, begin)
    return _call_if_object(name, value, end, begin)


def _call_if_object(name: str, value: Any, end: int, begin: int) -> Reading:
    """The call, if its arguments are an object."""
    return Reading([ToolCall(name, value)], True, end) if isinstance(value, dict) else Reading([], False, begin)


def _token_as_json(found: re.Match[str], text: str) -> str:
    """One token of `call:NAME{key:value}`, as JSON."""
    if found["string"] is not None:
        return json_text(found["text"])
    word = found["word"]
    if word is None:
        return found[0]
    is_key = text.startswith(":", skip_space(text, found.end()))
    if not is_key and word in ("true", "false", "null"):
        return word
    if not is_key and word in ("True", "False", "None"):
        return json_text(read_literal(word))
    return word if not is_key and _NUMBER.fullmatch(word) else json_text(word)


def _unquoted_value(value: Any, quote: str) -> str:
    """A value as `write_unquoted_keys` writes it."""
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_unquoted_value(inner, quote)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_unquoted_value(inner, quote) for inner in value) + "]"
    return json_text(value)
