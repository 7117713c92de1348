"""Weights that are compared while they are loaded."""

from collections.abc import Callable
from typing import Any

import pytest
from models import random_model

from asa_adapter import IncompatibleModelError
from asa_adapter.matching.loaded_weights import WatchedWeights
from asa_adapter.modeling.fingerprint import model_fingerprint


def passed(model: Any, stored: str | None, leave_out: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Names of the weights that came through, with the check behind them."""
    watched = WatchedWeights(model.config, stored)
    kept = [(name, weight) for name, weight in model.state_dict().items() if not leave_out(name)]
    names = [name for name, _ in watched.passing(kept)]
    watched.check()
    return names


def test_the_weights_that_the_adapter_was_fitted_for_pass() -> None:
    model = random_model("qwen3")
    assert passed(model, model_fingerprint(model)) == list(model.state_dict())


def test_other_weights_are_refused() -> None:
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        passed(random_model("qwen3", seed=1), model_fingerprint(random_model("qwen3")))


def test_weights_without_a_fingerprint_are_not_looked_at() -> None:
    model = random_model("qwen3")
    assert passed(model, None) == list(model.state_dict())


def test_quantised_matrices_are_left_out_of_the_comparison() -> None:
    model, other = random_model("qwen3"), random_model("qwen3", seed=1)
    assert passed(model, model_fingerprint(model), lambda name: "proj" in name)
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        passed(other, model_fingerprint(model), lambda name: "proj" in name)
