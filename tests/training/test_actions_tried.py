"""Which action a training ships, and what its report says of the others."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.evaluation.metrics import trigger_metrics

pytestmark = pytest.mark.slow


def trained_with(actions: Any, tiny_lfm2: Any, small: Any, shared: Any) -> tuple[ASATrainer, ASAAdapter]:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**shared, actions=actions))
    return trainer, trainer.train()


def test_by_default_the_push_ships_and_the_report_says_what_the_others_would_reach(
    tiny_lfm2: Any, small: Any, shared: Any
) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**{**shared, "layers": (6,)}))
    adapter = trainer.train()
    assert adapter.config.action == "steer"
    assert {finalist.get("action", "steer") for finalist in trainer.report["valid"]["finalists"]} == {"steer"}
    told = trainer.report["actions"]
    assert (set(told["train"]), set(told["valid"])) == ({"steer", "force", "bias", "both"}, {"force", "bias", "both"})
    assert told["train"]["steer"]["layer"] == trainer.report["screen"]["best_of_each_layer"][0]["layer"]
    # Forced by the gate is what the gate alone says, on VALID too; and it is what generation gives.
    forced = told["valid"]["force"]
    assert (forced["action"], forced["bias"], forced["tau"]) == ("bias", "inf", 0.5)
    judged = adapter.for_split("valid")
    by_its_probe = replace(judged.config, probe=forced["probe"], tau=0.5)
    gated = ASAAdapter(by_its_probe, judged.vectors, judged.router, judged.probes)
    states = trainer._measured.labelled("valid", 6).states
    gates = np.array([decision.p_tool >= 0.5 for decision in gated.decide(states)])
    labels = trainer._measured.labels("valid")
    assert forced["f1"] == pytest.approx(trigger_metrics(labels, gates)["f1"])
    generated = trainer.evaluate("valid", adapter=gated.with_action("bias", math.inf))["asa"]
    assert generated["f1"] == pytest.approx(forced["f1"])


def test_the_adapter_knows_the_openings_without_a_tokenizer(
    trained: tuple[ASATrainer, ASAAdapter], tiny_lfm2: Any, tmp_path: Any
) -> None:
    adapter = trained[1]
    assert adapter.config.opening_ids == adapter.parser(tiny_lfm2[1]).opening_ids(tiny_lfm2[1])
    folder = adapter.with_action("both", math.inf).save_pretrained(tmp_path)
    loaded = ASAAdapter.from_pretrained(folder)
    assert (loaded.config.action, loaded.config.bias) == ("both", math.inf)
    with loaded.attach(tiny_lfm2[0]) as steering:
        assert (steering.action, steering.bias) == ("both", math.inf)


def test_with_all_actions_valid_decides_by_generation_and_the_push_is_taken_on_ties(
    trained: tuple[ASATrainer, ASAAdapter], tiny_lfm2: Any, small: Any, shared: Any
) -> None:
    trainer, adapter = trained_with("all", tiny_lfm2, small, shared)
    finalists = trainer.report["valid"]["finalists"]
    assert [finalist.get("action", "steer") for finalist in finalists] == ["steer", "steer", "bias", "bias", "both"]
    assert {str(finalist.get("bias")) for finalist in finalists} >= {"None", "inf"}
    assert min(finalist["screen_agreement"] for finalist in finalists) >= 0.95
    best = max(finalist["score"] for finalist in finalists)
    near = [f.get("action", "steer") for f in finalists if best - f["score"] <= f["standard_error"]]
    assert "steer" in near
    assert adapter.config.action == "steer"
    assert adapter.digest() == trained[1].digest()


def test_a_training_without_the_push_ships_a_bias(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    trainer, adapter = trained_with(("bias",), tiny_lfm2, small, shared)
    assert {finalist["action"] for finalist in trainer.report["valid"]["finalists"]} == {"bias"}
    chosen = trainer.report["chosen"]
    assert (adapter.config.action, adapter.config.step, chosen["abstains"]) == ("bias", 0.0, False)
    assert adapter.config.bias == (math.inf if chosen["bias"] == "inf" else chosen["bias"])
    assert chosen["why"].startswith(
        f"a bias of {adapter.config.bias:g} on the logits with which calls begin: the gentle"
    )
    assert chosen["valid"]["f1"] > trainer.report["valid"]["base"]["f1"] + 0.2


@pytest.mark.filterwarnings("ignore:.*max_new_tokens")  # four tokens are no whole answer,
@pytest.mark.filterwarnings("ignore:With this adapter the model calls tools better")  # and no call of them is whole
def test_where_no_push_moves_anything_valid_decides_about_the_logits_alone(tiny_lfm2: Any, small: Any) -> None:
    options = {**SMALL, "layers": (6,), "alphas": (0.5,), "Cs": (0.01,), "max_new_tokens": 4, "actions": "all"}
    options |= {"tool_call_format": "hermes", "tool_call_start": "<|im_start|>"}
    fewer = {name: rows[::2] for name, rows in small.items()}
    trainer = ASATrainer(*tiny_lfm2, fewer, ASATrainingArguments(**options))
    with pytest.warns(UserWarning, match="VALID decides about the logits of the opening alone: forcing or forbidding"):
        adapter = trainer.train()
    finalists = trainer.report["valid"]["finalists"]
    assert {finalist["action"] for finalist in finalists} == {"bias"}
    assert adapter.config.action == "bias"
    assert trainer.report["chosen"]["valid"]["f1"] > 0.7
