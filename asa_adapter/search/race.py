"""A race among pushes: all are measured on a few rows, the better half on twice as many, and so on to the last row.

What is hopeless shows on a few rows, and costs no more. What is left has been measured on all rows, as if there had
been no race (successive halving: Jamieson and Talwalkar, arXiv 1502.07943).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.evaluation.first_tokens import Screened

# Rows of the first round; of the pushes, this share goes on to the next one, but never fewer than so many.
_FIRST_ROWS = 32
_KEPT = 0.5
_FEWEST = 4


class Runner(NamedTuple):
    """A direction at one layer with a length of its step, taken up and down."""

    layer: int
    beta: float
    alpha: float


@dataclass
class Lap:
    """What was measured so far, on the first `rows` of the rows in order.

    Attributes:
        rows: (n,) indices of the rows.
        base: (n,) bool, whether the bare model's first token opens a call.
        triggered: by runner (2, n) bool, the same with a step up and with a step down.
        probability: by runner (3, n) float32 probability of an opening: bare, up, down.
    """

    rows: NDArray[np.int64]
    base: NDArray[np.bool_]
    triggered: dict[Runner, NDArray[np.bool_]] = field(default_factory=dict)
    probability: dict[Runner, NDArray[np.float32]] = field(default_factory=dict)


class Round(NamedTuple):
    """One round of a race, for the report: how many rows and runners it had."""

    rows: int
    pushes: int


Measure = Callable[[Sequence[Runner], NDArray[np.int64]], Screened]
Score = Callable[[Lap], Mapping[Runner, float]]


def race(
    runners: Sequence[Runner], order: NDArray[np.int64], measure: Measure, score: Score, *, exhaustive: bool = False
) -> tuple[Lap, Lap, list[Round]]:
    """Measures runners on more and more rows, and the worse half on no more.

    The best runner of each of the best layers goes on in any case, so that the end has several layers to choose from.

    Args:
        runners: all that start.
        order: (N,) indices of the rows, in an order in which each beginning is a fair sample.
        measure: the first tokens of some rows, bare, and for each runner with a step up and then down.
        score: of each runner on the rows so far; higher is better.
        exhaustive: measure all of them on all rows.

    Returns:
        The first round's lap with all runners, the last one's with those that were measured on all N rows, and the
        rounds.
    """
    end = len(order) if exhaustive else min(_FIRST_ROWS, len(order))
    first = lap = _measured(None, runners, order[:end], measure)
    rounds = [Round(end, len(runners))]
    while end < len(order):
        scores = score(lap)
        runners = _survivors(scores, max(_FEWEST, int(len(runners) * _KEPT)))
        begin, end = end, min(2 * end, len(order))
        lap = _measured(lap, runners, order[begin:end], measure)
        rounds.append(Round(end, len(runners)))
    return first, lap, rounds


def _measured(before: Lap | None, runners: Sequence[Runner], rows: NDArray[np.int64], measure: Measure) -> Lap:
    """A lap with some more rows, for the runners that are still there."""
    found = measure(runners, rows)
    lap = Lap(rows, found.triggered[0])
    for i, runner in enumerate(runners):
        up_and_down = slice(1 + 2 * i, 3 + 2 * i)
        lap.triggered[runner] = found.triggered[up_and_down]
        lap.probability[runner] = np.concatenate([found.probability[:1], found.probability[up_and_down]])
    if before is None:
        return lap
    return Lap(
        np.concatenate([before.rows, lap.rows]),
        np.concatenate([before.base, lap.base]),
        {runner: np.concatenate([before.triggered[runner], found], axis=1) for runner, found in lap.triggered.items()},
        {r: np.concatenate([before.probability[r], found], axis=1) for r, found in lap.probability.items()},
    )


def _survivors(scores: Mapping[Runner, float], count: int) -> list[Runner]:
    """The best `count` runners: first the best of each of the best layers, then the others; smaller steps first."""
    ranked = sorted(scores, key=lambda runner: (-round(scores[runner], 9), runner.alpha))
    leaders: dict[int, Runner] = {}
    for runner in ranked:
        leaders.setdefault(runner.layer, runner)
    return list(dict.fromkeys([*list(leaders.values())[:_FEWEST], *ranked]))[:count]


def fair_order(kinds: Sequence[object], seed: int) -> NDArray[np.int64]:
    """An order of N rows in which every beginning has nearly equally many rows of each kind.

    Args:
        kinds: the kind of each row, such as its label and domain.
        seed: seed of the order within each kind.
    """
    by_kind: dict[object, list[int]] = {}
    for i in np.random.default_rng(seed).permutation(len(kinds)).tolist():
        by_kind.setdefault(kinds[i], []).append(i)
    turns = [(turn, str(kind), row) for kind, rows in by_kind.items() for turn, row in enumerate(rows)]
    return np.array([row for _, _, row in sorted(turns)], dtype=np.int64)
