"""Reads and writes tool calls in tags, `<parameter=city>Oslo</parameter>`, whose values stand without quotes.

What such a value is, text or number, only the tool's schema tells: readers leave it `Raw`, `typed` decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.tool_calls.as_json import NAME
from asa_adapter.tool_calls.call import Raw, Reading, ToolCall, skip_space
from asa_adapter.tool_calls.values import json_text, literal, whole_json


def read_function_tags(text: str, begin: int, limit: int) -> Reading:
    """Reads `<function=NAME><parameter=KEY>VALUE</parameter></function>` (Qwen3-Coder)."""
    calls: list[ToolCall] = []
    at = skip_space(text, begin)
    while text.startswith("<function=", at):
        head = text.find(">", at, limit)
        end = text.find("</function>", at, limit)
        if head < 0 or end < 0:
            return Reading(calls, False, begin)
        tagged, whole = _tagged(text[head + 1 : end], "<parameter=", ">", "</parameter>")
        if not whole or not (name := text[at + len("<function=") : head].strip()):
            return Reading(calls, False, begin)
        calls.append(ToolCall(name, {key: Raw(_without_line_ends(value)) for key, value in tagged.items()}))
        at = skip_space(text, end + len("</function>"))
    return Reading(calls, bool(calls), at) if calls else Reading([], False, begin)


def read_argument_tags(text: str, begin: int, limit: int) -> Reading:
    """Reads `NAME<arg_key>k</arg_key><arg_value>v</arg_value>` (GLM)."""
    start = skip_space(text, begin)
    name = NAME.match(text, start)
    if name is None:
        return Reading([], False, begin)
    tagged, whole = _tagged(text[name.end() : limit], "<arg_key>", "</arg_key>", "</arg_value>", "<arg_value>")
    if not whole:
        return Reading([], False, begin)
    return Reading([ToolCall(name[0], {key: Raw(value) for key, value in tagged.items()})], True, limit)


def write_function_tags(call: ToolCall) -> str:
    """A call as Qwen3-Coder writes it."""
    lines = [f"<parameter={key}>\n{_raw(value)}\n</parameter>\n" for key, value in call.arguments.items()]
    return f"\n<function={call.name}>\n{''.join(lines)}</function>\n"


def write_argument_tags(call: ToolCall) -> str:
    """A call as GLM writes it."""
    lines = [
        f"<arg_key>{key}</arg_key>\n<arg_value>{_raw(value)}</arg_value>\n" for key, value in call.arguments.items()
    ]
    return f"{call.name}\n{''.join(lines)}"


def typed(call: ToolCall, properties: Mapping[str, Any]) -> ToolCall:
    """A call whose unquoted values are text, numbers or more, as the tool's schema has it, or else as they look."""
    return ToolCall(
        call.name,
        {
            key: _typed(value, properties.get(key)) if isinstance(value, Raw) else value
            for key, value in call.arguments.items()
        },
    )


def _typed(raw: Raw, schema: Any) -> Any:
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "string" or (isinstance(schema, Mapping) and raw in _listed(schema.get("enum"))):
        return str(raw)
    try:
        value = whole_json(raw)
    except ValueError:
        try:
            value = literal(raw)
        except ValueError:
            return str(raw)
    # Text in quotes: these formats write text without, so the quotes belong to it.
    return str(raw) if isinstance(value, str) else value


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _tagged(body: str, opens: str, splits: str, closes: str, value_opens: str = "") -> tuple[dict[str, str], bool]:
    """Keys and values of `opens KEY splits [value_opens] VALUE closes`, and whether nothing else stood there."""
    arguments: dict[str, str] = {}
    at = skip_space(body, 0)
    while at < len(body):
        split = body.find(splits, at)
        close = body.find(closes, at)
        if not body.startswith(opens, at) or not 0 <= split < close:
            return arguments, False
        key = body[at + len(opens) : split].strip()
        value = skip_space(body, split + len(splits)) if value_opens else split + len(splits)
        if not body.startswith(value_opens, value) or key in arguments or not key:
            return arguments, False
        arguments[key] = body[value + len(value_opens) : close]
        at = skip_space(body, close + len(closes))
    return arguments, True


def _without_line_ends(value: str) -> str:
    """A value without the one line end that is written before it, and the one behind it."""
    return value.removeprefix("\n").removesuffix("\n")


def _raw(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
