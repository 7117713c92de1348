"""Thresholds on a score, chosen on VALID."""

import numpy as np
import pytest

from asa_adapter.choice.settings import Objective
from asa_adapter.comparison.thresholds import fitted_thresholds, needed_by_threshold, thresholds_in_words

F1 = Objective("f1")


def test_the_middle_of_the_best_thresholds_is_taken() -> None:
    scores, labels = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    assert fitted_thresholds(F1, scores, labels, None) == {"": pytest.approx(0.5)}
    assert fitted_thresholds(F1, np.array([0.1, 0.4, 0.2, 0.9]), np.array([0, 0, 1, 1]), None)[""] == pytest.approx(
        0.15
    )


def test_never_and_always_are_thresholds_too() -> None:
    scores = np.array([0.2, 0.4, 0.6])
    always = fitted_thresholds(F1, scores, np.array([1, 1, 1]), None)
    assert needed_by_threshold(scores, always, ["a"] * 3).all()
    never = fitted_thresholds(Objective("f1", max_fpr=0.0), scores, np.array([0, 1, 0]), None)
    assert not needed_by_threshold(scores, never, ["a"] * 3).any()


def test_a_limit_of_the_fpr_is_kept() -> None:
    scores, labels = np.array([0.1, 0.3, 0.2, 0.4, 0.6, 0.5]), np.array([0, 0, 1, 1, 1, 0])
    limits = fitted_thresholds(Objective("f1", max_fpr=0.34), scores, labels, None)
    called = needed_by_threshold(scores, limits, ["a"] * 6)
    assert called[labels == 0].sum() == 1
    assert called[labels == 1].sum() == 2


def test_each_domain_has_its_own_threshold_and_an_unknown_one_that_of_all() -> None:
    scores, labels = np.array([0.1, 0.2, 0.7, 0.9]), np.array([0, 1, 0, 1])
    limits = fitted_thresholds(F1, scores, labels, None, ["a", "a", "b", "b"])
    assert limits == {"": limits[""], "a": pytest.approx(0.15), "b": pytest.approx(0.8)}
    assert needed_by_threshold(scores, limits, ["a", "a", "b", "b"]).tolist() == [False, True, False, True]
    assert needed_by_threshold(np.array([limits[""]]), limits, ["c"]).tolist() == [True]
    assert thresholds_in_words(limits) == "thresholds a 0.15, b 0.8"
    assert thresholds_in_words({"": 0.5}) == "threshold 0.5"
