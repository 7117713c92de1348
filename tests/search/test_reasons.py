"""What the report says of a choice, in words."""

from typing import Any

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.gain import Gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.search.reasons import reason_to_abstain, reason_to_choose, rejected_in_words

SETTING = Setting(layer=3, alpha=1.0, tau=0.5, beta=1.0, probe="domain")


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (Gain(0.085, 0.035, 0.1, 0.104, 80), "is +0.085, at least +0.035 with 95 % confidence (F1)"),
        (
            Gain(0.006, 0.006, 0.01, 0.186, 11),
            "is at least +0.006 with 95 % confidence (F1) (measured: +0.186; so few rows do not tell how much of it "
            "is luck)",
        ),
    ],
    ids=["an estimate above the bound", "an estimate that ends at the bound"],
)
def test_a_bound_is_not_told_as_the_gain(gain: Gain, told: str) -> None:
    assert reason_to_choose(SETTING, 4, 0, Objective("f1"), gain).endswith(told)


@pytest.mark.parametrize(("rows", "also"), [(0, ""), (320, " and of first tokens on 320 rows of TRAIN")])
def test_it_is_said_by_which_rows_a_setting_was_chosen(rows: int, also: str) -> None:
    why = reason_to_choose(SETTING, 4, rows, Objective("f1"), Gain(0.085, 0.035, 0.1, 0.104, 80))
    assert f"standard error of the best, ranked by f1 of real generation on VALID{also}; the gain" in why


@pytest.mark.parametrize(
    ("gain", "told"),
    [
        (
            Gain(0.05, -0.048, 0.0, 0.132, 12),
            "-0.048 (F1); +0.132 was measured on the 24 rows of VALID, and would be sure on about 45: give VALID "
            "that many in a file of its own, valid.jsonl",
        ),
        (Gain(-0.05, -0.1, -0.1, -0.02, 12), "-0.100 (F1)"),
        (Gain(0.1, 0.02, -0.01, 0.1, 12), "-0.010 in balanced accuracy, whatever F1 says"),
        (Gain(0.1, -1.0, -1.0, 0.1, 9), "one label has 9 groups of rows that belong together; expected at least 10"),
    ],
    ids=["too few rows", "no gain", "none in balanced accuracy", "too few groups"],
)
def test_an_unsure_gain_says_how_many_rows_would_make_it_sure(gain: Gain, told: str) -> None:
    chosen, success = Scored(SETTING, 0.5, np.zeros(24, dtype=bool)), Any
    why = reason_to_abstain(ASATrainingArguments(), Objective("f1"), chosen, gain, success)  # type: ignore[arg-type]
    assert why.startswith("no gain over the bare model on VALID is sure: ")
    assert why.endswith(f"{told}; the adapter abstains")


def test_a_setting_that_does_not_ship_is_told_by_what_it_did() -> None:
    told = rejected_in_words({"recall": 1.0, "fpr": 0.571, "f1": 0.8}, {"recall": 0.952, "fpr": 0.19, "f1": 0.9})
    assert told == "On VALID it would have meant recall 1.000 -> 0.952, FPR 0.571 -> 0.190"
