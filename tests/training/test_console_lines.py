"""What a training says while it works: what it understood, and one line for each stage."""

import re
from typing import Any

import pytest
from trainings import SMALL

from asa_adapter import ASATrainer, ASATrainingArguments
from asa_adapter.training.console_lines import (
    evaluation_line,
    lines_before_training,
    robustness_line,
    stage_line,
)
from asa_adapter.training.workload import seconds_of_a_token


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "object", "properties": {}}}


def rows(labels: list[int], **more: Any) -> list[dict[str, Any]]:
    return [{"instruction": "a", "label": label, **more} for label in labels]


def test_what_was_understood_is_told_a_line_each() -> None:
    splits = {
        "cal": rows([0, 1, 1], domain="lights", tools=[tool("lamp")]),
        "train": rows([0, 1], domain="music"),
        "valid": rows([0], domain="music"),
        "test": rows([1], domain="music", tools=[]),
    }
    notes = {"splits": "made here of my.csv"}
    args = ASATrainingArguments(alphas=(0.0, 1.0), taus=(0.5,), betas=(1.0,), read_layers=(1,), probes=("pooled",))
    assert lines_before_training(splits, notes, [tool("player")], args, [3, 4], 150.0) == [
        "rows      7, of which 4 need a tool: cal 3 (2), train 2 (1), valid 1 (0), test 1 (1)",
        "splits    made here of my.csv",
        "domains   2: music 4, lights 3",
        "tools     lamp, player (4 rows have their own; 3 rows take those that were given; 1 rows offer none)",
        "settings  2 at 2 layers, ranked by f1 of first tokens on TRAIN; the best 4 answer VALID, which decides, with "
        "up to 64 tokens",
        "time      2 min 30 s to 5 min 0 s if little else runs here; TEST comes on top (a rough estimate)",
    ]


def test_many_names_are_counted_and_not_all_told() -> None:
    splits = {"cal": [row for i in range(11) for row in rows([0], domain=f"d{i:02}", tools=[tool(f"t{i}")])]}
    lines = lines_before_training(splits, {"tools": "those of tools.json"}, None, ASATrainingArguments(), [0], 1.0)
    assert lines[2] == "domains   11: d00 1, d01 1, d02 1, d03 1, d04 1, d05 1, d06 1, d07 1 and 3 more"
    assert lines[3].endswith("t6, t7 and 3 more (those of tools.json)")


def test_a_router_that_was_left_out_and_a_fit_without_hope_are_told() -> None:
    layers = {"2": {"out_of_fold_auc": 0.6, "router_accuracy": 0.3}, "3": {"probe_auc": 0.5, "blind": True}}
    report = {"layers": layers, "domains": ["general"], "router_left_out": "why"}
    assert stage_line("fit", report, 1.25) == (
        "4 of 7, router and probes: layer 2 reads the need best (AUC 0.600; 0.5 is chance); domains cannot be told "
        "apart, so there is one; 1.2 s"
    )
    hopeless = {"chosen": {"layer": 2, "alpha": 0.0, "tau": 0.5}, "valid": {}}
    assert stage_line("generation", hopeless, 0.0) == (
        "6 of 7, whole answers on VALID: none were needed: it does nothing (it abstains), and the model stays as it "
        "is; 0.0 s"
    )


def test_the_line_about_test_says_what_was_reached() -> None:
    results = {"base": {"f1": 0.6667, "fpr": 0.775}, "asa": {"f1": 0.8167, "fpr": 0.3312}}
    assert stage_line("evaluation (test)", {}, 3.0, [evaluation_line(results)]) == (
        "whole answers on TEST: F1 0.667 alone, 0.817 with the adapter; of the prompts without need 78 % get a call "
        "alone, 33 % with it; 3.0 s"
    )


def test_the_line_about_other_lists_of_tools_names_the_worst() -> None:
    found = {"shuffled": {"right": 0.8, "given_right": 0.85}, "without": {"right": 0.61, "given_right": 0.8}}
    assert stage_line("variations (valid)", {}, 1.0, [robustness_line(found)]) == (
        "the gate beside other lists of tools on VALID: right on 61 % with tools without the needed one, where it "
        "loses most; on 80 % of these as given; 1.0 s"
    )
    assert robustness_line({}) == "no list of tools could be varied"


@pytest.mark.parametrize(
    ("abstains", "told"),
    [
        (
            False,
            "layer 2, a push of 1 x the norm, for or against a call on every prompt; F1 0.700, the model alone 0.500; "
            "then fitted once more with VALID's rows",
        ),
        (True, "it does nothing (it abstains), and the model stays as it is; the best of 2 settings reached F1 0.800, "
         "the model alone 0.500"),
    ],
)  # fmt: skip
def test_the_line_about_valid_says_what_was_reached(abstains: bool, told: str) -> None:
    chosen = {"layer": 2, "alpha": 0.0 if abstains else 1.0, "tau": 0.5, "abstains": abstains, "valid": {"f1": 0.7}}
    report = {"chosen": chosen, "valid": {"base": {"f1": 0.5}, "finalists": [{"f1": 0.7}, {"f1": 0.8}]}}
    report["refit"] = {"rows": 800}
    assert stage_line("generation", report, 1.0) == f"6 of 7, whole answers on VALID: {told}; 1.0 s"


def test_a_token_takes_the_time_of_a_batch_where_that_is_fast(tiny_lfm2: Any) -> None:
    prompts = [[1, 5, 9, 7]] * 6
    assert 0 < seconds_of_a_token(tiny_lfm2[0], prompts, 0, 4, None) < 1


@pytest.mark.slow
def test_each_stage_is_one_line_with_its_number_result_and_seconds(
    tiny_lfm2: Any, small: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = {**SMALL, "layers": (6,), "alphas": (1.0,), "taus": (0.5,), "betas": (1.0,), "finalists": 1}
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**{**fast, "progress": True}))
    trainer.train()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("asa-adapter: ")]
    assert [line.split()[1] for line in lines[:6]] == ["rows", "splits", "domains", "tools", "settings", "time"]
    stages = [line for line in lines[6:] if " of 7, " in line]
    assert [int(line.split()[1]) for line in stages] == [1, 2, 3, 4, 5, 6, 7]
    assert all(re.search(r": .+; \d+\.\d s$", line) for line in stages)
    f1 = trainer.report["chosen"]["valid"]["f1"]
    assert (
        f"layer 6, a push of 1 x the norm, for or against a call on every prompt; F1 {f1:.3f}, the model alone"
        in stages[5]
    )
