"""Rules for each kind of state, put together from what a race has measured."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Reader, Scored, Setting
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.search.racing import PushKey
from asa_adapter.search.rules_by_kind import with_rules_by_kind

ROWS = 80
LABELS = np.arange(ROWS) % 2
RULE = np.arange(ROWS) // 2 % 2  # kinds: first turns, and behind a result
ARGS = ASATrainingArguments(alphas=(0.5, 2.0), taus=(0.5, 0.9), betas=(1.0,), probes=("pooled",))
ROWS_APART = np.arange(ROWS)
KEYS = [PushKey(2, 1.0, alpha) for alpha in ARGS.alphas]


def race() -> Any:
    """First turns are called rightly with a short step, those behind a result with a long one, and never else."""

    def called(key: PushKey, sign: int) -> Any:
        right = (RULE == 0) == (key.alpha == 0.5)
        return np.where(right, sign > 0, sign < 0)

    return SimpleNamespace(rows=np.arange(ROWS), base=np.zeros(ROWS, dtype=bool), called=called)


def predictions(rule: Any) -> dict[Reader, LayerPrediction]:
    odds = np.where(LABELS == 1, 9.0, -9.0).astype(np.float32)
    return {Reader(2): LayerPrediction(np.zeros(ROWS, dtype=np.int64), np.stack([odds, odds], axis=1), rule)}


def scored() -> list[Scored]:
    found = []
    for key in KEYS:
        called = np.where(LABELS == 1, race().called(key, 1), race().called(key, -1))
        score = float(Objective().rank(ConfusionCounts.of(LABELS, called)))
        found.append(Scored(Setting(2, key.alpha, 0.5, 1.0, "pooled"), score, called))
    return found


def test_what_no_one_rule_reaches_two_rules_reach_together() -> None:
    plain = scored()
    [found] = with_rules_by_kind(ARGS, Objective(), LABELS, ROWS_APART, predictions(RULE), race(), plain)
    assert max(one.score for one in plain) < 0.6
    assert found.score == 1.0
    rules = found.setting.plain()["by_state"]
    assert (rules["first"]["alpha"], rules["after_result"]["alpha"]) == (0.5, 2.0)
    assert "alpha_down" not in rules["first"]  # a step of the other length would be as good, and is not simpler
    assert np.array_equal(found.triggered, LABELS == 1)


def test_where_one_rule_is_for_all_rows_there_is_none() -> None:
    assert with_rules_by_kind(ARGS, Objective(), LABELS, ROWS_APART, predictions(None), race(), scored()) == []


def test_a_kind_keeps_the_lowest_threshold_unless_another_is_surely_better() -> None:
    # With tau .9 the gate would leave the two rows of p = .12 and .88 alone, which it reads wrongly: no sure gain.
    odds = np.where(LABELS == 1, 9.0, -9.0).astype(np.float32)
    odds[[1, 2]] = -2.0, 2.0  # a row of each label that its probe reads wrongly, and not surely
    read = {Reader(2): LayerPrediction(np.zeros(ROWS, dtype=np.int64), np.stack([odds, odds], axis=1), RULE)}
    [found] = with_rules_by_kind(ARGS, Objective(), LABELS, ROWS_APART, read, race(), scored())
    assert {rule["tau"] for rule in found.setting.plain()["by_state"].values()} == {0.5}


@pytest.mark.parametrize(("groups", "tau"), [(ROWS_APART, 0.9), (np.where(ROWS_APART < 60, 0, ROWS_APART), 0.5)])
def test_rows_that_belong_together_make_no_threshold_sure(groups: Any, tau: float) -> None:
    # The first sixty rows without need are taken for others, but not surely: with tau .9 the gate leaves them alone.
    odds = np.where(LABELS == 1, 9.0, np.where(ROWS_APART < 60, 2.0, -9.0)).astype(np.float32)
    read = {Reader(2): LayerPrediction(np.zeros(ROWS, dtype=np.int64), np.stack([odds, odds], axis=1), RULE)}
    [found] = with_rules_by_kind(ARGS, Objective(), LABELS, groups, read, race(), scored())
    assert found.setting.plain()["by_state"]["first"]["tau"] == tau
