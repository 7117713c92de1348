"""Kinds of state at one layer: each read by probes and pushed along directions of its own."""

from typing import Any

import numpy as np
import pytest
import torch

from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.evaluation.metrics import auc
from asa_adapter.fitting.layer_fit import fit_layer
from asa_adapter.fitting.readiness_policy import readiness_push
from asa_adapter.fitting.step_effects import step_push
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.parts.vectors import SteeringVectors

NAMES = ["code", "math"]


def split(seed: int, rows: int = 80, few: bool = False) -> LabelledStates:
    """States in which one feature tells the need in first turns, and its opposite behind results."""
    generator = np.random.default_rng(seed)
    kinds = ["first"] * (rows - 10) + ["after_result"] * 10 if few else ["first", "after_result"] * (rows // 2)
    labels = np.arange(rows) // 2 % 2
    states = generator.normal(size=(rows, 6)).astype(np.float32)
    signs = np.array([1 if kind == "first" else -1 for kind in kinds])
    states[:, 0] += (3 * signs * (2 * labels - 1)).astype(np.float32)
    return LabelledStates(states, labels, [NAMES[i // 4 % 2] for i in range(rows)], np.arange(rows), kinds)


def fitted(few: bool = False) -> Any:
    return fit_layer(split(0, few=few), split(1, few=few), split(2, few=few), NAMES, (0.1,), 42)


def test_what_one_probe_cannot_read_of_both_kinds_each_reads_of_its_own() -> None:
    fit, valid = fitted(), split(2)
    assert fit.facts["probe_auc"] > 0.95
    assert {name for name, one in fit.facts["states"].items() if one["own_probe"] and one["own_direction"]} == {
        "first",
        "after_result",
    }
    assert min(one["out_of_fold_auc"] for one in fit.facts["states"].values()) > 0.95
    pooled = fit_layer(*(_without_kinds(split(seed)) for seed in (0, 1, 2)), NAMES, (0.1,), 42)
    assert pooled.facts["probe_auc"] < 0.7
    assert "states" not in pooled.facts
    assert auc(valid.labels, fit.predict(valid.states, valid.kinds).log_odds[:, -1]) == fit.facts["probe_auc"]


@pytest.mark.parametrize("kinds", [True, False], ids=["kinds apart", "one kind"])
def test_a_shift_is_added_to_all_log_odds_and_changes_nothing_else(kinds: bool) -> None:
    splits = [split(seed) if kinds else _without_kinds(split(seed)) for seed in (0, 1, 2)]
    plain, shifted = (fit_layer(*splits, NAMES, (0.1,), 42, shift=amount) for amount in (0.0, 0.75))
    valid = splits[2]
    for found, expected in (
        (shifted.out_of_fold, plain.out_of_fold),
        (shifted.predict(valid.states, valid.kinds), plain.predict(valid.states, valid.kinds)),
    ):
        np.testing.assert_allclose(found.log_odds, expected.log_odds + 0.75, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found.domain, expected.domain)
    assert shifted.facts == plain.facts
    assert torch.equal(shifted.vectors.v_global, plain.vectors.v_global)


def test_without_kinds_a_fit_is_what_the_rows_give_together() -> None:
    pooled = fit_layer(*(_without_kinds(split(seed)) for seed in (0, 1, 2)), NAMES, (0.1,), 42)
    cal = split(0)
    expected = SteeringVectors.fit(cal.states, cal.labels.tolist(), cal.domains, NAMES)
    assert torch.equal(pooled.vectors.v_global, expected.v_global)
    assert (pooled.vectors.by_state, pooled.probes.by_state_, pooled.out_of_fold.rule) == ({}, {}, None)


def test_a_kind_with_too_few_rows_takes_the_pooled_parts_and_the_facts_say_so() -> None:
    facts = fitted(few=True).facts["states"]
    assert [facts[kind][name] for kind in ("first", "after_result") for name in ("own_probe", "own_direction")] == [
        True,
        True,
        True,  # CAL and TRAIN have twice ten rows together
        False,
    ]


def test_a_push_goes_along_the_directions_of_each_rows_kind() -> None:
    fit = fitted()
    domain, rule = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    push = step_push(fit, domain, 3, 1.0, 2.0, rule)
    for row in range(4):
        own = fit.vectors.of(("first", "after_result")[rule[row]])
        assert torch.equal(push.at(row), 2.0 * fit.residual_norm * own.mixed(1.0)[domain[row]])


def test_a_setting_with_rules_is_split_by_kind_stored_plainly_and_comes_behind_a_simpler_one() -> None:
    plain = Setting(2, 1.0, 0.5, 0.0, "pooled")
    ruled = plain._replace(
        alpha=0.25, by_state=(("after_result", (("alpha", 0.25), ("alpha_down", 2.0), ("tau", 0.9))),)
    )
    assert ruled.of("first") == plain._replace(alpha=0.25)
    assert ruled.of("after_result") == plain._replace(alpha=0.25, tau=0.9, down=2.0)
    assert ruled.plain()["by_state"] == {"after_result": {"alpha": 0.25, "alpha_down": 2.0, "tau": 0.9}}
    assert not plain.plain().keys() & {"by_state", "down"}
    calls = np.ones(2, dtype=bool)
    assert min((Scored(one, 0.5, calls) for one in (ruled, plain)), key=Scored.rank).setting == plain


def test_the_domains_own_step_goes_along_what_is_the_domains_own() -> None:
    fit = fitted()
    prediction = fit.out_of_fold
    push = readiness_push(fit, 3, 2.0, prediction)
    for row in range(8):
        own = fit.vectors.of(("first", "after_result")[prediction.rule[row]]).own()
        assert torch.equal(push.at(row), 2.0 * fit.residual_norm * own[prediction.domain[row]])


def _without_kinds(labelled: LabelledStates) -> LabelledStates:
    return LabelledStates(labelled.states, labelled.labels, labelled.domains, labelled.groups)
