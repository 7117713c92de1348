"""In which formats a model's calls come, by its own answers: a chat template only says in which they should."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from asa_adapter.errors import visible
from asa_adapter.notations.tool_schemas import Tools, tool_names, tool_schemas
from asa_adapter.tool_calls.known_formats import FORMATS

# A format in which fewer of the calls come is an accident.
_LEAST_SHARE = 0.1
_BEGINS_A_CALL = ("{", "[", "<", "`")
# A word in angle or square brackets with which a text begins, and behind which it goes on.
_MARKER = re.compile(r"\s*(<[^<>\s][^<>]{0,30}>|\[[^\W\d][^\[\]]{0,30}\])(?=\s*\S)")


@dataclass(frozen=True)
class Habit:
    """What a model wrote when it called.

    Attributes:
        answers: how many answers were read.
        calls: how many of them call a tool.
        forms: by format, how many of these calls came in it, the most frequent first.
        expected: the format that template or vocabulary show; None where they show none.
        calling: the answers that begin with their call.
        markers: by a word in brackets, how many answers that call nothing begin with it, the most frequent first.
    """

    answers: int
    calls: int
    forms: dict[str, int]
    expected: str | None = None
    calling: list[str] = field(default_factory=list)
    markers: dict[str, int] = field(default_factory=dict)

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to read: those in which calls come, then the expected one; () where nothing is known."""
        common = [name for name, count in self.forms.items() if count >= _LEAST_SHARE * self.calls]
        return tuple(dict.fromkeys([*common, *([self.expected] if self.expected else [])]))

    @property
    def differs(self) -> bool:
        """Whether calls come, and hardly any in the expected format."""
        return bool(self.calls) and self.forms.get(self.expected or "", 0) < _LEAST_SHARE * self.calls

    def shares(self) -> dict[str, float]:
        """The share of the calls that came in each format."""
        return {name: count / self.calls for name, count in self.forms.items()}

    def unknown_format(self) -> str:
        """A sentence about calls that may come in a format which is not known; "" where nothing looks like it."""
        marker, count = next(iter(self.markers.items()), ("", 0))
        if self.calls or count < 2:
            return ""
        return (
            f"{count} of {self.answers} answers begin with {visible(marker)}, which no known format does: if that is "
            f"how the model calls, say so by tool_call_format='json', tool_call_start={visible(marker)!r} and "
            "tool_call_end, or --tool-call-start and --tool-call-end"
        )

    def __str__(self) -> str:
        """Such as "json 93 %, hermes 7 % of 15 calls"."""
        shares = ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in self.shares().items())
        return f"{shares} of {self.calls} calls" if self.calls else f"no call in {self.answers} answers"


def habit_of_answers(answers: Sequence[str], tools: Sequence[Tools | None], expected: str | None = None) -> Habit:
    """Reads answers with every format.

    An answer counts for the expected format if that reads it, else for one whose marker it shows, else for `json`,
    else for any other. A format that reads all of a call goes before one that only sees a call begin.

    Args:
        answers: N answers of a model, decoded with their special tokens.
        tools: the N lists of tools that their prompts offered.
        expected: the format that template or vocabulary show, if they show any.
    """
    found = [
        _format_of_calls(answer, tool_names(tool_schemas(offered)), expected)
        for answer, offered in zip(answers, tools, strict=True)
    ]
    forms = dict(Counter(name for name in found if name).most_common())
    calling = [
        answer
        for answer, name in zip(answers, found, strict=True)
        if name and answer.lstrip().startswith((*_BEGINS_A_CALL, FORMATS[name].start or "{"))
    ]
    begun = [_MARKER.match(answer) for answer, name in zip(answers, found, strict=True) if not name]
    markers = dict(Counter(match[1] for match in begun if match).most_common())
    return Habit(len(answers), sum(forms.values()), forms, expected, calling, markers)


def few_of_each_label(rows: Sequence[Mapping[str, Any]], of_each: int = 4) -> list[Mapping[str, Any]]:
    """The first rows of each label, with which a model's habit is asked."""
    labels = [row.get("label") for row in rows]
    return [row for i, row in enumerate(rows) if labels[:i].count(labels[i]) < of_each]


def _format_of_calls(answer: str, offered: Sequence[str], expected: str | None) -> str | None:
    """The format of an answer's calls; None where it calls nothing."""

    def rank(name: str) -> int:
        if name == expected:
            return 0
        return 1 if FORMATS[name].start and FORMATS[name].start in answer else 2 if name == "json" else 3

    begun = None
    for name in sorted(FORMATS, key=rank):
        blocks = FORMATS[name].blocks(answer, offered)
        if blocks and all(block.whole for block in blocks):
            return name
        begun = begun or (name if blocks else None)
    return begun
