from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from labelled_states import split

from asa_adapter import Probes, Router
from asa_adapter.evaluation import auc
from asa_adapter.fitting.layer_fit import LayerFit, fit_layer, shuffled_labels
from asa_adapter.measurement.labelled_states import LabelledStates


def test_directions_come_from_cal_and_classifiers_from_cal_and_train() -> None:
    cal, train, valid = split(0), split(1), split(2)
    fit = fit_layer(cal, train, valid, ("a", "b"), (0.1,), 42)
    other_cal = fit_layer(split(5), train, valid, ("a", "b"), (0.1,), 42)
    other_train = fit_layer(cal, split(5), valid, ("a", "b"), (0.1,), 42)
    assert not np.allclose(fit.vectors.v_global, other_cal.vectors.v_global)
    both = Probes.fit(
        np.concatenate([cal.states, train.states]),
        [*cal.labels, *train.labels],
        [*cal.domains, *train.domains],
        0.1,
        42,
    )
    assert np.array_equal(fit.probes.pooled_.coef_, both.pooled_.coef_)
    assert not np.allclose(fit.router.estimator_.coef_, other_cal.router.estimator_.coef_)
    assert np.array_equal(fit.vectors.v_global, other_train.vectors.v_global)
    assert not np.allclose(fit.probes.pooled_.coef_, other_train.probes.pooled_.coef_)
    assert fit.residual_norm == pytest.approx(np.linalg.norm(cal.states, axis=1).mean())


def test_facts_tell_signal_from_none() -> None:
    facts = fit_layer(split(0), split(1), split(2), ("a", "b"), (0.01, 1.0), 42).facts
    assert facts["probe_auc"] > 0.95
    assert facts["router_accuracy"] == 1.0
    assert abs(facts["shuffled_auc"] - 0.5) < 0.15
    none = fit_layer(split(0), split(1, signal=0.0), split(2, signal=0.0), ("a", "b"), (0.01, 1.0), 42).facts
    assert none["probe_auc"] < 0.7


def noisy(seed: int) -> LabelledStates:
    """Rows of which one number in forty tells a little; 24 of each domain and label are easily learnt by heart."""
    plain = split(seed, rows=96, signal=1.5)
    more = np.random.default_rng(seed + 50).normal(size=(96, 40)).astype(np.float32)
    return replace(plain, states=np.concatenate([plain.states, more], axis=1))


def log_loss_out_of_fold(fit: LayerFit, train: LabelledStates) -> float:
    """Of the probes of each row's own domain and of the pooled one."""
    odds = fit.out_of_fold.log_odds
    own = odds[np.arange(len(odds)), [("a", "b").index(name) for name in train.domains]]
    p = 1 / (1 + np.exp(-np.stack([own, odds[:, -1]]).astype(np.float64)))
    return float(-np.log(np.where(train.labels == 1, p, 1 - p)).mean())


@pytest.mark.parametrize(("rows", "least"), [(noisy, 0.01), (lambda seed: split(seed, signal=6.0), 1.0)])
def test_the_strength_is_the_one_of_the_least_log_loss_out_of_fold(
    rows: Callable[[int], LabelledStates], least: float
) -> None:
    parts = [rows(seed) for seed in range(3)]
    losses = {C: log_loss_out_of_fold(fit_layer(*parts, ("a", "b"), (C,), 42), parts[1]) for C in (0.0001, 0.01, 1.0)}
    assert min(losses, key=lambda C: losses[C]) == least
    assert fit_layer(*parts, ("a", "b"), (1.0, 0.01, 0.0001), 42).facts["C"] == least


def test_shuffled_labels_are_balanced_within_each_label_and_domain() -> None:
    part = split(0)
    shuffled = shuffled_labels(part.labels, part.domains, 7)
    for label in (0, 1):
        for domain in ("a", "b"):
            rows = (part.labels == label) & (np.array(part.domains) == domain)
            assert shuffled[rows].mean() == 0.5
    assert not np.array_equal(shuffled, shuffled_labels(part.labels, part.domains, 8))


def test_twins_with_other_labels_are_predicted_together() -> None:
    """Rows in pairs that differ in their label alone: a probe that met one twin would be wrong about the other."""
    generator = np.random.default_rng(0)
    twins = np.repeat(generator.normal(size=(40, 6)), 2, axis=0).astype(np.float32)
    twins += 0.01 * generator.normal(size=twins.shape).astype(np.float32)
    labels, domains = np.arange(80) % 2, ["a"] * 80
    apart = LabelledStates(twins, labels, domains)
    together = LabelledStates(twins, labels, domains, np.repeat(np.arange(40), 2))
    few = split(0, rows=8, signal=0.5)
    misled, fair = (fit_layer(few, part, split(2), ("a", "b"), (1.0,), 42).facts for part in (apart, together))
    assert misled["out_of_fold_auc"] < 0.35
    assert abs(fair["out_of_fold_auc"] - 0.5) < 0.15


def test_a_twin_in_cal_does_not_tell_the_label_of_a_row_of_train() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(80, 200)).astype(np.float32)
    labels, domains, groups = np.arange(80) % 2, ["a"] * 80, np.arange(80)
    train = LabelledStates(states, labels, domains, groups)
    told, fair = (
        fit_layer(LabelledStates(states, labels, domains, mine), train, train, ("a",), (1.0,), 42).facts
        for mine in (groups + 100, groups)
    )
    assert told["out_of_fold_auc"] > 0.95
    assert abs(fair["out_of_fold_auc"] - 0.5) < 0.15


def test_rows_that_are_all_alike_are_predicted_one_by_one() -> None:
    part = split(1)
    alike = LabelledStates(part.states, part.labels, part.domains, np.zeros(80, dtype=np.int64))
    assert fit_layer(split(0), alike, split(2), ("a", "b"), (0.1,), 42).facts["out_of_fold_auc"] > 0.9


def test_shuffled_labels_of_lonely_rows_have_both_values() -> None:
    domains = [str(i) for i in range(10)]
    for seed in range(20):
        assert set(shuffled_labels(np.arange(10) % 2, domains, seed)) == {0, 1}


def test_several_layers_are_read_as_their_mean_log_odds_both_by_the_search_and_by_the_adapter() -> None:
    parts = [[split(seed + 10 * layer) for seed in range(3)] for layer in range(2)]
    lower, upper = (fit_layer(*splits, ("a", "b"), (0.1,), 42) for splits in parts)
    states = [splits[2].states for splits in parts]
    below, own = lower.predict(states[0]), upper.predict(states[1])
    searched = own.reading([below, own])
    assert np.array_equal(searched.domain, own.domain)
    assert np.allclose(searched.log_odds, (below.log_odds + own.log_odds) / 2)
    probes = upper.reading([lower, upper]).probes
    together = np.concatenate(states, axis=1)
    for kind in ("domain", "pooled"):
        for i, domain in enumerate(searched.domain):
            name = ("a", "b")[domain] if kind == "domain" else None
            p_tool = probes.p_tool(together[i : i + 1], name)[0]
            assert p_tool == pytest.approx(float(searched.p_tool(kind)[i]), abs=1e-6)


def test_further_rows_are_fitted_on_and_leave_directions_alone() -> None:
    cal, train, valid, more = split(0), split(1), split(2), split(3)
    fit = fit_layer(cal, train, valid, ("a", "b"), (0.1,), 42)
    other = fit_layer(cal, train, valid, ("a", "b"), (0.1,), 42, [more, split(4)])
    assert np.array_equal(fit.vectors.v_global, other.vectors.v_global)
    assert fit.residual_norm == other.residual_norm
    assert other.facts["out_of_fold_auc"] == auc(train.labels, other.out_of_fold.log_odds[:, -1])
    parts = [cal, more, split(4), train]
    states = np.concatenate([part.states for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    domains = [domain for part in parts for domain in part.domains]
    assert np.array_equal(other.probes.pooled_.coef_, Probes.fit(states, labels, domains, 0.1, 42).pooled_.coef_)
    assert np.array_equal(other.router.estimator_.coef_, Router.fit(states, domains, 0.1, 42).estimator_.coef_)


def test_rows_that_lost_their_tool_do_not_lower_p_as_given() -> None:
    cal, train, valid, made = split(0), split(1), split(2), split(3)
    more = replace(made, labels=np.zeros_like(made.labels), made=np.ones(len(made.labels), dtype=bool))
    plain, fair = (
        fit_layer(cal, train, valid, ("a", "b"), (1e-6,), 42, [some]) for some in (replace(more, made=None), more)
    )
    for kind in ("pooled", "domain"):
        for low, as_given in (
            (plain.predict(valid.states), fair.predict(valid.states)),
            (plain.out_of_fold, fair.out_of_fold),
        ):
            assert as_given.p_tool(kind).mean() == pytest.approx(0.5, abs=0.02)
            assert low.p_tool(kind).mean() < 0.35


def test_a_row_with_other_tools_does_not_tell_the_label_of_its_source() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(80, 200)).astype(np.float32)
    labels, domains, groups = np.arange(80) % 2, ["a"] * 80, np.arange(80)
    train = LabelledStates(states, labels, domains, groups)
    cal = LabelledStates(generator.normal(size=(80, 200)).astype(np.float32), labels, domains, groups + 100)
    told, fair = (
        fit_layer(cal, train, train, ("a",), (1.0,), 42, [LabelledStates(states, labels, domains, mine)])
        for mine in (groups + 200, groups)
    )
    right = [((fit.out_of_fold.p_tool("pooled") >= 0.5) == labels).mean() for fit in (told, fair)]
    assert right[0] > 0.95
    assert abs(right[1] - 0.5) < 0.2


def test_how_sure_the_router_is_of_train_is_out_of_fold() -> None:
    train = split(1)
    fit = fit_layer(split(0), train, split(2), ("a", "b"), (0.1,), 42)
    known = fit.router.predict_proba(train.states).max(axis=1)
    assert fit.out_of_fold.sure is not None
    assert fit.out_of_fold.sure.shape == (80,)
    assert not np.allclose(fit.out_of_fold.sure, known)
    assert np.array_equal(fit.predict(train.states).sure, known)
