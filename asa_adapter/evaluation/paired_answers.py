"""What a push does beside the decision: two models' answers to the same rows, compared."""

from collections.abc import Iterator, Sequence

from asa_adapter.data.rows import Row, row_tools
from asa_adapter.evaluation.metrics import ratio
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.summary.changed_answers import most_equal
from asa_adapter.tool_calls.parser import ToolCallParser


def paired_validity(
    rows: Sequence[Row], base: Sequence[str], asa: Sequence[str], parser: ToolCallParser, tools: Tools | None
) -> dict[str, float]:
    """Shares that only pairs of answers tell.

    Args:
        rows: N rows.
        base: the bare model's answers to them.
        asa: the steered model's.
        parser: reads the calls of both.
        tools: those of rows that have none of their own.

    Returns:
        "same_tool": of the rows to which both answer with a call, the share whose calls name the same tools.
        "one_answer": of those whose call is gone, the share that get the answer which most of them get, such as a
        refusal; 0 where fewer than three are equal. Each is left out where there are no such rows.
    """
    pairs = list(_pairs(rows, base, asa, parser, tools))
    both = [bare == steered for bare, steered, _ in pairs if bare and steered]
    gone = [words for bare, _, words in pairs if bare and words is not None]
    found = {"same_tool": ratio(sum(both), len(both))} if both else {}
    return found | ({"one_answer": ratio(most_equal(gone), len(gone))} if gone else {})


def _pairs(
    rows: Sequence[Row], base: Sequence[str], asa: Sequence[str], parser: ToolCallParser, tools: Tools | None
) -> Iterator[tuple[set[str], set[str], str | None]]:
    """For each row the tools that both answers call, and the steered one; None where that calls."""
    for row, bare, steered in zip(rows, base, asa, strict=True):
        offered = row_tools(row, tools)
        named, after = ({call.name for call in parser.parse(text, offered)} for text in (bare, steered))
        yield named, after, None if parser.triggered(steered, offered) else steered
