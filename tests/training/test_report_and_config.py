"""What a training writes into its report."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from asa_adapter import ASAAdapter, report_schema
from asa_adapter import report as report_module
from asa_adapter.choice.settings import Setting
from asa_adapter.comparison.ablation import ablations
from asa_adapter.comparison.simpler_rules import RULES
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.verification.sample_record import SampleRecord


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
        "same_tool",
        "one_answer",
    }


def documented() -> list[tuple[str, str]]:
    """Patterns of paths and types, as the table in report.py gives them, its groups written out."""
    text = report_module.__doc__ or ""
    rows = [tuple(part.strip() for part in line.split(" | ")[:2]) for line in text.splitlines() if " | " in line]
    ratios = [(name, "number") for name in ("precision", "recall", "f1", "accuracy", "fpr")]
    counted = [(name, "int") for name in ("n", "tp", "fp", "fn", "tn")] + ratios
    scores = ("score", "f1", "recall", "fpr", "fpr_upper_bound_95")
    groups = {
        "SETTING": [
            *((name, "number") for name in ("alpha", "tau", "beta")),
            ("bias", "number or inf"),
            *((name, "text") for name in ("probe", "action")),
            *((name, "int") for name in ("layer", "read_layers[]")),
            ("by_state.*.*", "number"),
        ],
        "SCORES": [(name, "number") for name in scores],
        "GATES": [
            *((name, "int") for name in ("rows", "left_out", "lost", "won")),
            *((name, "number") for name in ("right", "given_right", "called", "given_called")),
        ],
        "COUNTED": counted,
        "METRICS": [
            *counted,
            *((f"per_domain.*.{n}", t) for n, t in counted),
            ("validity.*", "number"),
            ("gold.*", "number"),
            ("cut", "int"),
            ("cut_share", "number"),
        ],
        "SURE": [("intervals.*.*[]", "number"), ("mcnemar_p", "number")]
        + [(name, "int") for name in ("only_base_right", "only_asa_right", "groups")],
        "ROWS": [(name, "int") for name in ("rows", "tool_needed", "groups")],
        "GAIN": [("groups", "int")]
        + [(name, "number") for name in ("mean", "lower_bound", "balanced_accuracy_bound", "apparent")],
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


@pytest.mark.slow
def test_every_key_of_a_report_is_documented_with_its_type(trained: Any) -> None:
    trainer = trained[0]
    trainer.evaluate("valid")
    results = trainer.ablate("test")
    assert list(results) == ["base", *ablations(trainer._adapter), *RULES]
    kinds = {"text": (str,), "int": (int,), "number": (int, float), "bool": (bool,)}
    kinds["number or inf"] = (int, float, str)  # strict JSON has no infinity, so the text "inf" stands for it
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
    seldom = r"leaks|gold|arguments|left_out|screen_note|success_note|read_layers|\\.action$|\\.bias$"
    seldom += "|states|by_state|conversations|policies|refit"  # with both kinds of rows, and where asked for
    seldom += r"|demonstration|samples\\.rows\\\[\\\]\\.tools"  # with tools for all, and with samples of the user's
    strange = sorted(pattern for pattern in stale if not re.search(seldom, pattern))
    assert not strange, f"nothing has {strange}"


def named(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Paths and types of the leaves of a schema, as `documented` gives them."""
    for name, part in schema.get("properties", {}).items():
        yield from named(part, f"{path}.{name}" if path else name)
    if "additionalProperties" in schema and "properties" not in schema:
        yield from named(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from named(schema["items"], f"{path}[]")
    if schema.get("type") not in ("object", "array"):
        kinds = {"string": "text", "integer": "int", "boolean": "bool", "number": "number"}
        yield path, kinds.get(schema.get("type", ""), "number or inf")


def test_the_schema_of_a_report_is_sound_and_names_what_is_documented() -> None:
    Draft202012Validator.check_schema(report_schema.SCHEMA)
    known = dict(documented())
    for path, kind in named(report_schema.SCHEMA):
        pattern = next((p for p in known if re.fullmatch(re.escape(p).replace(r"\*", r"[^.\[]+"), path)), None)
        if path.startswith(("metadata.", "arguments.", "domains")):
            continue  # what no trainer writes, and what may be anything
        assert pattern is not None, f"{path} is in no line of the table in report.py"
        assert known[pattern] == kind, f"{path} is {kind} in the schema; the table says {known[pattern]}"


def test_the_report_names_no_place_on_this_machine(trained: Any, shared: Any) -> None:
    assert str(shared["output_dir"]) not in json.dumps(trained[0].report)
    assert not {"output_dir", "sample_rows"} & set(trained[0].report["arguments"])


def test_the_report_keeps_neutral_samples_and_no_row_of_the_users(trained: Any, small: Any) -> None:
    record = SampleRecord.of(trained[0].report)
    assert record is not None
    assert [sample.messages[-1]["content"] for sample in record.samples] == list(SAMPLE_PROMPTS)
    instructions = {row["instruction"] for split in small.values() for row in split if row["instruction"]}
    assert not any(json.dumps(text)[1:-1] in json.dumps(trained[0].report) for text in instructions)


def test_evaluating_another_adapter_does_not_touch_the_report(trained: Any, tiny_lfm2: Any, tmp_path: Path) -> None:
    trainer, adapter = trained
    other = ASAAdapter.from_pretrained(adapter.save_pretrained(tmp_path))
    before = json.dumps(trainer.report)
    trainer.evaluate("valid", adapter=other)
    assert json.dumps(trainer.report) == before


def test_no_two_configs_of_a_run_share_what_can_be_changed(trained: Any) -> None:
    trainer, adapter = trained
    setting = Setting(adapter.config.layer, 1.0, 0.5, 0.5, "domain")
    first, second = (trainer._build(setting, trainer._fit).config for _ in range(2))

    assert first == second
    assert first.tools is not second.tools
    assert first.chat_template_variables is not second.chat_template_variables
