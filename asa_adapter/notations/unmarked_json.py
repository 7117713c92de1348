"""Tells a tool call written as JSON without any marker from other JSON.

A name and an object of arguments are a call, whatever the name. A name alone is one only if that tool is offered.
"""

import re
from collections.abc import Container, Mapping
from typing import Any

from asa_adapter.notations.json_calls import json_call
from asa_adapter.notations.json_values import json_value
from asa_adapter.notations.tool_call import Reading, ToolCall
from asa_adapter.notations.tool_schemas import unwrapped

# The beginning of a call whose rest is cut or no JSON; a tool's definition, which has `parameters` too, is none.
_CALL_BEGINS = re.compile(
    r'(?:\[\s*)?\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"function"\s*:\s*\{\s*)?"name"\s*:\s*"[^"\\]{1,200}"\s*,\s*'
    r'(?:"arguments"\s*:|"parameters"\s*:(?!\s*\{\s*"(?:type"\s*:\s*"object"|properties")))\s*(?:["{]|\Z)'
)
# Where a turn is over: of its call small models often leave out the last brace.
_TURN_ENDS = re.compile(r"\s*(?:<[^<>\s]{1,40}>|```|\Z)")
_FIRST_PIECE = 4096


def read_unmarked_json(text: str, begin: int, offered: Container[str]) -> tuple[Reading | None, int]:
    """Reads the JSON object or list at a position, if it is a call or calls.

    Args:
        text: the text.
        begin: where `{` or `[` is.
        offered: names of the offered tools.

    Returns:
        The reading, None where the JSON is no call; and where the text goes on behind it.
    """
    try:
        value, end = json_value(text, begin, begin + _FIRST_PIECE)
    except ValueError as error:
        # What is inside cannot be whole either if the text ended first, so that each part is read once.
        open_string = str(error).startswith("Unterminated string")
        end = len(text) if open_string else begin + max(getattr(error, "pos", 0), 1)
        if not _CALL_BEGINS.match(text, begin):
            return None, end
        try:
            value, _ = json_value(f"{text[begin:end]}}}" if _TURN_ENDS.match(text, end) else "", 0)
        except ValueError:
            return Reading([], False, end), end
    items = value if isinstance(value, list) else [value]
    meant = [item for item in items if _is_meant_as_call(item, offered)]
    if not meant:
        return None, end
    calls: list[ToolCall] = [call for call in map(json_call, meant) if call is not None]
    return Reading(calls, len(calls) == len(items), end), end


def _is_meant_as_call(item: Any, offered: Container[str]) -> bool:
    """Whether an object is meant as a call, be it a good or a bad one."""
    inner = unwrapped(item) if isinstance(item, Mapping) else {}
    name = inner.get("name")
    if not isinstance(name, str) or not name or _is_tool_definition(inner):
        return False
    arguments = inner.get("arguments", inner.get("parameters"))
    written = isinstance(arguments, str) and arguments.lstrip().startswith("{")
    return isinstance(arguments, Mapping) or written or name in offered


def _is_tool_definition(inner: Mapping[str, Any]) -> bool:
    """Whether an object is a tool's definition, whose `parameters` are a schema."""
    schema = inner.get("parameters")
    if "arguments" in inner or not isinstance(schema, Mapping):
        return "description" in inner and "arguments" not in inner
    return schema.get("type") == "object" or isinstance(schema.get("properties"), Mapping)
