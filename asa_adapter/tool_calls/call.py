"""`ToolCall`: one call, how it is read from an object, and what reading one stretch of an answer gave."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True)
class ToolCall:
    """One call as the model wrote it: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


class Reading(NamedTuple):
    """What a reader made of a payload.

    Attributes:
        calls: the calls that could be read, in their order.
        whole: whether that was all there was up to `end`.
        end: where in the text reading stopped; where it began, if it failed.
    """

    calls: list[ToolCall]
    whole: bool
    end: int


class Raw(str):
    """An argument from a format that writes values without quotes: text, or a number, only the schema can tell."""


# Reads the payload that begins at text[begin]. The next marker after it stands at text[limit], or the text ends there;
# readers that know where a string ends may look beyond, since a string may hold a marker.
Reader = Callable[[str, int, int], Reading]


def _read_arguments(text: str) -> Any:
    """Arguments from JSON text, which is empty where there are none."""
    return json.loads(text or "{}")


def call_from(
    fields: Any,
    read_text: Callable[[str], Any] = _read_arguments,
    argument_keys: Sequence[str] = ("arguments",),
) -> ToolCall | None:
    """The call that an object {"name", "arguments"} describes; None for anything else.

    Args:
        fields: the object, not wrapped in "function".
        read_text: reads arguments given as JSON text; raises ValueError or RecursionError where it cannot.
        argument_keys: where the arguments may be, the first one present counts; {} where none is.

    Example:
        >>> call_from({"name": "add", "arguments": '{"a": 1}'})
        ToolCall(name='add', arguments={'a': 1})
    """
    if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
        return None
    arguments: Any = next((fields[key] for key in argument_keys if key in fields), {})
    if isinstance(arguments, str):
        try:
            arguments = read_text(arguments)
        except (ValueError, RecursionError):
            return None
    return ToolCall(fields["name"], dict(arguments)) if isinstance(arguments, Mapping) else None


def skip_space(text: str, position: int) -> int:
    """The first place from a position on that holds no white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
