"""Weak spots that only some reports have, in words."""

from dataclasses import replace
from typing import Any

import pytest
from models import fitted_adapter

from asa_adapter.report import Report
from asa_adapter.report_schema import COUNTS, RATIOS
from asa_adapter.summary.weaknesses import weaknesses

CONFIG = fitted_adapter().config


def spots(**report: Any) -> str:
    return "\n".join(weaknesses(CONFIG, Report.read(report)))


def metrics(success: float) -> dict[str, Any]:
    validity = {"format": 0.9, "tool_name": 0.9, "arguments": 0.9, "success_precision": success, "success_recall": 0.1}
    return dict.fromkeys(COUNTS, 40) | dict.fromkeys(RATIOS, 0.5) | {"per_domain": {}, "validity": validity}


@pytest.mark.parametrize(("words", "state", "told"), [(0.91, 0.92, True), (0.85, 0.92, False), (0.6, 0.6, False)])
def test_words_that_tell_as_much_as_the_state_are_told(words: float, state: float, told: bool) -> None:
    found = spots(controls={"test": {"bag_of_words": {"auc": words}, "probe_auc": state}})
    assert ("Words alone tell the need nearly as well as the model's state: on TEST a bag of words" in found) == told
    assert (f"has an AUC of {words:.3f}, the probe {state:.3f}" in found) == told


@pytest.mark.parametrize(("again", "told"), [(0.38, True), (0.5, False), (1.0, False), ("often", False)])
def test_a_choice_that_is_not_settled_is_told(again: Any, told: bool) -> None:
    found = spots(valid={"chosen_again": again})
    assert ("Its setting is not settled: it is chosen again in 38 % of resamples, so that" in found) == told


def test_an_adapter_that_abstains_is_not_blamed_for_a_gate_that_does_nothing() -> None:
    gates = {"rows": 40, "lost": 20, "won": 0, "left_out": 0, "right": 0.5, "given_right": 1.0, "called": 0.5}
    report = Report.read(
        {
            "valid": {"chosen_again": 0.1},
            "evaluations": {"test": {"base": metrics(0.0), "asa": metrics(0.0)}},
            "variations": {"test": {"wrapped": gates | {"given_called": 0.5}}},
        }
    )
    told = ("With tools that are wrapped otherwise", "Its setting is not settled", "Hardly any of its calls")
    acting, silent = ("\n".join(weaknesses(replace(CONFIG, alpha=alpha), report)) for alpha in (1.0, 0.0))
    assert all(spot in acting for spot in told)
    assert not any(spot in silent for spot in told)


@pytest.mark.parametrize(("share", "told"), [(0.47, "47 %"), (0.1, None), (None, None)])
def test_one_answer_in_place_of_many_calls_is_told(share: float | None, told: str | None) -> None:
    steered = metrics(0.95)
    steered["validity"] |= {} if share is None else {"one_answer": share}
    found = spots(evaluations={"test": {"base": metrics(0.95), "asa": steered}})
    words = f"{told} of the TEST prompts whose call is gone get one and the same answer, which may be a refusal."
    assert (words in found) == (told is not None)


@pytest.mark.parametrize(("same", "told"), [(0.9, "10 %"), (0.95, None), (None, None)])
def test_a_push_that_changes_which_tool_is_called_is_told(same: float | None, told: str | None) -> None:
    steered = metrics(0.95)
    steered["validity"] |= {} if same is None else {"same_tool": same}
    found = spots(evaluations={"test": {"base": metrics(0.95), "asa": steered}})
    words = f"of the TEST prompts that get a call without it too, {told} get one of another tool. Compare some before"
    assert (words in found) == (told is not None)
    assert ("The push changes more than whether a call begins" in found) == (told is not None)


def test_calls_of_which_hardly_any_can_be_used_are_told_first_among_calls() -> None:
    found = spots(evaluations={"test": {"base": metrics(0.05), "asa": metrics(0.0)}})
    assert "Hardly any of its calls can be used: 0.000 of those on TEST were needed" in found
    assert "(0.050 of the model's alone). Look at what it calls before you use it." in found
    assert "A call that begins is not yet a good call" not in found
    some = spots(evaluations={"test": {"base": metrics(0.05), "asa": metrics(0.5) | {"precision": 0.6}}})
    assert "not yet a good call" not in spots(
        evaluations={"test": {"base": metrics(0.05), "asa": metrics(0.5) | {"precision": 0.5}}}
    )
    assert "A call that begins is not yet a good call: 0.500 of those on TEST" in some
