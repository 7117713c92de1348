"""Strangers' strings in Markdown and on terminals, and tables."""

import re
from collections.abc import Sequence

_START = re.compile(r"^(\d{0,9})([-+=]|[.)](?=\s|$))")  # of a list or an underlined title
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~$@])")
# A bare address becomes a link, and a sign of its own after "&".
_LINKS = re.compile(r"(?i)(?:(https?|ftp):(?=//)|\b(www)\.)")


def one_line(text: str) -> str:
    """A string as one line without control characters, which a terminal or a bidirectional text would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def escaped(text: str) -> str:
    """A string made harmless in Markdown and HTML: one line, nothing that opens a cell, tag, link or entity.

    Example:
        >>> print(escaped("<b> | snake_case"))
        \\<b\\> \\| snake\\_case
    """
    harmless = _SPECIAL.sub(r"\\\1", one_line(text).strip().replace("&", "&amp;"))
    harmless = _START.sub(r"\1\\\2", harmless)
    return _LINKS.sub(lambda match: match[0][:-1] + "\\" + match[0][-1], harmless)


def code(text: str) -> str:
    """A string as a code span that may stand in a table; one with backticks is escaped instead."""
    line = one_line(text)
    return escaped(line) if "`" in line else f"`{line}`".replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """A Markdown table; the last `numbers` columns are set to the right.

    Example:
        >>> print(table(["", "n"], [["a", "1"]], numbers=1))
        | | n |
        |---|---:|
        | a | 1 |
    """
    texts = len(head) - numbers
    lines = [_row(head), "|---" * texts + "|---:" * numbers + "|", *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
