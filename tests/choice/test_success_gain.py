from typing import Any

import numpy as np
import pytest

from asa_adapter import ASATrainingArguments
from asa_adapter.choice.finalists import choose
from asa_adapter.choice.gain import Gain, GainRedraw, sure_gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.choice.success_gain import Success, success_gain
from asa_adapter.evaluation.metrics import success_f1
from asa_adapter.search.reasons import reason_to_abstain, success_note
from asa_adapter.tool_calls.outcomes import Outcome

ARGS = ASATrainingArguments(resamples=500)
ROWS = 160
LABELS = np.arange(ROWS) % 2
NEEDED = LABELS == 1
NONE = np.zeros(ROWS, dtype=bool)
HALF = NEEDED & (np.arange(ROWS) % 4 == 1)


def finalist(triggered: Any, fits: Any, alpha: float = 1.0) -> Scored:
    score = Objective().score(LABELS, triggered, None)
    return Scored(Setting(1, alpha, 0.5, 0.0, "pooled"), score, triggered, triggered & fits)


def verdict(base: Any, base_fits: Any, *finalists: Scored) -> tuple[Scored, Gain, Success]:
    """The choice among finalists, and its gains over the bare model."""
    chosen, _ = choose(ARGS, LABELS, finalists)
    redraw = GainRedraw.of(ARGS, LABELS, finalists, chosen)
    return chosen, sure_gain(redraw, base), success_gain(redraw, Outcome(base, base & base_fits, NONE))


def test_a_call_of_a_tool_that_was_not_offered_is_no_success() -> None:
    """Of 80 needs 40 are called, 20 of them with calls that fit, and 10 rows are called without need."""
    called = HALF | (np.arange(ROWS) < 20) & ~NEEDED
    fits = np.arange(ROWS) < 80
    assert success_f1(LABELS, called, fits) == pytest.approx(2 * 20 / (50 + 80))
    twice = success_f1(LABELS, called, fits, np.full((3, ROWS), 2))
    assert twice == pytest.approx([2 * 20 / (50 + 80)] * 3)
    assert success_f1(np.zeros(4, dtype=int), NONE[:4], NONE[:4]) == 0


def test_where_triggers_gain_and_successful_calls_do_too_nothing_is_said() -> None:
    chosen, gain, success = verdict(HALF, NEEDED, finalist(NEEDED, NEEDED))
    assert gain.sure
    assert success.base == pytest.approx(2 / 3)
    assert (success.chosen, success.sure, success.falls) == (1.0, True, False)
    assert 0 < success.lower_bound < 1 / 3 < success.upper_bound
    assert reason_to_abstain(ARGS, Objective(), chosen, gain, success) == ""
    assert success_note(success) == ""


def test_where_triggers_gain_and_successful_calls_do_not_it_ships_and_says_so() -> None:
    chosen, gain, success = verdict(NONE, NONE, finalist(NEEDED, NONE))
    assert gain.sure
    assert success == (0.0, 0.0, 0.0, 0.0)
    assert reason_to_abstain(ARGS, Objective(), chosen, gain, success) == ""
    assert success_note(success).startswith(
        "With this adapter the model calls tools better, but no gain in calls that succeed is sure: the F1 of "
        "successful calls (needed, of an offered tool, fitting its schema) goes from 0.000 to 0.000 on VALID"
    )
    required = ASATrainingArguments(success_required=True)
    why = reason_to_abstain(required, Objective(), chosen, gain, success)
    assert why.startswith("its triggers gain, but no gain in calls that succeed is sure, and success_required is set")


def test_where_successful_calls_surely_fall_it_abstains() -> None:
    chosen, gain, success = verdict(HALF, NEEDED, finalist(NEEDED, NONE))
    assert gain.sure
    assert success.falls
    why = reason_to_abstain(ARGS, Objective(), chosen, gain, success)
    assert why.startswith("its triggers gain, and its calls lose: the F1 of successful calls")
    assert why.endswith("the adapter abstains")


def test_a_loss_of_success_within_noise_is_no_reason_to_abstain() -> None:
    fits = np.arange(ROWS) % 20 < 12  # .6 of the needed calls, against F1 2/3 of the bare model
    chosen, gain, success = verdict(HALF, NEEDED, finalist(NEEDED, fits))
    assert success.chosen < success.base
    assert success.lower_bound < 0 < success.upper_bound
    assert gain.sure
    assert reason_to_abstain(ARGS, Objective(), chosen, gain, success) == ""


def test_among_equal_triggers_the_calls_that_succeed_are_chosen() -> None:
    gentle, fitting = finalist(NEEDED, NONE, alpha=0.5), finalist(NEEDED, NEEDED, alpha=2.0)
    assert choose(ARGS, LABELS, [gentle, fitting])[0] is fitting
    unknown = [one._replace(fits=None) for one in (gentle, fitting)]
    assert choose(ARGS, LABELS, unknown)[0] is unknown[0]


def test_too_few_groups_are_no_evidence_of_success() -> None:
    groups = np.arange(ROWS) // 40
    redraw = GainRedraw.of(ARGS, LABELS, [one := finalist(NEEDED, NEEDED)], one, groups)
    found = success_gain(redraw, Outcome(NONE, NONE, NONE))
    assert (found.lower_bound, found.upper_bound) == (-1.0, 1.0)
    assert not found.sure
    assert not found.falls
