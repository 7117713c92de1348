"""Which gates may differ from the plain one."""

from typing import Any

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.choice.sure_departures import without_unsure_departures

ROWS = 200
LABELS = np.arange(ROWS) % 2
ARGS = ASATrainingArguments()


def gate(wrong: int, tau: float = 0.5, probe: str = "domain", alpha: float = 1.0, first: int = 0) -> Scored:
    """A setting that errs on some rows, from the `first` one on."""
    called = LABELS == 1
    called[first : first + wrong] ^= True
    return Scored(Setting(3, alpha, tau, 0.5, probe), Objective().score(LABELS, called, None), called)


def kept(*scored: Scored, args: ASATrainingArguments = ARGS, groups: Any = None) -> list[tuple[float, str, float]]:
    left = without_unsure_departures(args, Objective.of(args), LABELS, scored, groups)
    return [(one.setting.tau, one.setting.probe, one.setting.alpha) for one in left]


def test_a_gate_that_is_better_by_a_row_or_two_does_not_replace_the_plain_one() -> None:
    assert kept(gate(40), gate(38, tau=0.7), gate(39, probe="pooled")) == [(0.5, "domain", 1.0)]


def test_a_gate_that_is_better_on_many_rows_stays_beside_the_plain_one() -> None:
    assert kept(gate(40), gate(20, tau=0.7), gate(39, tau=0.9)) == [(0.5, "domain", 1.0), (0.7, "domain", 1.0)]


@pytest.mark.parametrize(("better", "stays"), [(8, False), (11, True)])
def test_three_standard_errors_of_the_difference_on_the_same_rows_are_sure(better: int, stays: bool) -> None:
    # The difference is `better` rows, each right in one gate alone: its standard error is about their square root.
    assert (len(kept(gate(40), gate(40 - better, tau=0.6))) == 2) == stays


def test_a_luckier_gate_that_errs_on_other_rows_is_not_sure() -> None:
    assert kept(gate(40), gate(30, tau=0.6, first=100)) == [(0.5, "domain", 1.0)]


def test_gates_are_compared_where_the_push_is_the_same() -> None:
    found = kept(gate(10), gate(60, alpha=2.0), gate(35, tau=0.8, alpha=2.0))
    assert found == [(0.5, "domain", 1.0), (0.5, "domain", 2.0), (0.8, "domain", 2.0)]


def test_copies_make_no_gate_sure() -> None:
    pair = gate(40), gate(30, tau=0.6)
    assert len(kept(*pair)) == 2
    assert len(kept(*pair, groups=np.arange(ROWS) // 20)) == 1


def test_the_plain_gate_is_of_the_first_probe_and_the_lowest_threshold_that_are_tried() -> None:
    args = ASATrainingArguments(probes=("pooled", "domain"), taus=(0.9, 0.6))
    scored = [gate(40, 0.9, "pooled"), gate(40, 0.6, "domain"), gate(41, 0.6, "pooled")]
    assert kept(*scored, args=args) == [(0.6, "pooled", 1.0)]


def test_one_layer_is_read_in_place_of_several_only_where_it_is_surely_better() -> None:
    one, lucky, better = gate(40), gate(39), gate(20)
    several = one._replace(setting=one.setting._replace(read_layers=(1, 2, 3)))
    for other, stays in ((lucky, False), (better, True)):
        left = without_unsure_departures(ARGS, Objective(), LABELS, [other, several], None)
        assert left == ([other, several] if stays else [several])


def test_under_a_limit_of_the_fpr_every_threshold_stays() -> None:
    assert len(kept(gate(40), gate(40, tau=0.7), args=ASATrainingArguments(max_fpr=0.3))) == 2


def test_no_setting_is_no_setting() -> None:
    assert kept() == []
