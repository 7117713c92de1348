"""How a gate bears other lists of tools, and when such lists are fitted on."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.data.prompt_landmarks import tools_digest
from asa_adapter.report_schema import VARIATIONS
from asa_adapter.states import HiddenStates
from asa_adapter.training.robustness import Robustness, compared_gates


@pytest.fixture(scope="module")
def rows(splits: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: list(some)[::8] for name, some in splits.items()}


def trainer(tiny_lfm2: Any, rows: Any, **changes: Any) -> ASATrainer:
    made = ASATrainer(*tiny_lfm2, rows, ASATrainingArguments(**{"progress": False, "Cs": (0.01,), **changes}))
    made._measured.begin(None)
    return made


def robustness(made: ASATrainer) -> Robustness:
    return Robustness(made._measured, made.args, made.tools)


def test_gates_are_compared_with_those_of_the_same_rows_as_given() -> None:
    called, right, was_called, was_right = np.array(
        [[1, 1, 0, 0, 0], [1, 0, 0, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1]], dtype=bool
    )
    assert compared_gates(called, right, was_called, was_right) == {
        "rows": 5, "right": 0.4, "given_right": 0.8, "called": 0.4, "given_called": 0.8, "lost": 3, "won": 1,
    }  # fmt: skip


def test_every_variation_of_a_split_is_measured_with_the_adapters_own_gate(
    tiny_lfm2: Any, rows: Any, tiny_adapter: Any
) -> None:
    made = trainer(tiny_lfm2, rows)
    found = robustness(made).measure("valid", tiny_adapter)
    assert list(found) == list(VARIATIONS)
    states = made._measured.states("valid").states[6]
    gates = np.array([decision.gate == 1 for decision in tiny_adapter.decide(states)])
    right = gates == made._measured.labels("valid")
    assert found["wrapped"]["rows"] == len(rows["valid"])
    assert found["wrapped"]["given_right"] == pytest.approx(right.mean())
    without, labels = found["without"], made._measured.labels("valid-without")
    assert without["rows"] == len(labels) == sum(row["label"] and len(row["tools"]) > 1 for row in rows["valid"])
    assert not labels.any()
    assert without["right"] == pytest.approx(1 - without["called"])
    assert without["given_right"] == without["given_called"] > without["called"]
    assert all(part["left_out"] == 0 for part in found.values())
    p_tool = np.array([decision.p_tool for decision in tiny_adapter.decide(states)])
    counts = robustness(made).by_label("valid", tiny_adapter)
    assert sum(map(sum, counts.values())) == len(rows["valid"])
    for label, some in ((1, counts["needed"]), (0, counts["not_needed"])):
        own = p_tool[made._measured.labels("valid") == label]
        assert some == [int(((own >= i / 20) & (own < (i + 1) / 20)).sum()) for i in range(20)]


def test_an_abstaining_adapter_is_measured_by_its_probe(tiny_lfm2: Any, rows: Any, tiny_adapter: Any) -> None:
    parts = tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes
    silent = ASAAdapter(replace(tiny_adapter.config, alpha=0.0), *parts)
    measure = robustness(trainer(tiny_lfm2, rows)).measure
    assert measure("valid", silent) == measure("valid", tiny_adapter)


def test_rows_that_cannot_be_rendered_are_left_out_and_said(tiny_lfm2: Any, rows: Any, tiny_adapter: Any) -> None:
    model, tokenizer = tiny_lfm2
    refusing = "{% if tools and tools[0].function is defined %}{{ raise_exception('bare tools only') }}{% endif %}"
    made = ASATrainer(
        model, tokenizer, rows, ASATrainingArguments(progress=False, chat_template=refusing + tokenizer.chat_template)
    )
    made._measured.begin(None)
    measured = robustness(made)
    found = measured.measure("valid", tiny_adapter)
    assert "wrapped" not in found
    assert found["shuffled"]["left_out"] == 0
    assert measured._left_out["valid-wrapped"] == len(rows["valid"])


@pytest.mark.parametrize(("lost", "fitted"), [(0.009, True), (0.011, False)])
def test_other_lists_are_not_fitted_on_where_probes_would_lose_by_it_with_tools_as_given(
    tiny_lfm2: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, lost: float, fitted: bool
) -> None:
    measured = robustness(trainer(tiny_lfm2, rows))
    monkeypatch.setattr(measured, "_losses", lambda *best: {"without": 0.2})
    monkeypatch.setattr(measured, "_lost_as_given", lambda *best: lost)
    facts = measured.settle([6])
    assert (facts["fitted"], "rows" in facts, bool(measured.fitted_on)) == (fitted, fitted, fitted)
    assert ("; but fitted on such rows they would lose 0.011 with tools as given" in facts["why"]) != fitted


def test_what_is_lost_with_tools_as_given_is_balanced_accuracy_on_valid(
    tiny_lfm2: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Varied rows that say the contrary of those as given, and many times each, turn the probe around."""
    made = trainer(tiny_lfm2, rows, vary_tools=True)
    measured, found = made._measured, robustness(made)
    found.settle([6])

    def states(split: str) -> HiddenStates:
        labels = torch.from_numpy(measured.labels(split)).float()
        told = labels if split in ("cal", "train", "valid") else 1 - labels
        return HiddenStates(torch.stack([told, told, told], dim=1)[None])

    monkeypatch.setattr(measured, "states", states)
    best: Any = found._best_reading([0])
    assert found._lost_as_given(*best) == 0.0
    found.fitted_on = ("cal-varied", "train-varied") * 20
    assert found._lost_as_given(*best) == 1.0


@pytest.mark.parametrize(("loss", "fitted"), [(0.031, True), (0.029, False)])
def test_other_lists_are_fitted_on_where_probes_lose_more_than_three_hundredths(
    tiny_lfm2: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, loss: float, fitted: bool
) -> None:
    measured = robustness(trainer(tiny_lfm2, rows))
    monkeypatch.setattr(measured, "_losses", lambda *best: {"shuffled": -0.01, "wrapped": loss})
    monkeypatch.setattr(measured, "_lost_as_given", lambda *best: 0.0)
    facts = measured.settle([6])
    assert facts["fitted"] is fitted
    assert facts["why"] == (f"probes on VALID lose at most {loss:.3f} of their balanced accuracy, with tools wrapped")
    assert measured.fitted_on == (("cal-varied", "train-varied") if fitted else ())


def test_losses_are_what_a_probe_loses_of_its_balanced_accuracy(
    tiny_lfm2: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States that tell the label of rows as given, and nothing of others."""
    made = trainer(tiny_lfm2, rows)
    measured = made._measured
    generator = torch.Generator().manual_seed(0)

    def states(split: str) -> HiddenStates:
        labels = torch.from_numpy(measured.labels(split)).float()
        noise = torch.randn(1, len(labels), 3, generator=generator) * 0.1
        told = labels if split in ("cal", "train", "valid") else torch.zeros_like(labels)
        noise[0, :, 0] += told
        return HiddenStates(noise)

    monkeypatch.setattr(measured, "states", states)
    found = robustness(made)
    best: Any = found._best_reading([0])
    losses = found._losses(*best)
    assert losses == {"shuffled": 0.5, "thinned": 0.5, "wrapped": 0.5, "without": 0.0}


@pytest.mark.parametrize(("asked", "why"), [(True, "asked for"), (False, "ruled out by vary_tools=False")])
def test_what_is_asked_for_is_done(tiny_lfm2: Any, rows: Any, asked: bool, why: str) -> None:
    made = trainer(tiny_lfm2, rows, vary_tools=asked)
    measured = robustness(made)
    facts = measured.settle([6])
    assert (facts["fitted"], facts["why"], facts["losses"]) == (asked, why, {})
    assert measured.fitted_on == (("cal-varied", "train-varied") if asked else ())
    if asked:
        lost = sum(
            int(rows[split][i]["label"]) - int(row["label"])
            for split in ("cal", "train")
            for i, row in zip(
                made._measured.sources(f"{split}-varied"), made._measured.rows(f"{split}-varied"), strict=True
            )
        )
        assert facts["taken_away"] == lost > 0
        assert facts["rows"] == 40


def test_the_config_knows_the_lists_that_were_fitted_on(tiny_lfm2: Any, rows: Any) -> None:
    made = trainer(tiny_lfm2, rows, vary_tools=True)
    measured = robustness(made)
    measured.settle([6])
    found = measured.landmarks(made.tokenizer)
    varied = made._measured.rows("train-varied")
    wrapped = next(row["tools"] for row in varied if "function" in row["tools"][0])
    assert tools_digest(wrapped) in found["tool_lists"]
    assert tools_digest(rows["cal"][0]["tools"]) in found["tool_lists"]
    assert found["tools_marks"]
