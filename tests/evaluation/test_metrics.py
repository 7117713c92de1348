import math
from typing import Any

import numpy as np
import pytest

from asa_adapter.choice.intervals import upper_bound
from asa_adapter.evaluation.metrics import auc, gold_metrics, ratio, trigger_metrics
from asa_adapter.summary.markdown import calls_table, explained_calls_table

GOOD = {"format": True, "tool_name": True, "arguments": True}
NAMELESS = {"format": True, "tool_name": False, "arguments": False}
MISFIT = {"format": True, "tool_name": True, "arguments": False}
BROKEN = {"format": False, "tool_name": False, "arguments": False}


def test_counts_and_ratios_of_a_hand_computed_table() -> None:
    # 3 needed and called, 1 needed and not, 2 called in vain, 4 rightly left alone
    labels = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    called = [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert trigger_metrics(labels, called) == {
        "n": 10,
        "tp": 3,
        "fp": 2,
        "fn": 1,
        "tn": 4,
        "precision": 3 / 5,
        "recall": 3 / 4,
        "f1": pytest.approx(2 / 3),
        "accuracy": 7 / 10,
        "fpr": 2 / 6,
    }


@pytest.mark.parametrize(
    ("labels", "called", "nonzero"),
    [
        ([], [], {}),
        ([1, 1], [0, 0], {"n": 2, "fn": 2}),
        ([0, 0], [0, 0], {"n": 2, "tn": 2, "accuracy": 1.0}),
        ([0], [1], {"n": 1, "fp": 1, "fpr": 1.0}),
        ([1], [1], {"n": 1, "tp": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0, "accuracy": 1.0}),
    ],
    ids=["nothing", "never called", "rightly silent", "called in vain", "called rightly"],
)
def test_ratio_without_denominator_is_zero(labels: list[int], called: list[int], nonzero: dict[str, float]) -> None:
    metrics = trigger_metrics(labels, called)
    assert {name: value for name, value in metrics.items() if value} == nonzero
    assert all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values())


def test_numbers_are_plain_python_numbers() -> None:
    metrics = trigger_metrics(np.array([1, 0]), np.array([True, True]), ["a", "b"], [GOOD, BROKEN])
    flat = [*metrics["per_domain"]["a"].values(), *metrics["validity"].values(), metrics["n"], metrics["f1"]]
    assert {type(value) for value in flat} == {int, float}


def test_per_domain_holds_the_same_numbers_of_each_domain() -> None:
    labels, called, domains = [1, 0, 1, 0, 1], [1, 1, 0, 0, 1], ["math", "math", "code", "code", "math"]
    assert trigger_metrics(labels, called, domains)["per_domain"] == {
        "code": trigger_metrics([1, 0], [0, 0]),
        "math": trigger_metrics([1, 0, 1], [1, 1, 1]),
    }


def test_domains_are_sorted() -> None:
    assert list(trigger_metrics([0, 0, 0], [0, 0, 0], ["c", "a", "b"])["per_domain"]) == ["a", "b", "c"]


def test_per_domain_and_validity_are_there_only_when_asked_for() -> None:
    assert not {"per_domain", "validity"} & trigger_metrics([0, 1], [0, 1]).keys()


def test_validity_of_a_hand_computed_table() -> None:
    labels = [1, 1, 1, 1, 0, 0, 1]
    called = [1, 1, 1, 1, 1, 0, 0]
    checks = [GOOD, NAMELESS, MISFIT, BROKEN, GOOD, BROKEN, BROKEN]
    assert trigger_metrics(labels, called, checks=checks)["validity"] == {
        "format": 4 / 5,
        "tool_name": 3 / 5,
        "arguments": 2 / 5,
        "success_precision": 1 / 5,  # the call in the row that needs none is no success
        "success_recall": 1 / 5,
    }


def test_checks_of_rows_that_did_not_trigger_do_not_count() -> None:
    validity = trigger_metrics([1, 1], [1, 0], checks=[BROKEN, GOOD])["validity"]
    assert set(validity.values()) == {0.0}


def test_validity_without_triggers_is_zero() -> None:
    assert set(trigger_metrics([1, 0], [0, 0], checks=[BROKEN, BROKEN])["validity"].values()) == {0.0}


@pytest.mark.parametrize(
    ("arguments", "lengths"),
    [
        (([0, 1], [0]), r"\[1, 2\]"),
        (([0, 1], [0, 1], ["a"]), r"\[1, 2\]"),
        (([0], [0], ["a"], [GOOD, GOOD]), r"\[1, 2\]"),
    ],
    ids=["triggers", "domains", "checks"],
)
def test_differing_lengths_are_refused(arguments: tuple[Any, ...], lengths: str) -> None:
    with pytest.raises(ValueError, match=f"have lengths {lengths}; expected one length"):
        trigger_metrics(*arguments)


@pytest.mark.parametrize("label", [2, -1, 0.5, "1", float("nan"), None], ids=repr)
def test_other_label_is_refused(label: object) -> None:
    with pytest.raises(ValueError, match="labels hold other values than 0 and 1"):
        trigger_metrics(np.array([0, label], dtype=object), [0, 1])


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"), [(1, 4, 0.25), (0, 3, 0.0), (5, 0, 0.0), (0, 0, 0.0)]
)
def test_ratio(numerator: int, denominator: int, expected: float) -> None:
    assert ratio(numerator, denominator) == expected


# --- upper_bound: Wilson's score interval by hand, z = 1.6448536 for 95 % on one side


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "expected"),
    [
        (0, 10, 0.95, 0.2129420),  # z^2 / (10 + z^2)
        (5, 10, 0.95, 0.7307281),  # (.5 + .1352772 + .2931527) / 1.2705543
        (10, 10, 0.95, 1.0),
        (0, 10, 0.975, 0.2775328),  # the upper end of the two-sided 95 % interval, z = 1.9599640
        (9, 80, 0.95, 0.1837158),
        (1, 1, 0.95, 1.0),
        (0, 1000, 0.95, 0.0026982),
    ],
)
def test_wilson_bound_by_hand(successes: int, trials: int, confidence: float, expected: float) -> None:
    assert upper_bound(successes / trials, trials, confidence) == pytest.approx(expected, abs=1e-6)


def test_wilson_bound_without_a_trial_is_one() -> None:
    assert upper_bound(0.0, 0) == 1.0


def test_wilson_bound_is_where_the_score_test_just_rejects() -> None:
    bound = float(upper_bound(7 / 40, 40))
    assert (bound - 7 / 40) / math.sqrt(bound * (1 - bound) / 40) == pytest.approx(1.6448536, abs=1e-6)


# --- auc


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], 1.0),
        ([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4], 0.0),
        ([0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], 0.75),
        ([0, 1, 1, 0], [0.5, 0.5, 0.7, 0.2], 0.875),  # of four pairs three are right and one is tied
        ([0, 1, 0, 1], [3, 3, 3, 3], 0.5),
        ([1, 1], [0.1, 0.9], 0.5),
        ([0, 0], [0.1, 0.9], 0.5),
        ([], [], 0.5),
    ],
    ids=["right", "reversed", "one wrong pair", "one tie", "all tied", "only ones", "only zeros", "nothing"],
)
def test_auc_by_hand(labels: list[int], scores: list[float], expected: float) -> None:
    assert auc(labels, scores) == expected


def test_auc_is_the_share_of_ordered_pairs_with_half_for_ties() -> None:
    generator = np.random.default_rng(7)
    labels, scores = generator.integers(0, 2, 60), generator.integers(0, 9, 60) / 4
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in scores[labels == 1]
        for low in scores[labels == 0]
    ]
    assert auc(labels, scores) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


def test_the_table_of_calls_shows_gold_where_all_have_it() -> None:
    checks = [{"format": True, "tool_name": True, "arguments": False}] * 2
    metrics = trigger_metrics([1, 0], [True, False], checks=checks)
    lines = calls_table({"base": metrics}).splitlines()
    assert lines[0] == "| calls | format | tool_name | arguments | success_precision | success_recall |"
    assert lines[2] == "| base | 1.000 | 1.000 | 0.000 | 0.000 | 0.000 |"
    with_gold = {**metrics, "gold": gold_metrics([(True, False), (False, False)])}
    assert calls_table({"base": with_gold}).splitlines()[2].endswith(" | 0.000 | 0.500 |")
    assert "gold" not in calls_table({"base": with_gold, "asa": metrics})
    told = explained_calls_table({"base": metrics}).splitlines()
    assert told[: len(lines)] == lines
    assert told[len(lines)].startswith("Shares of the calls: format, can be read; tool_name, of an offered tool too;")
    cut = calls_table({"base": {**metrics, "cut_share": 0.25}}).splitlines()
    assert cut[0].endswith(" | success_recall | cut |")
    assert cut[2].endswith(" | 0.000 | 0.250 |")


def test_no_row_with_gold_calls_is_no_division_by_zero() -> None:
    assert gold_metrics([]) == {"n": 0, "match": 0.0, "in_order": 0.0}


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="a score is NaN; expected numbers that can be ranked"):
        auc([0, 1, 1], [float("nan"), 0.2, 0.3])


def test_without_results_the_table_of_calls_is_its_head() -> None:
    names = "format | tool_name | arguments | success_precision | success_recall | gold"
    assert calls_table({}).splitlines()[0] == f"| calls | {names} |"
