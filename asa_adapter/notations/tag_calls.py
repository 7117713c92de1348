"""Reads and writes tool calls as tags, `<function=f><parameter=a>x</parameter></function>`.

Values have no quotes, so only the tool's schema tells text from numbers: readers leave them `Raw`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.notations.json_values import json_text, whole_json
from asa_adapter.notations.python_literals import read_literal
from asa_adapter.notations.tool_call import NAME, Raw, Reading, ToolCall, skip_space

# What shows that a call is over: its end, or a marker or the next call where that is missing.
_OVER = ("</function>", "<function=", "<tool_call>", "</tool_call>", "<|")


def read_function_tags(text: str, begin: int, limit: int) -> Reading:
    """Reads `<function=NAME><parameter=KEY>VALUE</parameter></function>` (Qwen3-Coder).

    `</function>` may be missing where a marker or the next call shows that the call is over, not cut.
    """
    calls: list[ToolCall] = []
    at = skip_space(text, begin)
    while text.startswith("<function=", at):
        head = text.find(">", at, limit)
        name = text[at + len("<function=") : head].strip() if head > 0 else ""
        tagged, at = _parameter_tags(text, head + 1, limit)
        if not name or tagged is None:
            return Reading(calls, False, begin)
        calls.append(ToolCall(name, tagged))
        at = skip_space(text, at + len("</function>") * text.startswith("</function>", at))
    return Reading(calls, bool(calls), at) if calls else Reading([], False, begin)


def read_argument_tags(text: str, begin: int, limit: int) -> Reading:
    """Reads `NAME<arg_key>k</arg_key><arg_value>v</arg_value>` (GLM)."""
    start = skip_space(text, begin)
    name = NAME.match(text, start)
    if name is None:
        return Reading([], False, begin)
    body = text[name.end() : _end_of_tags(text, name.end(), limit)]
    tagged, whole = _values_in_tags(body, "<arg_key>", "</arg_key>", "</arg_value>", "<arg_value>")
    if not whole or name.end() == len(text):  # a name that is the end of the text is cut
        return Reading([], False, begin)
    return Reading([ToolCall(name[0], {key: Raw(value) for key, value in tagged.items()})], True, limit)


def write_function_tags(call: ToolCall) -> str:
    """Writes one call as `<function=...>` (Qwen3-Coder).

    Example:
        >>> write_function_tags(ToolCall("f", {"a": "x"}))
        '\\n<function=f>\\n<parameter=a>\\nx\\n</parameter>\\n</function>\\n'
    """
    lines = [f"<parameter={key}>\n{_text_in_tag(value)}\n</parameter>\n" for key, value in call.arguments.items()]
    return f"\n<function={call.name}>\n{''.join(lines)}</function>\n"


def write_argument_tags(call: ToolCall) -> str:
    """Writes one call as `<arg_key>` and `<arg_value>` (GLM).

    Example:
        >>> write_argument_tags(ToolCall("f", {"a": "x"}))
        'f\\n<arg_key>a</arg_key>\\n<arg_value>x</arg_value>\\n'
    """
    lines = [
        f"<arg_key>{key}</arg_key>\n<arg_value>{_text_in_tag(value)}</arg_value>\n"
        for key, value in call.arguments.items()
    ]
    return f"{call.name}\n{''.join(lines)}"


def with_typed_values(call: ToolCall, properties: Mapping[str, Any]) -> ToolCall:
    """The call with values of tags, `Raw` ones, typed by the schemas of the arguments, or by their look without one.

    Args:
        call: the call as it was read.
        properties: the schema of each argument, by name.
    """
    return ToolCall(
        call.name,
        {
            key: _typed_tag(value, properties.get(key)) if isinstance(value, Raw) else value
            for key, value in call.arguments.items()
        },
    )


def _typed_tag(raw: Raw, schema: Any) -> Any:
    """The value in a tag as its schema types it."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "string" or (isinstance(schema, Mapping) and raw in _listed_schemas(schema.get("enum"))):
        return str(raw)
    try:
        value = whole_json(raw)
    except ValueError:
        try:
            value = read_literal(raw)
        except ValueError:
            return str(raw)
    # These formats write text without quotes, so quotes around it are part of it.
    return str(raw) if isinstance(value, str) else value


def _listed_schemas(value: Any) -> Sequence[Any]:
    """A list, or an empty one in place of anything else."""
    return value if isinstance(value, list) else []


def _values_in_tags(
    body: str, opens: str, splits: str, closes: str, value_opens: str = ""
) -> tuple[dict[str, str], bool]:
    """Keys and values of `opens KEY splits [value_opens] VALUE closes`, and whether there was nothing else."""
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


def _parameter_tags(text: str, at: int, limit: int) -> tuple[dict[str, Any] | None, int]:
    """The values of `<parameter=KEY>VALUE</parameter>`, and where they end; None where that is not as it should be."""
    found: dict[str, Any] = {}
    at = skip_space(text, at)
    while text.startswith("<parameter=", at):
        split = text.find(">", at, max(limit, at + 200))
        if split < 0:
            return None, at
        # A value may hold a marker, but not another value.
        following = max(limit, text.find("<parameter=", split) % (len(text) + 1))
        close = text.find("</parameter>", split, following)
        if close < 0:
            return None, at
        key = text[at + len("<parameter=") : split].strip()
        if not key or key in found:
            return None, at
        found[key] = Raw(_without_line_ends(text[split + 1 : close]))
        at = skip_space(text, close + len("</parameter>"))
    return (found if text.startswith(_OVER, at) or at == limit < len(text) else None), at


def _end_of_tags(text: str, begin: int, end: int) -> int:
    """Where the special tokens begin that end a turn, as they do where the marker before them is missing."""
    while True:
        while end > begin and text[end - 1].isspace():
            end -= 1
        token = text.rfind("<|", max(begin, end - 42), end)
        if not text.endswith("|>", begin, end) or token < 0:
            return end
        end = token


def _without_line_ends(value: str) -> str:
    """A value without the one line end that is written before it and the one after it."""
    return value.removeprefix("\n").removesuffix("\n")


def _text_in_tag(value: Any) -> str:
    """A value without quotes."""
    return value if isinstance(value, str) else json_text(value)
