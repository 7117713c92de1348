"""What ways through conversations are worth, with intervals in which whole conversations are drawn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.intervals import LEVEL, resamples
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.report_schema import OF_CONVERSATIONS
from asa_adapter.trajectories.course import Course, courses_of
from asa_adapter.trajectories.user_turns import user_turns


def of_conversations(
    evaluation: Evaluation,
    conversations: Iterable[Mapping[str, Any]],
    variants: Mapping[str, ASAAdapter | None],
    *,
    draws: int = 2000,
    seed: int = 42,
) -> dict[str, Any]:
    """Runs gold conversations again with each variant, from each of the user's turns, and scores them.

    What was said before a user's turn is the gold conversation's. From there on the model's own calls are in the chat,
    with the results that the gold conversation has for them; other calls are answered with an error.

    Args:
        evaluation: answers, greedily.
        conversations: as `user_turns` takes them.
        variants: adapters by name, None for the bare model; "base" and "asa" are compared.
        draws: bootstrap resamples.
        seed: seed of the draws.

    Returns:
        `conversations`, `turns` and `needed` (numbers of conversations, user's turns and needed calls), for each
        variant its shares (see `shares`), and `intervals`: 95 % ones by variant and for "gain", "asa" minus "base".
        Where more than 5 % of a variant's answers were cut by `max_new_tokens`, a warning says so.

    Raises:
        ValueError: a conversation of another shape, or one that cannot be rendered.
    """
    turns = user_turns(conversations)
    courses = {name: courses_of(evaluation, turns, adapter, name) for name, adapter in variants.items()}
    cut = {name: sum(one.cut for one in some) / sum(one.asked for one in some) for name, some in courses.items()}
    evaluation.warn_of_cut({name: {"cut_share": share} for name, share in cut.items()}, "these conversations")
    counts = {name: _counts_of_courses(some) for name, some in courses.items()}
    weights = resamples(len(next(iter(counts.values()))), draws, seed)
    drawn = {name: _scores_of_counts(some, weights) for name, some in counts.items()}
    if {"base", "asa"} <= drawn.keys():
        drawn["gain"] = drawn["asa"] - drawn["base"]
    tail = 100 * (1 - LEVEL) / 2
    limits = {name: np.percentile(some, [tail, 100 - tail], axis=0).T.tolist() for name, some in drawn.items()}
    return {
        "conversations": len(weights[0]),
        "turns": len(turns),
        "needed": sum(len(turn.needed) for turn in turns),
        **{name: shares(some) for name, some in courses.items()},
        "intervals": {name: dict(zip(OF_CONVERSATIONS, some, strict=True)) for name, some in limits.items()},
    }


def shares(courses: Sequence[Course]) -> dict[str, float]:
    """What the courses are worth, each a share; 0 where there is nothing to count.

    `first_call`: of the turns that need a call, those whose first call is a needed first one. `sequence`: of the
    conversations, those in which every turn makes all needed calls in order, no others, and is then answered.
    `missing`: of the needed calls, those not made. `needless`, `repeated`: of the turns, those with a call that is not
    needed (or has other arguments), and with one that was made before. `finished`: turns that an answer without a call
    ends.
    """
    return dict(zip(OF_CONVERSATIONS, _scores_of_counts(_counts_of_courses(courses), None).tolist(), strict=True))


def _counts_of_courses(courses: Sequence[Course]) -> NDArray[np.float64]:
    """(C, M, 2) for each conversation and measure what counts, and among how many."""
    of: dict[int, list[Course]] = {}
    for course in courses:
        of.setdefault(course.turn.conversation, []).append(course)
    return np.array([_counts_of_conversation(some) for some in of.values()], dtype=np.float64)


def _counts_of_conversation(courses: Sequence[Course]) -> list[tuple[int, int]]:
    """What counts in one conversation, in the order of `OF_CONVERSATIONS`."""
    n = len(courses)
    return [
        (sum(course.first for course in courses), sum(bool(course.turn.needed) for course in courses)),
        (int(all(course.right for course in courses)), 1),
        (sum(course.missing for course in courses), sum(len(course.turn.needed) for course in courses)),
        (sum(course.needless > 0 for course in courses), n),
        (sum(course.repeated > 0 for course in courses), n),
        (sum(course.finished for course in courses), n),
    ]


def _scores_of_counts(counts: NDArray[np.float64], weights: NDArray[np.int64] | None) -> NDArray[np.float64]:
    """(M,) ratios of (C, M, 2) counts, or (B, M) with (B, C) weights; 0 without anything to count."""
    summed = counts.sum(axis=0) if weights is None else np.tensordot(weights, counts, axes=(1, 0))
    among = summed[..., 1]
    return np.divide(summed[..., 0], among, out=np.zeros_like(among), where=among > 0)
