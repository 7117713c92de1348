"""What an objective asks of the probes."""

import math

import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.objective import Objective


@pytest.mark.parametrize(
    ("cost", "shift"),
    [
        (None, 0.0),
        ((1, 1), 0.0),
        ((1, 2), math.log(2)),
        ((4, 2), -math.log(2)),
        ((0.5, 0.25), -math.log(2)),  # only their ratio counts
        ((1, 100), 3.0),
        ((100, 1), -3.0),
        ((0, 1), 3.0),
        ((1, 0), -3.0),
    ],
)
def test_the_shift_makes_both_errors_cost_the_same_at_one_half(cost: tuple[float, float] | None, shift: float) -> None:
    assert Objective.of(ASATrainingArguments(cost=cost)).shift == pytest.approx(shift)


@pytest.mark.parametrize("other", [{"objective": "balanced_accuracy"}, {"max_fpr": 0.1}, {}])
def test_without_costs_nothing_is_shifted(other: dict[str, object]) -> None:
    assert Objective.of(ASATrainingArguments(**other)).shift == 0.0  # type: ignore[arg-type]
