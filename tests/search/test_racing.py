from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Reader, Scored, Setting
from asa_adapter.evaluation.first_tokens import Push, Screened
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.search.racing import PushKey, Race, spread_for_rounds, surviving_pushes

ROWS = 200
LABELS = np.arange(ROWS) % 2
ROWS_APART = np.arange(ROWS)
DOMAINS = ["a" if i % 4 < 2 else "b" for i in range(ROWS)]
LAYERS = range(1, 9)


def prediction(seed: int) -> LayerPrediction:
    generator = np.random.default_rng(seed)
    p = [np.clip(0.6 * LABELS + 0.2 + generator.normal(0, 0.2, ROWS), 0, 1).astype(np.float32) for _ in range(2)]
    odds = [np.log(q.clip(1e-6, 1 - 1e-6) / (1 - q.clip(1e-6, 1 - 1e-6))) for q in (p[0], p[0], p[1])]
    domain = np.array([domain == "b" for domain in DOMAINS], dtype=np.int64)
    return LayerPrediction(domain, np.stack(odds, axis=1).astype(np.float32))


class Model:
    """Calls a tool where the push, times a layer's gain, is strong enough for the row; counts what it is asked."""

    def __init__(self, shift: float = 0.0, strength: float = 1.0) -> None:
        self.need = np.random.default_rng(9).normal(0, 1, ROWS) + shift
        self.strength = strength
        self.pushes = 0

    def __call__(self, rows: np.ndarray, pushes: Sequence[Push]) -> Screened:
        logits = [self.need[rows]]
        for push in pushes:
            asked = np.ones(len(rows), dtype=bool) if push.rows is None else push.rows.numpy()[rows]
            self.pushes += int(asked.sum())
            gain = self.strength * (3 - abs(push.layer - 5))
            step = push.steps[push.domain][:, 0].numpy()[rows]
            logits.append(np.where(asked, self.need[rows] + gain * step, -99))
        found = np.stack(logits)
        return Screened(found > 0, (1 / (1 + np.exp(-found))).astype(np.float32), found.astype(np.float32))


def race(
    model: Model | None = None, calls: bool = True, groups: Any = ROWS_APART, **options: Any
) -> tuple[list[Scored], Race, Model]:
    args, model = ASATrainingArguments(finalists=2, **options), model or Model()
    predictions = {Reader(layer): prediction(layer) for layer in LAYERS}

    def push(key: PushKey) -> Push:
        return Push(key.layer, torch.full((2, 1), key.alpha), torch.from_numpy(predictions[Reader(key.layer)].domain))

    found = Race(args, Objective.of(args), LABELS, groups, DOMAINS, predictions, push, model, calls)
    return found.run(), found, model


def test_the_race_comes_to_the_best_of_the_whole_grid_with_a_fraction_of_the_pushes() -> None:
    (raced, _, few), (every, _, many) = race(), race(exhaustive=True)
    assert len(every) == 8 * 3 * 4 * 5 * 2
    assert min(raced, key=Scored.rank).score == min(every, key=Scored.rank).score
    assert few.pushes < many.pushes / 3


def test_what_is_left_was_measured_on_all_rows_and_as_the_whole_grid_measures_it() -> None:
    every = {scored.setting: scored for scored in race(exhaustive=True)[0]}
    raced, found, _ = race()
    assert raced
    for scored in raced:
        assert np.array_equal(scored.triggered, every[scored.setting].triggered)
    assert np.array_equal(found.base, Model().need > 0)


def test_a_row_is_pushed_to_the_side_that_a_gate_asks_for_and_to_both_where_probes_differ() -> None:
    _, found, model = race(exhaustive=True, layers=(5,), taus=(0.5,), alphas=(0.5, 1.0), betas=(1.0,))
    both = sum(
        ((prediction(layer).p_tool("domain") < 0.5) != (prediction(layer).p_tool("pooled") < 0.5)).sum()
        for layer in LAYERS
    )
    assert model.pushes == len(LAYERS) * (ROWS + 2 * ROWS) + both  # both sides are shown at the step nearest to 1
    assert {key.alpha for key, _ in found.changes} == {1.0}


def test_the_same_seed_gives_the_same_race_and_another_a_different_order() -> None:
    assert [s.setting for s in race()[0]] == [s.setting for s in race()[0]]
    assert not np.array_equal(spread_for_rounds(LABELS, DOMAINS, 1), spread_for_rounds(LABELS, DOMAINS, 2))


@pytest.mark.parametrize("count", [8, 20, 50])
def test_every_part_of_the_rows_has_the_same_mix(count: int) -> None:
    order = spread_for_rounds(LABELS, DOMAINS, 42)
    assert sorted(order) == list(range(ROWS))
    kinds = [(LABELS[i], DOMAINS[i]) for i in order[:count]]
    counts = [kinds.count(kind) for kind in {*zip(LABELS, DOMAINS, strict=True)}]
    assert max(counts) - min(counts) <= 1


def test_a_rounds_gates_are_compared_with_the_rows_that_belong_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, alike = [], np.arange(ROWS) // 20

    def spy(args: Any, objective: Any, labels: Any, scored: Any, groups: Any) -> Any:
        asked.append((labels, groups))
        return scored

    monkeypatch.setattr("asa_adapter.search.racing.without_unsure_departures", spy)
    race(groups=alike)
    first = np.sort(spread_for_rounds(LABELS, DOMAINS, ASATrainingArguments().seed)[:32])
    assert np.array_equal(asked[0], [LABELS[first], alike[first]])


def test_survivors_are_of_several_layers_and_hold_the_leaders_other_steps() -> None:
    scored = [
        Scored(Setting(layer, alpha, 0.5, beta, "pooled"), 1 - layer / 10 - alpha / 100 - beta / 1000, LABELS > 0)
        for layer in (1, 2, 3)
        for alpha in (0.5, 1.0, 2.0)
        for beta in (0.0, 1.0)
    ]
    kept = surviving_pushes(scored, 4)
    assert {key.layer for key in kept} == {1, 2}
    assert {PushKey(1, 0.0, alpha) for alpha in (0.5, 1.0, 2.0)} <= set(kept)
    assert kept == sorted(kept)


def test_a_race_in_which_no_push_moves_anything_ends_with_its_first_round() -> None:
    scored, found, model = race(Model(shift=-15))
    assert found.hopeless
    assert len(found.rows) == 32
    assert 0 < found.moved < 0.01
    assert {s.setting.layer for s in scored} == set(LAYERS)
    assert all(len(s.triggered) == 32 for s in scored)
    assert model.pushes < race(Model(shift=-15), exhaustive=True)[2].pushes / 5


@pytest.mark.parametrize(("calls", "hopeless"), [(True, False), (False, True)])
def test_probabilities_that_move_without_a_call_are_hopeless_only_where_the_model_never_calls(
    calls: bool, hopeless: bool
) -> None:
    _, found, _ = race(Model(shift=-9.5), calls)
    assert found.moved > 0.01
    assert not found.base.any()
    assert found.hopeless is hopeless


def test_a_race_goes_on_where_one_decision_changes_or_all_settings_are_asked_for() -> None:
    _, found, _ = race(Model(strength=0.03))
    assert found.moved > 0.01
    assert not found.hopeless
    assert len(found.rows) == ROWS
    _, whole, _ = race(Model(shift=-15), exhaustive=True)
    assert not whole.hopeless
    assert len(whole.rows) == ROWS
