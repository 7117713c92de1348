"""A whole training on the shipped model and data, and what comes of it."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from checkout import DATA
from hub import LocalHub
from models import traces
from trainings import SMALL

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.choice.settings import Setting
from asa_adapter.comparison.ablation import ablations
from asa_adapter.data.prompts import chat_template_sha256, with_chat_template
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.hub.card import model_card
from asa_adapter.pictures.report_figures import plots
from asa_adapter.report import Report
from asa_adapter.report_schema import VARIATIONS
from asa_adapter.tool_calls.call_habits import few_of_each_label

# Whole trainings.
pytestmark = pytest.mark.slow


def test_the_adapter_carries_what_it_was_fitted_with(trained: Any, tiny_lfm2: Any, small: Any) -> None:
    _, adapter = trained
    config = adapter.config
    assert config.layer in (4, 6)
    assert config.hidden_size == tiny_lfm2[0].config.hidden_size
    assert config.model_type == "lfm2"
    assert config.base_model == "tiny_lfm2"
    assert (config.tool_call_format, config.tool_call_start) == ("lfm2", "<|tool_call_start|>")
    assert config.chat_template is None
    # Some rows are offered tools of their own; most are offered these.
    assert any(row["tools"] != config.tools for row in small["cal"])
    assert config.tools == json.loads((DATA / "tools.json").read_text(encoding="utf-8"))
    assert config.domains == ("code", "math", "search", "translation")
    assert config.residual_norm == pytest.approx(trained[0].report["layers"][str(config.layer)]["residual_norm"])


def test_prompts_and_format_of_ones_own_are_used_and_stored(tiny_lfm2: Any, small: Any) -> None:
    model, tokenizer = tiny_lfm2
    template = tokenizer.chat_template.replace("List of tools", "Available tools")
    arguments = ASATrainingArguments(
        **{**SMALL, "layers": (6,), "finalists": 1},
        chat_template=template,
        tool_call_format="hermes",
        tool_call_start="<|tool_call_start|>",
    )
    trainer = ASATrainer(model, tokenizer, small, arguments)
    # The model writes LFM2's calls, which nobody can read as Hermes'.
    with pytest.warns(UserWarning, match=r"no gain in calls that succeed is sure: .* from 0\.000 to 0\.000"):
        adapter = trainer.train()
    config = adapter.config
    assert (config.chat_template, config.tool_call_format) == (template, "hermes")
    assert (config.tool_call_start, config.tool_call_end) == ("<|tool_call_start|>", "</tool_call>")
    assert adapter.parser(tokenizer).start == "<|tool_call_start|>"
    assert config.chat_template_sha256 == chat_template_sha256(with_chat_template(tokenizer, template))
    assert "Available tools" not in tokenizer.chat_template
    with pytest.raises(ValueError, match=r"set tokenizer.chat_template = adapter.config.chat_template"):
        trainer._adapter.attach(model, tokenizer=tokenizer)  # type: ignore[union-attr]
    trainer._adapter.attach(model, tokenizer=trainer.tokenizer).remove()  # type: ignore[union-attr]


def test_training_leaves_the_model_as_it_was(trained: Any, tiny_lfm2: Any) -> None:
    assert traces(tiny_lfm2[0]) == []
    assert not any(module.training for module in tiny_lfm2[0].modules())


def test_layers_that_cannot_see_the_request_are_left_out_and_named(trained: Any) -> None:
    report = trained[0].report
    assert report["blind_layers"] == [1]
    assert report["layers"]["1"] == {"probe_auc": 0.5, "blind": True}
    assert sorted(report["layers"]) == ["1", "4", "6"]


def test_intent_is_read_and_the_shuffled_control_is_not(trained: Any) -> None:
    for layer in ("4", "6"):
        facts = trained[0].report["layers"][layer]
        assert facts["probe_auc"] > 0.8
        assert abs(facts["shuffled_auc"] - 0.5) < 0.15


def test_the_choice_is_a_finalist_within_one_standard_error_of_the_best(trained: Any) -> None:
    report = trained[0].report
    finalists, chosen = report["valid"]["finalists"], report["chosen"]
    best = max(finalist["score"] for finalist in finalists)
    (own,) = [f for f in finalists if all(f.get(name) == chosen.get(name) for name in Setting._fields)]
    assert best - own["score"] <= own["standard_error"]
    assert chosen["valid"]["score"] == own["score"] > report["valid"]["base"]["score"]
    assert chosen["abstains"] is False
    assert report["valid"]["gain"]["lower_bound"] > 0
    assert len(finalists) == 2


def test_the_grid_is_ranked_on_train_and_the_screen_agrees_with_generation(trained: Any) -> None:
    report = trained[0].report
    assert report["screen"]["split"] == "train"
    assert report["screen"]["settings"] == 3 * 2 * 2 * 2 * 2  # layer 6 is read alone, and with layer 4
    assert {leader["layer"] for leader in report["screen"]["best_of_each_layer"]} == {4, 6}
    assert [f["layer"] for f in report["valid"]["finalists"]] == [
        leader["layer"] for leader in report["screen"]["best_of_each_layer"]
    ]
    assert all(finalist["screen_agreement"] > 0.9 for finalist in report["valid"]["finalists"])


def test_every_seeing_layer_has_an_effect_and_pushes_move_the_marker(trained: Any) -> None:
    report = trained[0].report
    for layer in ("4", "6"):
        effect = report["layers"][layer]["effect"]
        assert effect["alpha"] == 1.0
        assert effect["up"] > effect["down"]
    marker = report["diagnostics"]["marker_probability"]
    assert marker["alphas"] == [0.5, 1.0]
    assert marker["along"][-1] > marker["base"] > marker["against"][-1]
    cosines = np.array(report["diagnostics"]["domain_cosines"])
    assert np.allclose(np.diag(cosines), 1, atol=1e-5)
    assert np.allclose(cosines, cosines.T)


def test_gates_with_other_tools_are_measured_and_decide_what_is_fitted_on(trained: Any, small: Any) -> None:
    trainer, adapter = trained
    told, found = trainer.report["vary_tools"], trainer.report["variations"]["valid"]
    assert list(found) == list(VARIATIONS)
    assert found["wrapped"]["rows"] == len(small["valid"])
    assert found["without"]["called"] < found["without"]["given_called"]
    assert told["fitted"] is (max(told["losses"].values()) > 0.03)
    lists = {json.dumps(row["tools"]) for name in ("cal", "train") for row in small[name]}
    assert (len(adapter.config.tool_lists) > len(lists)) is told["fitted"]


def test_the_same_seed_gives_the_same_adapter(trained: Any, tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    again = trainer.train()
    assert again.config == trained[1].config
    assert torch.equal(again.vectors.v_domain, trained[1].vectors.v_domain)
    assert trainer.report["screen"] == trained[0].report["screen"]
    assert trainer.report["valid"] == trained[0].report["valid"]


@pytest.mark.filterwarnings("ignore:the first token of the answer tells on only")  # the answers are written here,
@pytest.mark.filterwarnings("ignore:With this adapter the model calls tools better")  # and no call of them is whole
def test_test_rows_are_not_looked_at_before_the_choice(
    tiny_lfm2: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def answers(_self: Any, rows: Any, variants: Any, **_: Any) -> dict[str, list[str]]:
        seen.update(row["id"] for row in rows if "id" in row)  # the package's own prompts have none
        return {
            name: ["<|tool_call_start|>" if row["label"] and adapter else "no" for row in rows]
            for name, adapter in variants.items()
        }

    monkeypatch.setattr(Evaluation, "answers_of_each", answers)
    arguments = ASATrainingArguments(**{**SMALL, "layers": (4,), "alphas": (1.0,)})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    trainer.train()
    test_ids = {row["id"] for row in small["test"]}
    assert seen == {row["id"] for row in [*small["valid"], *few_of_each_label(small["train"])]}
    assert not seen & test_ids
    results = trainer.evaluate("test")
    assert seen >= test_ids
    assert results["asa"]["f1"] == 1.0


def test_a_step_that_does_nothing_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    options = {**shared, "layers": (6,), "alphas": (1e-6,), "finalists": 1, "exhaustive": True}
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**options))
    adapter = trainer.train()
    assert adapter.config.alpha == 0
    chosen = trainer.report["chosen"]
    assert chosen["abstains"] is True
    base = trainer.report["valid"]["base"]
    assert chosen["why"] == (
        "no gain over the bare model on VALID is sure: its lower 95 % bound is +0.000 (F1); the adapter abstains. On "
        f"VALID it would have meant recall {base['recall']:.3f} -> {base['recall']:.3f}, FPR {base['fpr']:.3f} -> "
        f"{base['fpr']:.3f}"
    )
    assert chosen["valid"] == trainer.report["valid"]["base"]
    with pytest.raises(ValueError, match=r"the adapter abstains \(alpha 0\): it changes nothing"):
        trainer.ablate("valid")


def test_a_fit_without_hope_ends_early_and_says_why_and_what_could_help(
    tiny_lfm2: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are awaited behind a token that the model never writes, so that no push moves its probability."""
    options = {**SMALL, "alphas": (0.25, 0.5, 1.0), "tool_call_format": "hermes", "tool_call_start": "<|im_start|>"}
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**options))
    monkeypatch.setattr(trainer._measured, "outcomes", lambda *_: pytest.fail("finalists generated"))
    with pytest.warns(UserWarning, match="no push at any of 2 layers changed a decision on 32 rows of TRAIN"):
        adapter = trainer.train()
    report = trainer.report
    assert adapter.config.alpha == 0
    best = max(("4", "6"), key=lambda layer: report["layers"][layer]["out_of_fold_auc"])
    assert report["chosen"]["layer"] == int(best)
    assert (report["chosen"]["abstains"], report["valid"], report["screen"]["rows"]) == (True, {}, 32)
    assert re.search(
        r"moved the probability of a call's opening by more than \S+ in the mean; the bare model begins 0 of their "
        r"answers with a call, and its calls come as lfm2 100 % of \d \(read as hermes\); the adapter abstains\. What "
        r"could help: the tool_call_format of its calls, .* an action on the logits in place of the states, with "
        r'ASATrainingArguments\(actions="all"\): forcing or forbidding the opening by the gate of layer [46] gives, '
        r"by first tokens on these rows, F1 \d\.\d{3} and FPR",
        report["chosen"]["why"],
    )
    forced = report["actions"]["train"]["force"]
    assert f"F1 {forced['f1']:.3f} and FPR {forced['fpr']:.3f} (the bare model 0.000)" in report["chosen"]["why"]
    assert forced["f1"] > 0.7
    results = trainer.evaluate("test")
    assert results["asa"]["f1"] == results["base"]["f1"]
    with pytest.raises(ValueError, match=r"the adapter abstains \(alpha 0\)"):
        trainer.ablate("test")
    assert "the adapter abstains" in model_card(adapter.config, Report.read(report))
    assert plots(Report.read(report))


def test_a_model_that_is_right_already_gets_an_abstaining_adapter(
    tiny_lfm2: Any, small: Any, shared: Any, trained: Any
) -> None:
    """Rows labelled by what the bare model does: nothing can be gained, and pushes can only lose."""
    measured = trained[0]._measured
    relabelled = {
        split: [
            {**row, "label": int(triggered)}
            for row, triggered in zip(rows, measured.outcomes(split, {"base": None})["base"].triggered, strict=True)
        ]
        for split, rows in small.items()
    }
    trainer = ASATrainer(*tiny_lfm2, relabelled, ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1.0,)}))
    assert trainer.train().config.alpha == 0
    assert trainer.report["valid"]["base"]["f1"] == 1.0
    assert trainer.report["chosen"]["abstains"] is True


def test_max_fpr_is_kept_on_valid(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**{**shared, "max_fpr": 0.25, "layers": (4, 6)}))
    trainer.train()
    chosen = trainer.report["chosen"]
    assert chosen["valid"]["fpr"] <= 0.25 < chosen["valid"]["fpr_upper_bound_95"]
    assert "ranked by recall with an FPR of at most 0.25 of real generation" in chosen["why"]
    assert chosen["why"].endswith("with 95 % confidence (balanced accuracy)")


def test_a_max_fpr_with_a_confidence_holds_for_the_upper_bound(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    options = {**shared, "max_fpr": 0.35, "max_fpr_confidence": 0.95, "layers": (4, 6)}
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**options))
    trainer.train()
    chosen = trainer.report["chosen"]
    assert chosen["valid"]["fpr_upper_bound_95"] <= 0.35
    assert not chosen["abstains"]
    assert "ranked by recall with an FPR whose upper 95 % bound is at most 0.35 of real generation" in chosen["why"]


def test_too_few_rows_for_a_confidence_are_refused_at_once(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(max_fpr=0.001, max_fpr_confidence=0.95)
    with pytest.raises(ValueError, match=r"valid has \d+ rows without need: .* Give at least 2703 such rows"):
        ASATrainer(*tiny_lfm2, small, arguments)


def test_a_max_fpr_that_nothing_reaches_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    options = {**shared, "max_fpr": 0.0, "layers": (4,), "alphas": (1e-6,), "finalists": 1, "exhaustive": True}
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**options))
    assert trainer.train().config.alpha == 0
    assert trainer.report["chosen"]["why"].startswith("no setting tried had an FPR of at most 0 on VALID")
    assert trainer.report["chosen"]["valid"] == trainer.report["valid"]["base"]


def test_ablations_are_told_apart_by_generation(trained: Any) -> None:
    trainer, adapter = trained
    before = trainer.report["ablations"]
    results = trainer.ablate("valid", rules=False)
    assert trainer.report["ablations"] == before  # the report's are those of TEST
    f1 = {name: metrics["f1"] for name, metrics in results.items()}
    assert set(f1) == {"base", *ablations(adapter)}
    assert f1["full"] == trainer.report["chosen"]["valid"]["f1"]
    assert all(f1["full"] > f1[name] for name in f1 if name.startswith("random"))
    assert results["no gate"]["fpr"] > results["full"]["fpr"]
    assert results["positive gate only"]["fpr"] > results["full"]["fpr"]
    assert results["negative gate only"]["recall"] < results["full"]["recall"]


def test_training_twice_starts_afresh(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    arguments = ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    first = trainer.train()
    trainer.evaluate("valid")
    second = trainer.train()
    assert first.report is not None
    assert second.report is trainer.report
    assert sorted(first.report["evaluations"]) == ["valid"]
    assert second.report["evaluations"] == {}


def test_what_was_trained_is_pushed_with_its_numbers(trained: Any, hub: LocalHub) -> None:
    trainer, adapter = trained
    trainer.evaluate("test")
    url = trainer.push_to_hub("alice/tiny", private=True, token="hf_alice", commit_message="fitted")
    repo = hub.repos["alice/tiny"]
    assert url == f"{hub.url}/alice/tiny/commit/{repo.refs['main']}"
    assert (repo.private, repo.messages[repo.refs["main"]]) == (True, "fitted")
    loaded = ASAAdapter.from_pretrained("alice/tiny", token="hf_alice")
    assert loaded.report == trainer.report
    assert loaded.config.sealed({}) == adapter.config.sealed({})
    f1 = trainer.report["evaluations"]["test"]["asa"]["f1"]
    assert f"-> {f1:.3f}, " in repo.files()["README.md"].decode()


def test_pushing_before_training_is_refused(tiny_lfm2: Any, small: Any, hub: LocalHub) -> None:
    with pytest.raises(ValueError, match=r"there is no adapter to push; call train\(\) first"):
        ASATrainer(*tiny_lfm2, small).push_to_hub("alice/tiny", token="hf_alice")
    assert hub.log == []


def test_evaluating_before_training_is_refused(tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small)
    with pytest.raises(ValueError, match=r"there is no adapter to evaluate; call train\(\) first"):
        trainer.evaluate()
    with pytest.raises(ValueError, match="split is 'dev'; expected one of cal, train, valid, test"):
        trainer.evaluate("dev")


def test_a_model_that_was_steered_since_is_not_measured_as_the_base(tiny_lfm2: Any, small: Any, trained: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    with trained[1].attach(tiny_lfm2[0]), pytest.raises(ValueError, match="the base would be measured steered"):
        trainer.evaluate("valid", adapter=trained[1])


def test_one_domain_is_fitted_and_steered(tiny_lfm2: Any, splits: Any) -> None:
    one = {name: [row for row in rows if row["domain"] == "translation"] for name, rows in splits.items()}
    arguments = ASATrainingArguments(**{**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, one, arguments)
    adapter = trainer.train()
    assert adapter.config.domains == ("translation",)
    assert trainer.report["chosen"]["valid"]["f1"] > trainer.report["valid"]["base"]["f1"]


def test_costs_move_the_threshold_of_the_probes(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    one = {
        "layers": (6,),
        "read_layers": (1,),
        "alphas": (1.0,),
        "betas": (1.0,),
        "finalists": 1,
        "probes": ("pooled",),
    }
    intercepts = []
    for cost in ((1, 1), (1, 3)):
        settings = {**shared, **one, "probes": ("pooled",), "cost": cost}
        trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**settings))
        intercepts.append(float(trainer.train().probes.pooled_.intercept_[0]))
    assert intercepts[1] - intercepts[0] == pytest.approx(math.log(3), abs=1e-5)
