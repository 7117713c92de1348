import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import traces

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.evaluate import Evaluation
from asa_adapter.prompts import chat_template_sha256, with_chat_template

SMALL: dict[str, Any] = {
    "layers": (1, 4, 6),
    "alphas": (0.5, 1.0),
    "taus": (0.5, 0.7),
    "betas": (0.0, 1.0),
    "Cs": (0.01, 0.1),
    "finalists": 2,
    "max_new_tokens": 24,
    "progress": False,
}


@pytest.fixture(scope="module")
def small(splits: Any) -> dict[str, list[dict[str, Any]]]:
    """Every fourth row of the fitting splits, every fifth of the others: all domains and labels, in seconds."""
    return {name: list(rows)[:: 2 if name in ("cal", "train") else 5] for name, rows in splits.items()}


@pytest.fixture(scope="module")
def trained(tiny_lfm2: Any, small: Any) -> tuple[ASATrainer, ASAAdapter]:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    return trainer, trainer.train()


def test_the_adapter_carries_what_it_was_fitted_with(trained: Any, tiny_lfm2: Any, small: Any) -> None:
    _, adapter = trained
    config = adapter.config
    assert config.layer in (4, 6)
    assert config.hidden_size == tiny_lfm2[0].config.hidden_size
    assert config.model_type == "lfm2"
    assert config.base_model == "tiny_lfm2"
    assert (config.tool_call_format, config.tool_call_start) == ("lfm2", "<|tool_call_start|>")
    assert config.chat_template is None
    assert config.tools == small["cal"][0]["tools"]
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
    config = trainer.train().config
    assert (config.chat_template, config.tool_call_format) == (template, "hermes")
    assert (config.tool_call_start, config.tool_call_end) == ("<|tool_call_start|>", "</tool_call>")
    assert config.parser(tokenizer).start == "<|tool_call_start|>"
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


def test_the_choice_is_the_best_finalist_on_valid(trained: Any) -> None:
    report = trained[0].report
    best = max(finalist["score"] for finalist in report["valid"]["finalists"])
    assert report["chosen"]["valid"]["score"] == best > report["valid"]["base"]["score"]
    assert report["chosen"]["abstains"] is False
    assert len(report["valid"]["finalists"]) == 2
    assert report["screen"]["settings"] == 2 * 2 * 2 * 2 * 2


def test_the_same_seed_gives_the_same_adapter(trained: Any, tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    again = trainer.train()
    assert again.config == trained[1].config
    assert torch.equal(again.vectors.v_domain, trained[1].vectors.v_domain)
    assert trainer.report["screen"] == trained[0].report["screen"]
    assert trainer.report["valid"] == trained[0].report["valid"]


def test_test_rows_are_not_looked_at_before_the_choice(
    tiny_lfm2: Any, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()

    def answers(_self: Any, rows: Any, adapter: Any = None, name: str = "") -> list[str]:
        seen.update(row["id"] for row in rows)
        return ["<|tool_call_start|>" if row["label"] and adapter else "no" for row in rows]

    monkeypatch.setattr(Evaluation, "answers", answers)
    arguments = ASATrainingArguments(**{**SMALL, "layers": (4,), "alphas": (1.0,)})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    trainer.train()
    test_ids = {row["id"] for row in small["test"]}
    assert seen == {row["id"] for row in small["valid"]}
    results = trainer.evaluate("test")
    assert seen >= test_ids
    assert results["asa"]["f1"] == 1.0


def test_what_was_measured_goes_into_the_report_and_the_report_is_json(trained: Any, small: Any) -> None:
    trainer, adapter = trained
    results = trainer.evaluate("test")
    assert trainer.report["evaluations"]["test"] == results
    assert json.loads(json.dumps(trainer.report, allow_nan=False)) == trainer.report
    assert adapter.report is trainer.report
    assert results["base"]["n"] == len(small["test"])
    assert results["asa"]["f1"] > results["base"]["f1"]
    assert set(results["asa"]["per_domain"]) == set(adapter.config.domains)
    assert set(results["asa"]["validity"]) == {
        "format",
        "tool_name",
        "arguments",
        "success_precision",
        "success_recall",
    }


def test_evaluating_another_adapter_does_not_touch_the_report(trained: Any, tiny_lfm2: Any, tmp_path: Path) -> None:
    trainer, adapter = trained
    other = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    before = json.dumps(trainer.report)
    trainer.evaluate("valid", adapter=other)
    assert json.dumps(trainer.report) == before


def test_nothing_better_than_the_bare_model_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "layers": (6,), "alphas": (1e-6,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    adapter = trainer.train()
    assert adapter.config.alpha == 0
    assert trainer.report["chosen"]["abstains"] is True
    assert "no setting tried was better than the bare model on VALID" in trainer.report["chosen"]["why"]


def test_max_fpr_is_kept_on_valid(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "max_fpr": 0.1, "layers": (4, 6)})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    trainer.train()
    chosen = trainer.report["chosen"]["valid"]
    assert chosen["fpr"] <= 0.1 < chosen["fpr_upper_bound_95"]
    assert trainer.report["chosen"]["why"].endswith("ranked by recall with an FPR of at most 0.1")


def test_a_max_fpr_that_nothing_reaches_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "max_fpr": 0.0, "layers": (4,), "alphas": (1e-6,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    assert trainer.train().config.alpha == 0
    assert trainer.report["chosen"]["why"].startswith("no setting tried had an FPR of at most 0 on VALID")
    assert trainer.report["chosen"]["valid"] == trainer.report["valid"]["base"]


@pytest.mark.skipif(not Path("/proc/sys").is_dir(), reason="needs a folder that not even root can write into")
def test_an_output_dir_that_cannot_be_written_is_refused_before_any_work(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "output_dir": "/proc/sys"})
    with pytest.raises(OSError, match="cannot write into /proc/sys"):
        ASATrainer(*tiny_lfm2, small, arguments).train()


def test_output_dir_holds_the_adapter(tiny_lfm2: Any, small: Any, tmp_path: Path) -> None:
    arguments = ASATrainingArguments(
        **{**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1, "output_dir": tmp_path / "out"}
    )
    adapter = ASATrainer(*tiny_lfm2, small, arguments).train()
    assert ASAAdapter.from_pretrained(tmp_path / "out").config.alpha == adapter.config.alpha


def test_only_blind_layers_are_refused(tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**{**SMALL, "layers": (0, 1)}))
    with pytest.raises(ValueError, match=r"the same for every prompt at layers \[0, 1\]: these blocks cannot see"):
        trainer.train()


def test_a_layer_out_of_range_is_refused(tiny_lfm2: Any, small: Any) -> None:
    with pytest.raises(ValueError, match="layers holds 99; expected 0 to 7 in this model"):
        ASATrainer(*tiny_lfm2, small, ASATrainingArguments(layers=(1, 99)))


def test_a_missing_split_is_refused(tiny_lfm2: Any, small: Any) -> None:
    rest = {name: rows for name, rows in small.items() if name != "valid"}
    with pytest.raises(ValueError, match="the data has no valid split; expected cal, train, valid and test"):
        ASATrainer(*tiny_lfm2, rest)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "valid: there are no rows"),
        ([{"instruction": "a", "label": 1}, {"instruction": "b"}], "valid, row 1: label is None; expected 0"),
        ([{"instruction": "a", "label": 1}, {"instruction": "b", "label": 1}], "valid: every label is 1"),
        ([{"label": 1}], "valid, row 0: no instruction and no messages"),
    ],
)
def test_a_split_that_nothing_can_be_measured_on_is_refused(
    tiny_lfm2: Any, small: Any, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ASATrainer(*tiny_lfm2, {**small, "valid": rows})


def test_a_tokenizer_without_a_chat_template_is_refused(tiny_lfm2: Any, small: Any) -> None:
    class Bare:
        chat_template = None
        name_or_path = "bare"

    with pytest.raises(ValueError, match="the tokenizer 'bare' has no chat template"):
        ASATrainer(tiny_lfm2[0], Bare(), small)


def test_a_folder_instead_of_splits_is_refused(tiny_lfm2: Any) -> None:
    with pytest.raises(ValueError, match="splits is 'my_data/'; expected what load_splits gives"):
        ASATrainer(*tiny_lfm2, "my_data/")  # type: ignore[arg-type]


def test_a_domain_name_that_no_config_takes_is_refused_at_once(tiny_lfm2: Any, small: Any) -> None:
    rows = [{**row, "domain": "math "} for row in small["train"]]
    with pytest.raises(ValueError, match="a domain is 'math '; expected 1 to 64 printable characters"):
        ASATrainer(*tiny_lfm2, {**small, "train": rows})


def test_training_twice_starts_afresh(tiny_lfm2: Any, small: Any) -> None:
    arguments = ASATrainingArguments(**{**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    first = trainer.train()
    trainer.evaluate("valid")
    second = trainer.train()
    assert first.report is not None and second.report is trainer.report
    assert sorted(first.report["evaluations"]) == ["valid"]
    assert second.report["evaluations"] == {}


def test_evaluating_before_training_is_refused(tiny_lfm2: Any, small: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small)
    with pytest.raises(ValueError, match=r"there is no adapter to evaluate; call train\(\) first"):
        trainer.evaluate()
    with pytest.raises(ValueError, match="split is 'dev'; expected one of cal, train, valid, test"):
        trainer.evaluate("dev")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "some"}, "layers is 'some'; expected 'all' or layer numbers"),
        ({"layers": 5}, "layers is 5; expected 'all' or layer numbers"),
        ({"layers": ()}, r"layers is \(\); expected different layer numbers"),
        ({"layers": (5, 5)}, r"layers is \(5, 5\); expected different layer numbers"),
        ({"layers": (5.7,)}, r"layers is \(5.7,\); expected different layer numbers"),
        ({"alphas": ()}, r"alphas is \(\); expected a sequence of at least one value"),
        ({"alphas": 1.0}, "alphas is 1.0; expected a sequence"),
        ({"alphas": (-1,)}, "alphas holds -1; expected 0 to 1000"),
        ({"seed": "x"}, "seed is 'x'; expected an int of at least 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5; expected an int of at least 1"),
        ({"alphas": (0,)}, r"alphas is \(0,\); expected at least one step above 0"),
        ({"taus": (0.3,)}, "taus holds 0.3; expected 0.5 to 1"),
        ({"betas": (2,)}, "betas holds 2; expected 0 to 1"),
        ({"max_fpr": 1.5}, "max_fpr holds 1.5; expected 0 to 1"),
        ({"batch_size": 0}, "batch_size is 0; expected an int of at least 1"),
        ({"probes": ("all",)}, r"probes is \('all',\); expected some of"),
        ({"objective": "recall"}, "objective is 'recall'; expected one of"),
        ({"chat_template": ""}, "chat_template is ''; expected a text that is not empty, or None"),
        ({"tool_call_start": 5}, "tool_call_start is 5; expected a text"),
    ],
)
def test_arguments_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ASATrainingArguments(**changes)


def test_objectives_score_what_they_name() -> None:
    metrics = {"f1": 0.6, "recall": 0.8, "fpr": 0.25, "tn": 3, "fp": 1}
    assert ASATrainingArguments().score(metrics) == 0.6
    assert ASATrainingArguments(objective="balanced_accuracy").score(metrics) == pytest.approx(0.775)
    assert ASATrainingArguments(max_fpr=0.25).score(metrics) == 0.8
    assert ASATrainingArguments(max_fpr=0.2).score(metrics) == -0.25
