"""`ToolCall`: one call, and what reading one stretch of an answer gave."""

from collections.abc import Callable
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


def skip_space(text: str, position: int) -> int:
    """The first place from a position on that holds no white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    return position
