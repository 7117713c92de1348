"""A race among pushes: who is measured on how many rows, and that the end is as without a race."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from asa_adapter.evaluation.first_tokens import Screened
from asa_adapter.search.race import Lap, Round, Runner, fair_order, race

ROWS = 100
RUNNERS = [Runner(layer, beta, 1.0) for layer in range(6) for beta in (0.0, 0.5, 1.0)]


def quality(runner: Runner) -> float:
    """Share of the rows that a step up makes call: higher layers are better, and within them higher betas."""
    return (runner.layer * 3 + 2 * runner.beta + 1) / 20


class Model:
    """Steps up that make some rows call, steps down that make none; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: dict[Runner, list[int]] = {}
        self.up = {r: np.random.default_rng(i).random(ROWS) < quality(r) for i, r in enumerate(RUNNERS)}
        self.base = np.random.default_rng(99).random(ROWS) < 0.1

    def measure(self, runners: Sequence[Runner], rows: NDArray[np.int64]) -> Screened:
        for runner in runners:
            self.asked.setdefault(runner, []).extend(rows.tolist())
        up_and_down = [part for r in runners for part in (self.up[r][rows], np.zeros(len(rows), dtype=bool))]
        triggered = np.stack([self.base[rows], *up_and_down])
        return Screened(triggered, triggered.astype(np.float32))


def score(lap: Lap) -> Mapping[Runner, float]:
    return {runner: float(up.mean()) for runner, (up, _) in lap.triggered.items()}


def test_half_of_the_runners_go_on_to_twice_as_many_rows() -> None:
    model = Model()
    _, last, rounds = race(RUNNERS, np.arange(ROWS), model.measure, score)
    assert rounds == [Round(32, 18), Round(64, 9), Round(100, 4)]
    assert sorted(len(rows) for rows in model.asked.values()) == [32] * 9 + [64] * 5 + [100] * 4
    assert all(rows == list(range(len(rows))) for rows in model.asked.values())
    assert len(last.triggered) == 4


def test_the_best_of_four_layers_reach_the_end() -> None:
    _, last, _ = race(RUNNERS, np.arange(ROWS), Model().measure, score)
    assert {runner.layer for runner in last.triggered} == {2, 3, 4, 5}


def test_who_reaches_the_end_is_measured_as_in_an_exhaustive_search() -> None:
    model, order = Model(), np.random.default_rng(1).permutation(ROWS)
    _, raced, _ = race(RUNNERS, order, model.measure, score)
    first, whole, rounds = race(RUNNERS, order, model.measure, score, exhaustive=True)
    assert rounds == [Round(100, 18)]
    assert first is whole
    assert raced.rows.tolist() == whole.rows.tolist() == order.tolist()
    assert np.array_equal(raced.base, whole.base)
    for runner in raced.triggered:
        assert np.array_equal(raced.triggered[runner], whole.triggered[runner])
        assert np.array_equal(raced.probability[runner], whole.probability[runner])


def test_the_first_lap_has_every_runner_and_the_bare_model_beside_it() -> None:
    model = Model()
    first, _, _ = race(RUNNERS, np.arange(ROWS), model.measure, score)
    assert list(first.triggered) == RUNNERS
    assert first.probability[RUNNERS[3]].shape == (3, 32)
    assert np.array_equal(first.probability[RUNNERS[3]][0], model.base[:32])


def test_among_equals_the_smaller_step_goes_on() -> None:
    equals = [Runner(0, 0.0, alpha) for alpha in (4.0, 3.0, 2.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5)]

    def measure(runners: Sequence[Runner], rows: NDArray[np.int64]) -> Screened:
        shape = (1 + 2 * len(runners), len(rows))
        return Screened(np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.float32))

    _, last, _ = race(equals, np.arange(64), measure, score)
    assert [runner.alpha for runner in last.triggered] == [0.5, 0.6, 0.7, 0.8]


def test_fewer_rows_than_the_first_round_has_are_all_measured_at_once() -> None:
    _, last, rounds = race(RUNNERS, np.arange(20), Model().measure, score)
    assert rounds == [Round(20, 18)]
    assert len(last.triggered) == 18


@pytest.mark.parametrize("seed", [0, 1])
def test_every_beginning_of_a_fair_order_has_nearly_as_many_rows_of_each_kind(seed: int) -> None:
    kinds = [(i % 2, "ab"[i % 3 == 0]) for i in range(60)]
    order = fair_order(kinds, seed)
    assert sorted(order.tolist()) == list(range(60))
    fewest = min(kinds.count(kind) for kind in set(kinds))
    for end in range(1, 4 * fewest + 1):
        counts = [[kinds[i] for i in order[:end]].count(kind) for kind in set(kinds)]
        assert max(counts) - min(counts) <= 1
    assert order.tolist() != fair_order(kinds, seed + 1).tolist()
    assert order.tolist() == fair_order(kinds, seed).tolist()
