"""Simpler rules beside steering, as a table and one sentence."""

from typing import Any

import pytest

from asa_adapter.evaluation.metrics import trigger_metrics
from asa_adapter.report import Report
from asa_adapter.summary.comparison_in_words import rules_markdown, rules_verdict

LABELS = [1, 1, 1, 0, 0, 0]
CHECK = {"format": True, "tool_name": True, "arguments": False}


def row(triggered: list[int], **more: Any) -> dict[str, Any]:
    metrics = trigger_metrics(LABELS, triggered, None, [CHECK] * 6) | {"gold": {"n": 6, "match": 0.5, "in_order": 0.5}}
    cost = {"read": 212.1, "written": 16.6, "milliseconds": 41.2}
    return {"metrics": metrics, "valid": 0.7, "choice": "", "cost": cost, **more}


def sure(low: float, high: float) -> dict[str, Any]:
    return {"intervals": {"gain": {"f1": [low, high]}}, "mcnemar_p": 0.0312}


def rules(low: float = -0.01, high: float = 0.05, **changes: Any) -> dict[str, Any]:
    found = {
        "rows": {
            "base": row([1, 0, 0, 1, 0, 0]),
            "words": row([1, 1, 0, 0, 0, 0], choice="threshold 0.4 | <b>", against_base=sure(0.1, 0.4)),
            "steering": row([1, 1, 1, 1, 0, 0], against_base=sure(0.2, 0.5)),
        },
        "left_out": {"ask_first": "no *such* token"},
        "best": "words",
        "steering_against_best": sure(low, high),
        **changes,
    }
    return dict(Report.read({"rules": found}).rules)


def test_each_row_has_gain_test_validity_and_cost() -> None:
    lines = (rules_markdown(rules()) or "").splitlines()
    rest = "1.000 | 1.000 | 0.000 | 0.000 | 0.500 | 212 | 17 | 41 |"
    assert lines[2:5] == [
        f"| the model alone | 0.400 | | | 0.333 | {rest}",
        f"| `words` | 0.800 | +0.100 to +0.400 | 0.031 | 0.000 | {rest}",
        f"| with ASA | 0.857 | +0.200 to +0.500 | 0.031 | 0.333 | {rest}",
    ]
    assert lines[5:] == [
        "",
        "What VALID chose:",
        "",
        "- `words`: threshold 0.4 \\| \\<b\\>",
        "- `ask_first` was left out: no \\*such\\* token",
    ]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.11, "Steering is worth it here: F1 is 0.857 with it and 0.800 with `words`,"),
        (-0.2, -0.01, "Steering is not worth it here: F1 is 0.857"),
        (-0.01, 0.11, "Steering and a simpler rule are not told apart here: F1 is 0.857"),
    ],
)
def test_one_sentence_says_whether_steering_is_worth_it_whichever_way_it_falls(
    low: float, high: float, said: str
) -> None:
    found = rules_verdict(rules(low, high)) or ""
    assert found.startswith(said)
    assert found.endswith(
        f"(difference +0.057, 95 % {low:+.3f} to {high:+.3f}; of calls that are needed and fit their schema 0.000 and "
        "0.000; FPR 0.333 and 0.000)."
    )


def test_where_successful_calls_are_lost_steering_is_not_worth_it_whatever_the_triggers_gain() -> None:
    found = rules_verdict(rules(0.01, 0.11, success_gain=[-0.3, -0.1])) or ""
    assert found.startswith("Steering is not worth it here: F1 is 0.857 with it and 0.800")
    assert "fit their schema 0.000 and 0.000, -0.300 to -0.100; FPR" in found
    assert (rules_verdict(rules(0.01, 0.11, success_gain=[-0.3, 0.1])) or "").startswith("Steering is worth it here")


@pytest.mark.parametrize("broken", [{"best": "soft"}, {"best": 3}, {"steering_against_best": {}}, {"rows": {}}])
def test_nothing_is_said_of_what_a_report_does_not_hold(broken: dict[str, Any]) -> None:
    assert rules_verdict(rules(**broken)) is None


def test_without_rows_there_is_no_table_and_a_row_may_lack_what_was_not_measured() -> None:
    assert rules_markdown({}) is None
    bare = {"rows": {"x": {"metrics": trigger_metrics(LABELS, LABELS)}, "y": {"valid": 1.0}}}
    found = rules_markdown(Report.read({"rules": bare}).rules) or ""
    assert found.splitlines()[2:] == ["| `x` | 1.000 | | | 0.000 | | | | | | | | |"]
