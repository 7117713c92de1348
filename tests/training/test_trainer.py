import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkout import DATA
from hub import LocalHub
from jsonschema import Draft202012Validator
from models import traces

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter import report as report_module
from asa_adapter.data.prompts import chat_template_sha256, with_chat_template
from asa_adapter.evaluation.ablation import ablations
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.metrics import Counts
from asa_adapter.training.selection import Objective, Setting

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
    """Every second row, of TEST every fifth: all domains and labels, in seconds."""
    return {name: list(rows)[:: 5 if name == "test" else 2] for name, rows in splits.items()}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """SMALL with a folder in which what one test has asked the model is kept for the others."""
    return {**SMALL, "output_dir": tmp_path_factory.mktemp("shared")}


@pytest.fixture(scope="module")
def trained(tiny_lfm2: Any, small: Any, shared: Any) -> tuple[ASATrainer, ASAAdapter]:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**shared))
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
    (own,) = [f for f in finalists if all(f[name] == chosen[name] for name in Setting._fields)]
    assert best - own["score"] <= own["standard_error"]
    assert chosen["valid"]["score"] == own["score"] > report["valid"]["base"]["score"]
    assert chosen["abstains"] is False
    assert report["valid"]["gain"]["lower_bound"] > 0
    assert len(finalists) == 2


def test_the_grid_is_ranked_on_train_and_the_screen_agrees_with_generation(trained: Any) -> None:
    report = trained[0].report
    assert report["screen"]["split"] == "train"
    assert report["screen"]["settings"] == 2 * 2 * 2 * 2 * 2
    assert {leader["layer"] for leader in report["screen"]["best_of_each_layer"]} == {4, 6}
    assert [f["layer"] for f in report["valid"]["finalists"]] == [
        leader["layer"] for leader in report["screen"]["best_of_each_layer"]
    ]
    assert all(finalist["screen_agreement"] > 0.9 for finalist in report["valid"]["finalists"])


def test_every_seeing_layer_has_an_effect_and_pushes_move_the_marker(trained: Any) -> None:
    report = trained[0].report
    for layer in ("4", "6"):
        effect = report["layers"][layer]["effect"]
        assert effect["alpha"] == 1.0 and effect["up"] > effect["down"]
    marker = report["diagnostics"]["marker_probability"]
    assert marker["alphas"] == [0.5, 1.0]
    assert marker["along"][-1] > marker["base"] > marker["against"][-1]
    cosines = np.array(report["diagnostics"]["domain_cosines"])
    assert np.allclose(np.diag(cosines), 1, atol=1e-5) and np.allclose(cosines, cosines.T)


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

    def answers(_self: Any, rows: Any, variants: Any, **_: Any) -> dict[str, list[str]]:
        seen.update(row["id"] for row in rows)
        return {
            name: ["<|tool_call_start|>" if row["label"] and adapter else "no" for row in rows]
            for name, adapter in variants.items()
        }

    monkeypatch.setattr(Evaluation, "answers_of_each", answers)
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
    found = trainer.report["evaluations"]["test"]
    assert {name: found[name] for name in ("base", "asa")} == results
    low, high = found["intervals"]["gain"]["f1"]
    assert low < results["asa"]["f1"] - results["base"]["f1"] < high
    assert found["mcnemar_p"] < 0.05
    assert set(found["by_domain"]) == set(adapter.config.domains)
    controls = trainer.report["controls"]["test"]
    assert controls["probe_auc"] > controls["bag_of_words"]["auc"] > 0.4
    assert abs(controls["shuffled_auc"] - 0.5) < 0.15
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


def documented() -> list[tuple[str, str]]:
    """Patterns of paths and types, as the table in report.py gives them, its groups written out."""
    text = report_module.__doc__ or ""
    rows = [tuple(part.strip() for part in line.split(" | ")[:2]) for line in text.splitlines() if " | " in line]
    ratios = [(name, "number") for name in ("precision", "recall", "f1", "accuracy", "fpr")]
    counted = [(name, "int") for name in ("n", "tp", "fp", "fn", "tn")] + ratios
    scores = ("score", "f1", "recall", "fpr", "fpr_upper_bound_95")
    groups = {
        "SETTING": [*((name, "number") for name in ("alpha", "tau", "beta")), ("layer", "int"), ("probe", "text")],
        "SCORES": [(name, "number") for name in scores],
        "COUNTED": counted,
        "METRICS": [*counted, *((f"per_domain.*.{n}", t) for n, t in counted)]
        + [("validity.*", "number"), ("gold.*", "number")],
        "SURE": [("intervals.*.*[]", "number"), ("mcnemar_p", "number")]
        + [(name, "int") for name in ("only_base_right", "only_asa_right")],
    }
    found = []
    for path, kind in rows:
        whole, _, last = path.rpartition(".")
        found += [(f"{whole}.{name}", type_) for name, type_ in groups[last]] if last in groups else [(path, kind)]
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a report by their path; keys with dots in them become one segment."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, f"{path}.{key.replace('.', '_')}" if path else key)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, f"{path}[]")
    else:
        yield path, value


def test_every_key_of_a_report_is_documented_with_its_type(trained: Any) -> None:
    trainer = trained[0]
    trainer.evaluate("valid")
    trainer.ablate("test")
    kinds = {"text": (str,), "int": (int,), "number": (int, float), "bool": (bool,)}
    patterns = [(re.compile(re.escape(path).replace(r"\*", r"[^.\[]+")), kind) for path, kind in documented()]
    used = set()
    for path, value in leaves(trainer.report):
        fits = [(pattern, kind) for pattern, kind in patterns if pattern.fullmatch(path)]
        if path.startswith("arguments."):
            continue
        assert fits, f"{path} is in no line of the table in report.py"
        assert type(value) in kinds[fits[0][1]], f"{path} is {value!r}; the table says {fits[0][1]}"
        used.add(fits[0][0].pattern)
    stale = {pattern.pattern for pattern, _ in patterns} - used
    assert all(re.search("leaks|gold|arguments", pattern) for pattern in stale), f"nothing has {sorted(stale)}"


def named(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Paths and types of the leaves of a schema, as `documented` gives them."""
    for name, part in schema.get("properties", {}).items():
        yield from named(part, f"{path}.{name}" if path else name)
    if "additionalProperties" in schema and "properties" not in schema:
        yield from named(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from named(schema["items"], f"{path}[]")
    if schema.get("type") not in ("object", "array"):
        yield path, {"string": "text", "integer": "int", "boolean": "bool"}.get(schema.get("type", ""), "number")


def test_the_schema_of_a_report_is_sound_and_names_what_is_documented() -> None:
    Draft202012Validator.check_schema(report_module._SCHEMA)
    known = dict(documented())
    for path, kind in named(report_module._SCHEMA):
        pattern = next((p for p in known if re.fullmatch(re.escape(p).replace(r"\*", r"[^.\[]+"), path)), None)
        if path.startswith(("metadata.", "arguments.", "domains")):
            continue  # what no trainer writes, and what may be anything
        assert pattern is not None, f"{path} is in no line of the table in report.py"
        assert known[pattern] == kind, f"{path} is {kind} in the schema; the table says {known[pattern]}"


def test_the_report_names_no_place_on_this_machine(trained: Any, shared: Any) -> None:
    assert str(shared["output_dir"]) not in json.dumps(trained[0].report)
    assert "output_dir" not in trained[0].report["arguments"]


def test_evaluating_another_adapter_does_not_touch_the_report(trained: Any, tiny_lfm2: Any, tmp_path: Path) -> None:
    trainer, adapter = trained
    other = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    before = json.dumps(trainer.report)
    trainer.evaluate("valid", adapter=other)
    assert json.dumps(trainer.report) == before


def test_a_step_that_does_nothing_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    arguments = ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1e-6,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    adapter = trainer.train()
    assert adapter.config.alpha == 0
    chosen = trainer.report["chosen"]
    assert chosen["abstains"] is True
    assert chosen["why"] == (
        "no gain over the bare model on VALID is sure: its lower 95 % bound is +0.000 (F1); the adapter abstains"
    )
    assert chosen["valid"] == trainer.report["valid"]["base"]
    with pytest.raises(ValueError, match=r"the adapter abstains \(alpha 0\): it changes nothing"):
        trainer.ablate("valid")


def test_a_model_that_is_right_already_gets_an_abstaining_adapter(
    tiny_lfm2: Any, small: Any, shared: Any, trained: Any
) -> None:
    """Rows labelled by what the bare model does: nothing can be gained, and pushes can only lose."""
    measured = trained[0]._measured
    relabelled = {
        split: [
            {**row, "label": int(triggered)}
            for row, triggered in zip(rows, measured.triggers(split, {"base": None})["base"], strict=True)
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


def test_a_max_fpr_that_nothing_reaches_gives_an_abstaining_adapter(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    arguments = ASATrainingArguments(**{**shared, "max_fpr": 0.0, "layers": (4,), "alphas": (1e-6,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    assert trainer.train().config.alpha == 0
    assert trainer.report["chosen"]["why"].startswith("no setting tried had an FPR of at most 0 on VALID")
    assert trainer.report["chosen"]["valid"] == trainer.report["valid"]["base"]


def test_ablations_are_told_apart_by_generation(trained: Any) -> None:
    trainer, adapter = trained
    before = trainer.report["ablations"]
    results = trainer.ablate("valid")
    assert trainer.report["ablations"] == before  # the report's are those of TEST
    f1 = {name: metrics["f1"] for name, metrics in results.items()}
    assert set(f1) == {"base", *ablations(adapter)}
    assert f1["full"] == trainer.report["chosen"]["valid"]["f1"]
    assert all(f1["full"] > f1[name] for name in f1 if name.startswith("random"))
    assert results["no gate"]["fpr"] > results["full"]["fpr"]
    assert results["positive gate only"]["fpr"] > results["full"]["fpr"]
    assert results["negative gate only"]["recall"] < results["full"]["recall"]


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


def test_training_twice_starts_afresh(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    arguments = ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, small, arguments)
    first = trainer.train()
    trainer.evaluate("valid")
    second = trainer.train()
    assert first.report is not None and second.report is trainer.report
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
    assert f"to {f1:.3f}, and of the prompts without need" in repo.files()["README.md"].decode()


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
    counts = Counts.of([1] * 5 + [0] * 4, [1, 1, 1, 1, 0, 1, 0, 0, 0])
    assert float(Objective().rank(counts)) == pytest.approx(0.8)
    assert float(Objective("balanced_accuracy").rank(counts)) == pytest.approx(0.775)
    assert float(Objective(max_fpr=0.25).rank(counts)) == 0.8
    assert float(Objective(max_fpr=0.2).rank(counts)) == -0.25
    assert float(Objective(max_fpr=0.2).value(counts)) == 0.8
    assert float(Objective(max_fpr=0.2).gain(counts)) == pytest.approx(0.775)


def test_a_model_that_was_steered_since_is_not_measured_as_the_base(tiny_lfm2: Any, small: Any, trained: Any) -> None:
    trainer = ASATrainer(*tiny_lfm2, small, ASATrainingArguments(**SMALL))
    with trained[1].attach(tiny_lfm2[0]), pytest.raises(ValueError, match="the base would be measured steered"):
        trainer.evaluate("valid", adapter=trained[1])


def test_rows_that_stand_in_two_splits_are_named(tiny_lfm2: Any, small: Any, shared: Any) -> None:
    leaked = {**small, "test": [*small["test"], {**small["train"][0], "id": "copied"}]}
    arguments = ASATrainingArguments(**{**shared, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, leaked, arguments)
    name = small["train"][0]["id"]
    with pytest.warns(UserWarning, match=f"1 exact and 0 near duplicates stand in two splits: train:{name} and test:"):
        trainer.train()
    assert trainer.report["leaks"] == [["exact", f"train:{name}", "test:copied"]]


def test_prompts_that_the_model_has_no_room_for_are_counted_and_named(tiny_lfm2: Any, small: Any) -> None:
    long = {**small["valid"][0], "id": "novel", "instruction": "word " * 5000}
    trainer = ASATrainer(*tiny_lfm2, {**small, "valid": [*small["valid"], long]}, ASATrainingArguments(**SMALL))
    with pytest.raises(ValueError, match=r"1 of \d+ prompts are too long: the model takes \d+ tokens.* valid:novel"):
        trainer.train()


def test_too_few_rows_of_a_label_are_refused(tiny_lfm2: Any, small: Any) -> None:
    needed = [row for row in small["train"] if row["label"]]
    rows = needed + [row for row in small["train"] if not row["label"]][:7]
    with pytest.raises(ValueError, match="train: 7 rows have label 0; expected at least 8 of each label"):
        ASATrainer(*tiny_lfm2, {**small, "train": rows})


def test_one_domain_is_fitted_and_steered(tiny_lfm2: Any, splits: Any) -> None:
    one = {name: [row for row in rows if row["domain"] == "translation"] for name, rows in splits.items()}
    arguments = ASATrainingArguments(**{**SMALL, "layers": (6,), "alphas": (1.0,), "finalists": 1})
    trainer = ASATrainer(*tiny_lfm2, one, arguments)
    adapter = trainer.train()
    assert adapter.config.domains == ("translation",)
    assert trainer.report["chosen"]["valid"]["f1"] > trainer.report["valid"]["base"]["f1"]
