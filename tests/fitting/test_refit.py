"""A layer that is fitted once more: more rows, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_states import split

from asa_adapter import Probes, Router, SteeringVectors
from asa_adapter.fitting.layer_fit import LayerFit, fit_layer
from asa_adapter.fitting.refit import refitted

NAMES = ("a", "b")

CAL, TRAIN, VALID, MADE = (split(seed, signal=2.0) for seed in range(4))


@pytest.fixture(scope="module")
def fit() -> LayerFit:
    return fit_layer(CAL, TRAIN, VALID, NAMES, (0.01, 0.1, 1.0), 42)


def test_directions_router_and_probes_are_those_of_all_three_splits(fit: LayerFit) -> None:
    again, C = refitted(fit, [CAL, TRAIN, VALID], NAMES, seed=42), fit.facts["C"]
    rows = CAL.joined([TRAIN, VALID])
    assert np.array_equal(
        again.vectors.v_global, SteeringVectors.fit(rows.states, rows.labels, rows.domains, NAMES).v_global
    )
    assert np.array_equal(again.router.estimator_.coef_, Router.fit(rows.states, rows.domains, C, 42).estimator_.coef_)
    probes = Probes.fit(rows.states, rows.labels, rows.domains, C, 42)
    assert np.array_equal(again.probes.pooled_.coef_, probes.pooled_.coef_)
    assert np.array_equal(again.probes.by_domain_["b"].coef_, probes.by_domain_["b"].coef_)
    assert not np.allclose(again.probes.pooled_.coef_, fit.probes.pooled_.coef_)


def test_what_was_chosen_by_stays_as_it_was_judged(fit: LayerFit) -> None:
    again = refitted(fit, [CAL, TRAIN, VALID], NAMES, seed=42)
    assert again.residual_norm == fit.residual_norm == pytest.approx(np.linalg.norm(CAL.states, axis=1).mean())
    assert again.out_of_fold is fit.out_of_fold
    assert again.facts == fit.facts


def test_rows_with_other_tools_change_router_and_probes_alone(fit: LayerFit) -> None:
    plain, more = (refitted(fit, [CAL, TRAIN, VALID], NAMES, also, seed=42) for also in ((), [MADE]))
    assert np.array_equal(plain.vectors.v_domain, more.vectors.v_domain)
    assert not np.allclose(plain.probes.pooled_.coef_, more.probes.pooled_.coef_)
    assert not np.allclose(plain.router.estimator_.coef_, more.router.estimator_.coef_)


def test_unequal_costs_shift_all_log_odds_once(fit: LayerFit) -> None:
    plain, shifted = (refitted(fit, [CAL, TRAIN, VALID], NAMES, seed=42, shift=shift) for shift in (0.0, 1.5))
    for name in ("a", "b"):
        moved = shifted.probes.by_domain_[name].intercept_ - plain.probes.by_domain_[name].intercept_
        assert moved == pytest.approx(1.5, abs=1e-5)
    assert np.array_equal(shifted.probes.pooled_.coef_, plain.probes.pooled_.coef_)


def test_rows_of_a_domain_that_the_router_does_not_know_are_left_out(fit: LayerFit) -> None:
    more = VALID.joined([replace(MADE, domains=["c"] * len(MADE.labels))])
    plain, again = (refitted(fit, [CAL, TRAIN, valid], NAMES, seed=42) for valid in (VALID, more))
    assert again.router.domains == plain.router.domains == ("a", "b")
    assert np.array_equal(again.vectors.v_global, plain.vectors.v_global)
    assert np.array_equal(again.probes.pooled_.coef_, plain.probes.pooled_.coef_)


def test_a_domain_that_was_judged_with_the_parts_of_all_rows_keeps_them(fit: LayerFit) -> None:
    few = replace(fit, probes=Probes(fit.probes.pooled_, {"a": fit.probes.by_domain_["a"]}))
    few = replace(few, vectors=replace(fit.vectors, v_domain=fit.vectors.v_domain * torch.tensor([[1.0], [0.0]])))
    again = refitted(few, [CAL, TRAIN, VALID], NAMES, seed=42)
    assert set(again.probes.by_domain_) == {"a"}
    assert again.vectors.v_domain[0].any()
    assert not again.vectors.v_domain[1].any()
