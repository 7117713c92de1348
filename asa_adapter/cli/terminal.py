"""Text for terminals: colours where the terminal has them, and two texts side by side where they fit."""

import codecs
import contextlib
import logging
import os
import re
import secrets
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, TextIO

from asa_adapter.errors import AnswerWrapper, json_escape, visible

COLOURS = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}
_OWN = secrets.token_hex(8)  # in colours of ours until they are printed: no stranger's text can hold it
_OWN_COLOUR = re.compile(rf"\\u001b\[{_OWN}:([0-9]+)m")
_SIDE_BY_SIDE = 80
_ESCAPED = re.compile(r"\\([^a-zA-Z0-9\s])")
_GAP = " | "


def width(most: int = 120) -> int:
    """Columns of the terminal, or of COLUMNS, at most `most`; 80 where the terminal does not say."""
    return min(most, shutil.get_terminal_size((80, 24)).columns)


def has_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and the user wants them (no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def painted(text: str, colour: str, stream: TextIO) -> str:
    """The text in one of `COLOURS` where the stream has colours, else as it is; only `printable` makes it readable."""
    return f"\x1b[{_OWN}:{COLOURS[colour]}m{text}\x1b[{_OWN}:0m" if has_colours(stream) else text


def printable(text: str, stream: TextIO) -> str:
    """The text as it may be printed, which everything is put through: colours are ours alone.

    What a terminal would obey in strangers' texts, and characters that the stream's encoding lacks, become escapes.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    coloured = _OWN_COLOUR.sub("\x1b[\\1m", visible(text))
    return coloured.encode(encoding, _LACKING).decode(encoding)


def _escaped_for_terminal(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(map(json_escape, error.object[error.start : error.end])), error.end


_LACKING = f"{__name__}.lacking"
codecs.register_error(_LACKING, _escaped_for_terminal)


class _PrintableRecord(logging.LogRecord):
    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info)).rstrip())

    def getMessage(self) -> str:
        return visible(super().getMessage())


@contextlib.contextmanager
def printable_logs() -> Iterator[None]:
    """What libraries log inside has nothing in it that a terminal would obey."""
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_PrintableRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def compared(left: str, right: str, heads: tuple[str, str], columns: int) -> str:
    """Two texts side by side in lines of at most `columns` characters; one above the other on a narrow terminal.

    Example:
        >>> print(compared("Well, no.", "[f()]", ("base", "steered"), 40))
        base
          Well, no.
        steered
          [f()]
    """
    if columns < _SIDE_BY_SIDE:
        parts = zip(heads, (left, right), strict=True)
        return "\n".join(f"{head}\n{textwrap.indent(_wrapped(text, columns - 2), '  ')}" for head, text in parts)
    room = (columns - len(_GAP)) // 2
    sides = (_wrapped(text, room).splitlines() for text in (left, right))
    rows = [heads, ("-" * room, "-" * room), *zip_longest(*sides, fillvalue="")]
    return "\n".join(f"{a:<{room}}{_GAP}{b}".rstrip() for a, b in rows)


def folded(text: str, begin: str = "") -> str:
    """A sentence in lines as wide as the terminal, those behind the first indented like its text."""
    return textwrap.fill(text, width(), initial_indent=begin, subsequent_indent=" " * len(begin))


def markdown_for_terminal(markdown: str) -> str:
    r"""A sentence of a model card without the signs that escape strangers' texts in Markdown.

    Example:
        >>> markdown_for_terminal(r"Few prompts in smart\_home, see `cut`.")
        'Few prompts in smart_home, see `cut`.'
    """
    return _ESCAPED.sub(r"\1", markdown).replace("&amp;", "&")


def _wrapped(text: str, columns: int) -> str:
    """The text's own lines, each folded; control characters other than line ends become spaces."""
    lines = ["".join(c if c.isprintable() else " " for c in line) for line in text.splitlines()]
    return "\n".join(part for line in lines for part in AnswerWrapper(columns).wrap(line) or [""]) or "(nothing)"


def say(text: str) -> None:
    """A line on stderr of what is being done."""
    sys.stderr.write(printable(f"asa-adapter: {text}\n", sys.stderr))
    sys.stderr.flush()
