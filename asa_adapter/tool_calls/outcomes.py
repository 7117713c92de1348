"""What came of answers: their texts, whether they were cut, and what their calls are worth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# From this share of answers on that were cut, the other numbers tell too little.
MANY_CUT = 0.05
WHAT_CUT_COUNTS_AS = (
    "Those in words count as no call, which is wrong only where one would still have come; a call that had begun "
    "counts as one without success."
)


class Answer(str):
    """The text of an answer.

    Attributes:
        cut: whether it ended only because `max_new_tokens` ran out.
    """

    cut: bool

    def __new__(cls, text: str, cut: bool = False) -> "Answer":
        """A text, and whether it was cut."""
        answer = super().__new__(cls, text)
        answer.cut = cut
        return answer


class Outcome(NamedTuple):
    """What came of N answers.

    Attributes:
        triggered: (N,) bool, whether a call began.
        fits: (N,) bool, whether there are calls, all of them readable, of offered tools and within their schemas.
        cut: (N,) bool, whether `max_new_tokens` ran out before a call was complete.
    """

    triggered: NDArray[np.bool_]
    fits: NDArray[np.bool_]
    cut: NDArray[np.bool_]

    @classmethod
    def of(cls, answers: Sequence[str], checks: Sequence[Mapping[str, Any]]) -> "Outcome":
        """The outcome of answers and their results of `ToolCallParser.check`; a plain str counts as not cut."""
        triggered, whole, fits = (
            np.array([bool(check[key]) for check in checks], dtype=bool)
            for key in ("triggered", "format", "arguments")
        )
        ran_out = np.array([getattr(answer, "cut", False) for answer in answers], dtype=bool)
        return cls(triggered, fits, ran_out & ~whole)


def cut_note(shares: Mapping[str, float], max_new_tokens: int) -> str:
    """What to say where too many answers were cut; "" where few were.

    Args:
        shares: share of the answers that were cut, by whose they are.
        max_new_tokens: the greatest length of an answer.
    """
    name = max(shares, key=lambda one: shares[one])
    if shares[name] <= MANY_CUT:
        return ""
    return (
        f"{100 * shares[name]:.0f} % of the answers of {name} ended because max_new_tokens ({max_new_tokens}) ran "
        f"out before a call was complete. {WHAT_CUT_COUNTS_AS} To be sure, give a greater one, such as "
        f"{2 * max_new_tokens} (--max-new-tokens {2 * max_new_tokens})"
    )


def answer_verdict(answer: Mapping[str, Any]) -> str:
    """What an answer that `ToolCallParser.check` looked at is worth, in words."""
    if not answer["triggered"]:
        return "no call"
    if answer["arguments"]:
        return "a call that fits its tool's schema"
    faults = [name for name in ("format", "tool_name", "arguments") if not answer[name]]
    return f"a call with a fault ({faults[0].replace('_', ' ')})"
