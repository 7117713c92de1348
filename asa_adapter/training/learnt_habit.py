"""What a training makes of the formats in which the bare model's calls came: a parser, config fields, report facts."""

import warnings
from typing import Any

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.tool_calls.call_habits import Habit
from asa_adapter.tool_calls.parser import ToolCallParser


def habitual_parser(tokenizer: Any, shown: ToolCallParser, found: Habit, args: ASATrainingArguments) -> ToolCallParser:
    """A parser of the formats in which a model's calls came, with a warning where its template shows another one.

    Args:
        tokenizer: the model's tokenizer.
        shown: the parser by template and vocabulary.
        found: what the model's own answers showed.
        args: of these, the markers that were named by hand are used.
    """
    named = found.formats[0] == shown.format
    markers = {"start": args.tool_call_start, "end": args.tool_call_end} if named else {}
    parser = ToolCallParser.from_habit(tokenizer, found, **markers)
    if found.differs:
        warnings.warn(
            f"the chat template shows the format {found.expected!r}, but the model's calls come as {found}; the "
            f"adapter reads {' and '.join(parser.forms)}. What serves it must read these calls too",
            stacklevel=5,
        )
    return parser


def warn_of_unknown_format(found: Habit, args: ASATrainingArguments) -> None:
    """Warns where no call was read and answers begin with a marker that no format knows, unless one was named."""
    if args.tool_call_start is None and (told := found.unknown_format()):
        warnings.warn(told, stacklevel=5)


def habit_fields(parser: ToolCallParser, tokenizer: Any) -> dict[str, Any]:
    """The ASAConfig fields of a parser that was made by a model's own answers."""
    return {
        "tool_call_format": parser.format,
        "tool_call_start": parser.start or None,
        "tool_call_end": parser.end,
        "forms": parser.forms if len(parser.forms) > 1 else (),
        "openings": parser.openings,
        "opening_ids": parser.opening_ids(tokenizer),
    }


def habit_facts(habit: Habit) -> dict[str, Any]:
    """What the report says of the formats in which the bare model's calls came."""
    return {
        "answers": habit.answers,
        "calls": habit.calls,
        "shares": habit.shares(),
        "shown": habit.expected,
        "differs": habit.differs,
    }
