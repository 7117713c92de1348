"""What the notations share: one call, the result of reading some, and a call given as an object."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# A tool's name where no quotes delimit it.
NAME = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True)
class ToolCall:
    """One call as the model wrote it: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


class Reading(NamedTuple):
    """The result of reading a payload.

    Attributes:
        calls: the calls that could be read, in their order.
        whole: whether everything up to `end` could be read.
        end: the position in the text where reading stopped; where it began, if it failed.
    """

    calls: list[ToolCall]
    whole: bool
    end: int


class Raw(str):
    """An argument from a format that writes values without quotes: only the tool's schema tells text from numbers."""


# A reader takes (text, begin, limit) and reads the payload that begins at text[begin]. The next marker is at
# text[limit], or the text ends there; readers that know where a string ends may look beyond, since a string may hold
# a marker. It never raises: what cannot be read is a `Reading` that is not whole.
Reader = Callable[[str, int, int], Reading]


def _read_arguments(text: str) -> Any:
    """Arguments from JSON text, which is empty where there are none."""
    return json.loads(text or "{}")


def call_from_object(
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
        >>> call_from_object({"name": "add", "arguments": '{"a": 1}'})
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


_OTHER_NAMES = {"args", "kwargs", "params", "input", "inputs", "Arguments", "Parameters"}


def given_call(fields: Any) -> ToolCall | None:
    """The call that a row of data gives as an object, with `arguments` or `parameters`; None for anything else.

    An object that has its arguments under another name is none: a call without arguments would be another call.

    Example:
        >>> given_call({"name": "add", "input": {"a": 1}}) is None
        True
    """
    keys = ("arguments", "parameters")
    if isinstance(fields, Mapping) and not any(key in fields for key in keys) and fields.keys() & _OTHER_NAMES:
        return None
    return call_from_object(fields, argument_keys=keys)


def skip_space(text: str, position: int) -> int:
    """The first position, from the one given on, that is not white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
