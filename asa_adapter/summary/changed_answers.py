"""Prompts to which an adapter changes whether a call is made, for the terminal: no report and no card has rows."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from asa_adapter.data.rows import Row, last_request

# By label, and whether the steered answer is the one that calls: from the good to the bad.
_KINDS = {
    (0, False): "needless calls are gone",
    (1, True): "missed calls are made",
    (0, True): "needless calls are new",
    (1, False): "needed calls are lost",
}
_LAST_TOKENS = re.compile(r"(<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>)+$")
_SEVERAL = 3  # equal answers, from which on they are no coincidence
_SHORT = 24  # columns that an answer gets at least


class ChangedAnswer(NamedTuple):
    """A prompt that gets a call from one of two models alone.

    Attributes:
        prompt: the user's last turn.
        label: 1 where a tool is needed, else 0.
        base: the bare model's answer.
        asa: the steered model's answer.
        calls: whether the steered answer is the one with a call.
    """

    prompt: str
    label: int
    base: str
    asa: str
    calls: bool


def changed_answers(
    rows: Sequence[Row], answers: tuple[Sequence[str], Sequence[str]], called: tuple[Iterable[Any], Iterable[Any]]
) -> list[ChangedAnswer]:
    """The rows of which one answer calls a tool and the other does not, in their order.

    Args:
        rows: N labelled rows.
        answers: N of the bare model and N of the steered one.
        called: for each of these answers, whether it calls a tool.
    """
    all_of_them = zip(rows, *answers, *called, strict=True)
    return [
        ChangedAnswer(last_request(row), int(row["label"]), base, asa, bool(after))
        for row, base, asa, before, after in all_of_them
        if bool(before) != bool(after)
    ]


def most_equal(answers: Sequence[str]) -> int:
    """How many answers are the one that most are, but for spaces; 0 where fewer than three are equal.

    Example:
        >>> most_equal(["I cannot help.", "I cannot  help.", "Yes.", "I cannot help."])
        3
    """
    most = max(Counter(" ".join(answer.split()) for answer in answers).values(), default=0)
    return most if most >= _SEVERAL else 0


def changes_in_words(changes: Sequence[ChangedAnswer], split: str, columns: int) -> str:
    """How many prompts of a split each change is about, and the first of them with both answers.

    Example:
        >>> lost = ChangedAnswer("thanks a lot", 0, "[time()]", "You are welcome!", False)
        >>> print(changes_in_words([lost], "test", 60))
        WHAT CHANGES ON TEST, with the first prompt of each kind
        1 x needless calls are gone
            asked  thanks a lot
            alone  [time()]
            asa    You are welcome!
    """
    if not changes:
        return f"WHAT CHANGES ON {split.upper()}: no prompt gets a call from one model alone"
    lines = [f"WHAT CHANGES ON {split.upper()}, with the first prompt of each kind"]
    for (label, calls), name in _KINDS.items():
        some = [one for one in changes if (one.label, one.calls) == (label, calls)]
        if some:
            told = {"asked": some[0].prompt, "alone": some[0].base, "asa": some[0].asa}
            equal = "" if calls else _equal_in_words([one.asa for one in some])
            lines += [f"{len(some)} x {name}{equal}", *(_line(head, text, columns) for head, text in told.items())]
    return "\n".join(lines)


def _equal_in_words(answers: Sequence[str]) -> str:
    """That answers without a call are the same, such as refusals."""
    return f"; {equal} of them get one and the same answer" if (equal := most_equal(answers)) else ""


def _line(head: str, text: str, columns: int) -> str:
    """One text in one line, cut where the line ends."""
    begin = f"    {head:<6} "
    shown, room = " ".join(_LAST_TOKENS.sub("", text.strip()).split()), max(_SHORT, columns - len(begin))
    return begin + (shown if len(shown) <= room else f"{shown[: room - 4].rstrip()} ...")
