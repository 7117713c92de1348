"""`ToolCallFormat`: how a family of models writes tool calls, and the blocks of an answer that are such calls."""

import functools
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from asa_adapter.notations.tool_call import Reader, Reading, ToolCall, skip_space
from asa_adapter.notations.unmarked_json import read_unmarked_json
from asa_adapter.tool_calls.reasoning_and_code import (
    COMMENT,
    FENCE,
    JSON,
    QUOTED,
    THOUGHT,
    after_code,
    after_thought,
    first_word,
    in_words,
)

_NEVER = r"(?!)"
_JSON = re.compile(JSON)
# What may follow a call that was read: the tokens that end a turn, padding, white space.
_NOTHING_MORE = re.compile(r"(?:\s|<[^<>\s]{1,40}>)*")
# The same without tags that end, which would be of another format's call.
_TURN_ENDS = re.compile(r"(?:\s|<(?!/(?!s>))[^<>\s]{1,40}>)*")
# So many stretches that look like a payload and are none are read in one answer, which bounds the time.
_MOST_FAILURES = 32


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
        start: the marker that opens a block; "" where there is none.
        end: the marker that closes it; None where the end of the turn does.
        read: reads the payload of a block.
        write: writes the payload of a block.
        several: whether one block holds all calls of a turn, or each call has its own.
        opens: pattern that a payload directly follows; the start marker if empty.
        loose: pattern that a payload without the start marker directly follows, anywhere; never matches if empty.
        unopened: how a payload looks where its start marker is missing behind words; never matches if empty.
        bare: pattern of an answer that is a call from its first character, without a marker; never matches if empty.
        json: where a call that is only JSON counts: "anywhere", at the answer's "start", or nowhere ("").
        skipped: whether decoders skip the markers as special tokens; an answer that is only the payload is then a call
            if each tool that it names is offered.
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
    loose: str = ""
    unopened: str = ""
    bare: str = ""
    json: str = ""
    skipped: bool = False
    around: tuple[str, str, str] | None = None
    opening: str = ""
    signs: tuple[tuple[str, ...], ...] = ()

    @property
    def beginnings(self) -> tuple[str, ...]:
        """Texts with which an answer that is a call begins, where the start marker is not the only one."""
        if self.json == "anywhere":
            return ('{"', "{\n", '[{"', "```json\n", "```\n", *([self.opening] if self.opening else []))
        return (self.opening,) if self.opening else ()

    def blocks(self, text: str, offered: Container[str] = ()) -> list[Block]:
        """The block at each position where a call begins; malformed text is a block that is not whole.

        Args:
            text: an answer.
            offered: names of the offered tools; they tell some calls without markers from data.
        """
        found, at = self._first(text, first_word(text), offered)
        fenced, failures, comments_end = False, 0, text.rfind("-->")
        while begun := self._begins.search(text, at):
            kind, at = begun.lastgroup, begun.end()
            if kind == "thought":
                at = after_thought(text, at)
            elif kind == "comment":
                at = text.find("-->", at) if at <= comments_end else at  # one that never ends is text
            elif kind == "fence":
                begin, at = at, at if fenced else after_code(text, at)
                fenced = not fenced and at == begin
            elif kind == "quoted":
                at = read_unmarked_json(text, at, offered)[1]
            elif kind == "unopened":
                blocks, at = self._unopened(text, begun.start(), offered) if failures < _MOST_FAILURES else ([], at)
                failures += at <= begun.start()
                found += blocks
            else:
                blocks, at = (
                    self._json(text, begun.start(), offered) if kind == "json" else self._payload(text, at, kind)
                )
                found += blocks
            at = max(at, begun.start() + 1)
        return found

    def _first(self, text: str, at: int, offered: Container[str]) -> tuple[list[Block], int]:
        """The block of an answer that begins as a call without its start marker, if it does, and where it ends."""
        begin = skip_space(text, at)
        if any(
            found and found.lastgroup != "unopened" for found in (self._begins.match(text, i) for i in (at, begin))
        ):
            return [], at
        if self._bare.match(text, begin):
            return self._payload(text, begin, "marked")
        if self._lost(text, begin, offered):
            return self._payload(text, begin, "lost")
        if self.json == "start" and text.startswith(("{", "["), begin):
            blocks, end = self._json(text, begin, offered)
            return blocks, end if blocks else at
        return [], at

    def _lost(self, text: str, begin: int, offered: Container[str]) -> bool:
        """Whether an answer begins with a payload whose start marker is missing.

        Behind one that has lost its end marker too, the answer may go on in words: all its tools are offered then.
        """
        limit = self._next_mark(text, begin)
        closed = bool(self.end) and text.startswith(self.end or "", limit)
        if begin == limit or not (closed or self.skipped):
            return False
        calls, whole, end = self._in_a_row(text, begin, limit)
        if not whole or not calls or self._is_data(text, begin, offered):
            return False
        closed = closed and _NOTHING_MORE.fullmatch(text, end, max(limit, end)) is not None
        return (closed or self.skipped) and all(
            call.name in offered or (closed and call.arguments and " " not in call.name) for call in calls
        )

    def _unopened(self, text: str, begin: int, offered: Container[str]) -> tuple[list[Block], int]:
        """The block of a payload behind words whose start marker is missing, and where the text goes on.

        Its end marker tells it from data. Where that is missing too, it begins behind a sentence, names offered tools
        alone and is the last of the answer: an example in the midst of an explanation is none.
        """
        limit = self._next_mark(text, begin)
        calls, whole, end = self._in_a_row(text, begin, limit)
        if not whole or not calls:
            return [], begin
        if self._is_data(text, begin, offered):
            return [], end
        after = skip_space(text, end)
        closed = bool(self.end) and text.startswith(self.end or "", after)
        last = (self.skipped or bool(self.bare)) and _TURN_ENDS.fullmatch(text, end) is not None
        known = all(call.name in offered for call in calls)
        marked = known and self._opens.match(text, after) is not None  # the next call has its marker
        if (
            marked
            or (closed and all(call.name in offered or call.arguments for call in calls))
            or (last and known and not in_words(text, begin))
        ):
            return [Block(calls, True, text[begin:end].strip())], end
        return [], end

    def _payload(self, text: str, begin: int, kind: str | None) -> tuple[list[Block], int]:
        """The block whose payload begins at a position, and where the text goes on behind it."""
        limit = self._next_mark(text, begin)
        calls, whole, end = self._in_a_row(text, begin, limit)
        if whole and kind == "marked" and self.end is not None:
            nothing_more = _NOTHING_MORE.fullmatch(text, end, self._next_mark(text, end))
            whole = bool(nothing_more or self._loose.match(text, skip_space(text, end)))
        return [Block(calls, whole and bool(calls), text[begin : max(limit, end)].strip())], end if whole else limit

    @staticmethod
    def _is_data(text: str, begin: int, offered: Container[str]) -> bool:
        """Whether JSON without a marker is no call, such as a tool's definition."""
        return _JSON.match(text, begin) is not None and read_unmarked_json(text, begin, offered)[0] is None

    def _in_a_row(self, text: str, begin: int, limit: int) -> Reading:
        """Reads a payload, and those directly behind it whose start markers are missing."""
        calls, whole, end = self.read(text, begin, limit)
        while whole and self._looks_unopened.match(text, at := skip_space(text, end)):
            more, good, stop = self.read(text, at, self._next_mark(text, at))
            if not good or not more:
                break
            calls, end = [*calls, *more], stop
        return Reading(calls, whole, end)

    @staticmethod
    def _json(text: str, begin: int, offered: Container[str]) -> tuple[list[Block], int]:
        """The block of a JSON value, none if that is no call; and where the text goes on behind it."""
        reading, end = read_unmarked_json(text, begin, offered)
        return [Block(reading.calls, reading.whole, text[begin:end].strip())] if reading else [], end

    def written(self, calls: Sequence[ToolCall]) -> str:
        """The calls as a model of this family writes them, markers included."""
        before, after, between = self.around or (self.start, self.end or "", "\n")
        groups = [list(calls)] if self.several else [[call] for call in calls]
        return between.join(f"{before}{self.write(group)}{after}" for group in groups)

    @functools.cached_property
    def _opens(self) -> re.Pattern[str]:
        return re.compile(self.opens or re.escape(self.start) or _NEVER)

    @functools.cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile("|".join([self._opens.pattern, *([re.escape(self.end)] if self.end else [])]))

    @functools.cached_property
    def _loose(self) -> re.Pattern[str]:
        return re.compile(self.loose or _NEVER)

    @functools.cached_property
    def _looks_unopened(self) -> re.Pattern[str]:
        return re.compile(self.unopened or _NEVER)

    @functools.cached_property
    def _bare(self) -> re.Pattern[str]:
        return re.compile(self.bare or _NEVER)

    @functools.cached_property
    def _begins(self) -> re.Pattern[str]:
        """What is looked for in an answer: the beginnings of calls, and what calls are not looked for in."""
        kinds = {"thought": THOUGHT, "comment": COMMENT, "marked": self._opens.pattern, "loose": self.loose}
        if self.json == "anywhere":
            kinds |= {"fence": FENCE, "quoted": QUOTED, "json": JSON}
        kinds["unopened"] = self.unopened
        return re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items() if pattern))

    def _next_mark(self, text: str, position: int) -> int:
        """Where the next marker from a position on begins, or the text ends."""
        found = self._marks.search(text, position)
        return found.start() if found else len(text)
