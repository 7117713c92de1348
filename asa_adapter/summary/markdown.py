"""Strangers' strings in Markdown and on terminals, and tables."""

import re
from collections.abc import Mapping, Sequence

from asa_adapter.report import Metrics
from asa_adapter.report_schema import RATIOS, VALIDITY, VARIATIONS

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
    """A Markdown table; the last `numbers` columns are aligned right.

    Example:
        >>> print(table(["", "n"], [["a", "1"]], numbers=1))
        | | n |
        |---|---:|
        | a | 1 |
    """
    texts = len(head) - numbers
    lines = [_table_row(head), "|---" * texts + "|---:" * numbers + "|", *map(_table_row, rows)]
    return "\n".join(lines)


def _table_row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def metrics_table(results: Mapping[str, Metrics], first: str = "", names: Sequence[str] = RATIOS) -> str:
    """Trigger metrics by name, such as {"base": metrics, "asa": metrics}, as a Markdown table, one row each.

    Args:
        results: metrics by name.
        first: head of the column of names.
        names: heads of the other columns.

    Example:
        >>> print(metrics_table({"base": dict(precision=1, recall=0.5, f1=2 / 3, accuracy=0.75, fpr=0)}))
        | | precision | recall | f1 | accuracy | fpr |
        |---|---:|---:|---:|---:|---:|
        | base | 1.000 | 0.500 | 0.667 | 0.750 | 0.000 |
    """
    rows = [[escaped(name), *(f"{metrics[ratio]:.3f}" for ratio in RATIOS)] for name, metrics in results.items()]
    return table([first, *names], rows, numbers=len(RATIOS))


def calls_table(
    results: Mapping[str, Metrics], first: str = "calls", names: Sequence[str] = (*VALIDITY, "gold", "cut")
) -> str:
    """How good the calls were, as a Markdown table: of the answers that call, how many parse, name an offered tool,
    and fit its schema; precision and recall of calls that do all three; gold calls met, where all rows have some; and
    the share of all answers that `max_new_tokens` cut, where that is known.

    Args:
        results: trigger metrics with `validity`, by name, such as {"base": ..., "asa": ...}.
        first: head of the column of names.
        names: heads of the other columns.
    """
    *heads, gold, cut = names
    columns = {
        head: [metrics["validity"][key] for metrics in results.values()]
        for head, key in zip(heads, VALIDITY, strict=True)
    }
    if all(metrics.get("gold") for metrics in results.values()):
        columns[gold] = [metrics["gold"]["match"] for metrics in results.values()]
    if results and all("cut_share" in metrics for metrics in results.values()):
        columns[cut] = [metrics["cut_share"] for metrics in results.values()]
    cells = [[f"{value:.3f}" for value in row] for row in zip(*columns.values(), strict=True)]
    rows = [[name, *row] for name, row in zip(results, cells, strict=True)]
    return table([first, *columns], rows, numbers=len(columns))


_OF_CALLS = """Shares of the calls: format, can be read; tool_name, of an offered tool too; arguments, within
its schema too (the right tool is told by gold calls alone). success_*: such calls, where one is
needed. cut: of all answers, those that ran out of tokens before a call was complete."""


def explained_calls_table(results: Mapping[str, Metrics]) -> str:
    """`calls_table` with what its columns are, for a terminal."""
    return f"{calls_table(results)}\n{_OF_CALLS}"


# How the variations of a list of tools are called, in the order of `VARIATIONS`.
VARIED = ("in another order", "the needed one and one other", "wrapped otherwise", "without the needed one")


def variations_markdown(found: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table of how a gate bears other lists of tools, one row for each variation."""
    shares = ("right", "given_right", "called", "given_called")
    rows = [
        [text, str(found[name]["rows"]), *(f"{found[name][share]:.3f}" for share in shares)]
        for name, text in zip(VARIATIONS, VARIED, strict=True)
        if name in found
    ]
    return table(["tools", "prompts", "gate right", "as given", "gate +1", "as given"], rows, numbers=5)
