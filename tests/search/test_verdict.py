"""What the report says of a choice, in words."""

import pytest

from asa_adapter.choice.gain import Gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Setting
from asa_adapter.search.verdict import reason_to_choose

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
