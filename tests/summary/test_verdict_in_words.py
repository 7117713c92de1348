"""The one sentence on whether to use an adapter."""

from typing import Any

import pytest

from asa_adapter.evaluation.metrics import trigger_metrics
from asa_adapter.report import Report
from asa_adapter.summary.verdict_in_words import verdict_in_words

LABELS = [1] * 8 + [0] * 8
BASE, ASA = [1] * 4 + [0] * 4 + [1] * 6 + [0] * 2, [1] * 6 + [0] * 2 + [1] * 2 + [0] * 6
COUNTED = "of 8 TEST prompts that need a tool 6 get a call (4 without it), of 8 others 2 (6); F1 0.444 -> 0.750"


def report(f1: list[float] | None, accuracy: list[float] | None, **more: Any) -> Report:
    gain = {name: found for name, found in (("f1", f1), ("accuracy", accuracy)) if found is not None}
    whole = {"precision": [0.0, 1.0], "recall": [0.0, 1.0], "fpr": [0.0, 1.0]}
    intervals = {"base": whole, "asa": whole, "gain": {**whole, **gain}} if gain else {}
    test = {"base": trigger_metrics(LABELS, BASE), "asa": trigger_metrics(LABELS, ASA), "intervals": intervals}
    return Report.read({"evaluations": {"test": test}, **more})


@pytest.mark.parametrize(
    ("f1", "accuracy", "said"),
    [
        (
            [0.1, 0.5],
            [-0.1, 0.4],
            f"Worth using: {COUNTED}, a gain of +0.100 to +0.500 with 95 % confidence.",
        ),
        (
            [-0.1, 0.2],
            [0.05, 0.4],
            f"Worth using: {COUNTED}, in accuracy +0.050 to +0.400 with 95 % confidence.",
        ),
        (
            [-0.1, 0.2],
            [-0.1, 0.1],
            f"Not sure yet: {COUNTED}, a gain of -0.100 to +0.200 with 95 % confidence, which chance alone "
            "may explain.",
        ),
        (
            [-0.3, -0.1],
            [-0.2, -0.1],
            f"Better without it: {COUNTED}, a gain of -0.300 to -0.100 with 95 % confidence.",
        ),
        (None, None, f"Not sure yet: {COUNTED}, whose intervals were not measured."),
    ],
)
def test_the_interval_of_the_gain_on_test_decides(
    f1: list[float] | None, accuracy: list[float] | None, said: str
) -> None:
    assert verdict_in_words(report(f1, accuracy), False) == said


def test_calls_that_do_not_succeed_are_to_be_looked_at_first_but_a_loss_counts_more() -> None:
    valid = {"success_note": "no gain in calls that succeed is sure"}
    good, bad = (report(gain, gain, valid=valid) for gain in ([0.1, 0.5], [-0.5, -0.1]))
    assert str(verdict_in_words(good, False)).startswith("Look at its calls first: of 8 TEST prompts")
    assert str(verdict_in_words(bad, False)).startswith("Better without it: of 8 TEST prompts")


def test_where_more_calls_succeed_on_test_too_the_doubt_of_valid_does_not_lead() -> None:
    valid = {"success_note": "no gain in calls that succeed is sure"}
    for fits, lead in (([True] * 16, "Worth using"), ([False] * 16, "Look at its calls first")):
        checks = [{"format": True, "tool_name": one, "arguments": one} for one in fits]
        test = {"base": trigger_metrics(LABELS, BASE, None, checks), "asa": trigger_metrics(LABELS, ASA, None, checks)}
        gain = {name: [0.1, 0.5] for name in ("f1", "accuracy", "precision", "recall", "fpr")}
        test["intervals"] = {"base": gain, "asa": gain, "gain": gain}
        said = verdict_in_words(Report.read({"evaluations": {"test": test}, "valid": valid}), False)
        assert str(said).startswith(f"{lead}: of 8 TEST prompts")


def test_where_answers_were_looked_at_it_says_how_many_needed_calls_succeed() -> None:
    checks = [{"format": True, "tool_name": i % 2 == 0, "arguments": i % 2 == 0} for i in range(16)]
    test = {"base": trigger_metrics(LABELS, BASE, None, checks), "asa": trigger_metrics(LABELS, ASA, None, checks)}
    said = verdict_in_words(Report.read({"evaluations": {"test": test}}), False)
    assert str(said).endswith(
        "were not measured. 3 of those that need a tool get a call of an offered one that fits its schema "
        "(2 without it)."
    )
    for share, told in ((0.19, False), (0.2, True)):
        test["asa"]["validity"]["one_answer"] = share
        said = verdict_in_words(Report.read({"evaluations": {"test": test}}), False)
        assert (
            str(said).endswith(" 20 % of the prompts whose call is gone get one and the same answer: read it.") == told
        )


def test_one_that_abstains_is_nothing_to_use_whatever_test_says() -> None:
    said = "Nothing to use yet: it abstains, and leaves the model as it is, since no gain on VALID was sure."
    assert verdict_in_words(report([0.1, 0.5], [0.1, 0.5]), True) == said


def test_without_test_there_is_no_verdict() -> None:
    assert verdict_in_words(Report.read({}), False) is None
