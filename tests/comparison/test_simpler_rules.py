"""The simpler rules on the shipped model: what each does, and that VALID alone chooses."""

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models import WIDTH, fitted_adapter

from asa_adapter import ASATrainingArguments
from asa_adapter.answering.forcing import Forcing
from asa_adapter.choice.settings import Objective
from asa_adapter.comparison.costs import Times, cost
from asa_adapter.comparison.rules_table import ablated_metrics, ablated_with_rules, rules_table
from asa_adapter.comparison.simpler_rules import (
    BIASES,
    RULES,
    NotApplicableError,
    RuleSetup,
    Treatment,
    ask_first,
    sentence,
)
from asa_adapter.comparison.wordings import BEGINNINGS, QUESTION, SENTENCES
from asa_adapter.measurement.known_splits import known_splits
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.report_schema import RATIOS
from asa_adapter.states import HiddenStates

ARGUMENTS = ASATrainingArguments(max_new_tokens=6, batch_size=8, resamples=100, progress=False)
INF = float("inf")


@pytest.fixture(scope="module")
def few(splits: Any) -> dict[str, list[Any]]:
    """Six rows of TEST and eight of the others, of both labels and several domains."""
    counts = {"cal": 8, "train": 8, "valid": 8, "test": 6}
    return {name: list(rows)[:: len(rows) // counts[name]][: counts[name]] for name, rows in splits.items()}


@pytest.fixture(scope="module")
def measured(tiny_lfm2: Any, few: Any, tiny_adapter: Any) -> Measurements:
    """What the model does on these rows; what one test has asked is kept for the others."""
    return Measurements(*tiny_lfm2, few, ARGUMENTS, tiny_adapter.parser(tiny_lfm2[1]), None)


@pytest.fixture
def setup(measured: Measurements, tiny_adapter: Any) -> RuleSetup:
    return RuleSetup(measured, tiny_adapter, Objective("f1"), "test", 0)


@pytest.fixture(scope="module")
def table(measured: Measurements, tiny_adapter: Any) -> dict[str, Any]:
    return rules_table(measured, tiny_adapter, ARGUMENTS, "test")


@pytest.fixture(scope="module", autouse=True)
def _one_timed_request_of_each_label() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asa_adapter.comparison.costs._TIMED", 1)
        yield


def amounts(setup: RuleSetup, rule: str, split: str = "test", candidate: int = 0) -> list[float]:
    variant = RULES[rule](setup)[candidate].treat(split).variant
    assert isinstance(variant, Forcing)
    assert variant.tokens == (setup.measured.evaluation.parser.start_id,)
    return variant.amounts.tolist()


def test_the_gate_of_the_adapter_forces_forbids_or_lets_alone(setup: RuleSetup) -> None:
    gates = setup.gates("test")
    assert set(gates.tolist()) >= {1, -1}
    assert amounts(setup, "force") == [{1: INF, -1: -INF, 0: 0.0}[gate] for gate in gates]
    for i, strength in enumerate(BIASES):
        assert amounts(setup, "bias", candidate=i) == (strength * gates).tolist()


@pytest.mark.parametrize("amount", [INF, BIASES[0]])
def test_forcing_and_biasing_by_the_gate_answer_like_an_adapter_of_that_action(
    setup: RuleSetup, amount: float
) -> None:
    treatment = RULES["force" if amount == INF else "bias"](setup)[0].treat("test")
    own = setup.adapter.with_action("bias", amount, tokenizer=setup.measured.evaluation.tokenizer)
    answers = setup.measured.answers("test", {"rule": treatment.variant, "adapter": own})
    assert answers["rule"] == answers["adapter"]


def test_the_gate_reads_every_layer_that_the_adapter_reads(setup: RuleSetup) -> None:
    adapter = fitted_adapter(read_layers=(1, 2))
    states = 4 * torch.randn(4, 20, WIDTH, generator=torch.Generator().manual_seed(0))
    measured: Any = SimpleNamespace(states=lambda split: HiddenStates(states))
    gates = setup._replace(measured=measured, adapter=adapter).gates("test")
    assert gates.tolist() == [decision.gate for decision in adapter.decide(states[[1, 2]])]


def test_an_answer_begins_with_what_the_gate_says(setup: RuleSetup) -> None:
    gates = setup.gates("test")
    for candidate, (up, down) in zip(RULES["soft"](setup), BEGINNINGS, strict=True):
        [answers] = candidate.treat("test").measured.answers("test", {"base": None}).values()
        assert [text.startswith((up, down)) for text in answers] == (gates != 0).tolist()
        assert all(answers[i].startswith(up) for i in np.flatnonzero(gates > 0))


def test_a_sentence_stands_in_the_system_turn_of_every_prompt(setup: RuleSetup) -> None:
    for candidate, text in zip(RULES["sentence"](setup), SENTENCES, strict=True):
        assert candidate.choice == f"in the system turn: {text}"
        row = candidate.treat("test").measured.rows("test")[0]
        assert [turn["role"] for turn in row["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("wrong", "where"), [("'system'", "in the user turn"), ("'system', 'user'", None)], ids=["system", "both"]
)
def test_where_the_template_shows_no_system_turn_the_user_says_it(
    setup: RuleSetup, monkeypatch: pytest.MonkeyPatch, wrong: str, where: str | None
) -> None:
    tokenizer = setup.measured.evaluation.tokenizer
    template = (
        f"{{% set messages = messages | rejectattr('role', 'in', [{wrong}]) | list %}}" + tokenizer.chat_template
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    if where is None:
        with pytest.raises(NotApplicableError, match="neither in a system turn nor in a user turn"):
            sentence(setup)
    else:
        assert sentence(setup)[0].choice.startswith(where)


def test_thresholds_are_chosen_on_valid_alone_and_force_or_forbid(setup: RuleSetup) -> None:
    for rule in ("threshold", "threshold_per_domain", "words", "ask_first"):
        found = amounts(setup, rule)
        assert set(found) <= {INF, -INF}
    p_open = setup.measured.first_tokens("test", []).probability[0]
    limit = float(RULES["threshold"](setup)[0].choice.split()[1])
    assert amounts(setup, "threshold") == [INF if p > limit else -INF for p in p_open]


def test_the_question_is_asked_before_and_a_tokenizer_that_cannot_tell_yes_from_no_is_refused(
    setup: RuleSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ask_first(setup)[0].treat("test").before
    assert before is not None
    assert before.rows("test")[0]["messages"][-1]["content"].endswith(QUESTION)
    monkeypatch.setattr("asa_adapter.comparison.simpler_rules.YES", ("No",))
    monkeypatch.setattr("asa_adapter.comparison.simpler_rules.NO", ("No",))
    with pytest.raises(NotApplicableError, match="begins Yes and No with the same token"):
        ask_first(setup)


def test_the_table_has_every_rule_measured_and_compared_with_the_bare_model(table: Any) -> None:
    assert list(table["rows"]) == ["base", *RULES, "steering"]
    assert table["left_out"] == {}
    for name, row in table["rows"].items():
        assert row["metrics"]["n"] == 6
        assert row["cost"]["read"] > 100
        assert 0 < row["cost"]["written"] <= 20
        assert row["cost"]["milliseconds"] > 0
        assert ("against_base" in row) == (name != "base")
    rows = table["rows"]
    assert rows["ask_first"]["cost"]["read"] > 2 * rows["base"]["cost"]["read"]
    assert rows["sentence"]["cost"]["read"] > rows["base"]["cost"]["read"]
    assert rows["force"]["against_base"]["intervals"]["base"] == rows["steering"]["against_base"]["intervals"]["base"]


def test_the_rule_to_beat_is_the_best_on_valid_and_is_paired_with_steering(table: Any) -> None:
    rows = table["rows"]
    assert rows[table["best"]]["valid"] == max(rows[name]["valid"] for name in RULES)
    paired = table["steering_against_best"]
    assert set(paired["intervals"]["gain"]) == set(RATIOS)
    assert paired["intervals"]["base"] == rows[table["best"]]["against_base"]["intervals"]["asa"]
    low, high = table["success_gain"]
    assert -1 <= low <= high <= 1
    assert paired["intervals"]["asa"] == rows["steering"]["against_base"]["intervals"]["asa"]


def test_test_decides_nothing(measured: Measurements, few: Any, tiny_adapter: Any, table: Any) -> None:
    """With the labels of TEST turned round, every choice stays what it was."""
    turned = measured.changed(lambda row: {**row, "label": 1 - row["label"]} if row in few["test"] else row)
    other = rules_table(turned, tiny_adapter, ARGUMENTS, "test")
    assert {n: (row["choice"], row["valid"]) for n, row in other["rows"].items()} == {
        n: (row["choice"], row["valid"]) for n, row in table["rows"].items()
    }
    assert other["best"] == table["best"]
    assert other["rows"]["force"]["metrics"]["tp"] == table["rows"]["force"]["metrics"]["fp"]


def test_a_rule_that_cannot_be_tried_is_left_out_with_its_reason(
    measured: Measurements, tiny_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = measured.changed(lambda row: {**row, "domain": "code"})
    monkeypatch.setattr(
        "asa_adapter.comparison.rules_table.RULES", {name: RULES[name] for name in ("threshold_per_domain", "force")}
    )
    found = rules_table(one, tiny_adapter, ARGUMENTS, "test")
    assert found["left_out"] == {"threshold_per_domain": "there is one domain only"}
    assert list(found["rows"]) == ["base", "force", "steering"]


def test_what_was_answered_is_kept_and_not_asked_again(
    tiny_lfm2: Any, few: Any, tiny_adapter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asa_adapter.comparison.rules_table.RULES", {name: RULES[name] for name in ("soft", "bias")})

    def run() -> dict[str, Any]:
        measured = Measurements(*tiny_lfm2, few, ARGUMENTS, tiny_adapter.parser(tiny_lfm2[1]), None)
        measured.begin(tmp_path)
        found = rules_table(measured, tiny_adapter, ARGUMENTS, "test")
        for row in found["rows"].values():
            del row["cost"]["milliseconds"]
        return found

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the model was asked again")

    first = run()
    monkeypatch.setattr("asa_adapter.evaluation.answers.Evaluation.answers_of_each", refuse)
    monkeypatch.setattr("asa_adapter.measurement.measurements.collect_hidden_states", refuse)
    assert run() == first


def test_variants_and_rules_together_are_those_apart(measured: Measurements, tiny_adapter: Any, table: Any) -> None:
    variants, rules = ablated_with_rules(measured, tiny_adapter, "test", ARGUMENTS)
    assert variants == ablated_metrics(measured, tiny_adapter, "test", ARGUMENTS)
    for found in (rules, table):
        for row in found["rows"].values():
            row["cost"].pop("milliseconds", None)
    assert rules == table


def test_the_same_answer_to_the_same_prompt_is_timed_once(
    measured: Measurements, tiny_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[list[int]] = []

    def seconds(_measured: Any, _variant: Any, rows: list[int], _asked: Any) -> list[float]:
        timed.append(rows)
        return [0.5] * len(rows)

    monkeypatch.setattr("asa_adapter.comparison.costs._seconds_to_answer", seconds)
    answers = measured.answers("test", {"base": None})["base"]
    times = Times()
    bare, forced = Treatment(measured), Treatment(measured, Forcing((4,), np.zeros(len(answers), dtype=np.float32)))
    assert cost(bare, "test", answers, times) == cost(forced, "test", answers, times)
    assert len(timed) == 1  # it is the same work
    cost(Treatment(measured, tiny_adapter), "test", answers, times)
    cost(bare, "test", ["other", *answers[1:]], times)
    assert len(timed) == 3


def test_on_valid_the_gates_are_those_of_the_fit_that_was_judged_there(
    measured: Measurements, tiny_adapter: Any
) -> None:
    shipped, judged = copy.copy(tiny_adapter), copy.copy(tiny_adapter)
    judged._controller = judged._controller.changed(gates=(1, 1))
    shipped.judged = judged
    setup = RuleSetup(measured, shipped, Objective("f1"), "test", 0)
    assert setup.gates("valid").tolist() == [1] * len(measured.rows("valid"))
    plain = RuleSetup(measured, tiny_adapter, Objective("f1"), "test", 0)
    assert setup.gates("test").tolist() == plain.gates("test").tolist()


def test_rules_are_fitted_on_the_rows_that_the_adapter_knows(tiny_adapter: Any) -> None:
    refitted = copy.copy(tiny_adapter)
    refitted.judged = tiny_adapter
    assert known_splits(tiny_adapter, "test") == known_splits(refitted, "valid") == ("cal", "train")
    assert known_splits(refitted, "test") == ("cal", "train", "valid")
