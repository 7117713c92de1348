"""The README's main command, once, on the shipped model and data: what the project promises, measured."""

import copy
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkout import ROOT
from models import traces

from asa_adapter import ASAAdapter
from asa_adapter.evaluation.metrics import auc
from asa_adapter.report_schema import RATIOS
from asa_adapter.states import collect_hidden_states

# Whole trainings.
pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("quickstart", ROOT / "examples" / "quickstart.py")
    assert spec is not None
    assert spec.loader is not None
    quickstart = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(quickstart)
    result: dict[str, Any] = quickstart.main(tmp_path_factory.mktemp("quickstart") / "adapter")
    return {**result, "answer": quickstart.answer}


@pytest.fixture(scope="module")
def states_of_test(outcome: dict[str, Any]) -> Any:
    """(L, N, D) states of the TEST rows."""
    trainer = outcome["trainer"]
    rows = trainer.splits["test"]
    return collect_hidden_states(trainer.model, trainer.tokenizer, rows, progress=False).states


def side_by_side(states: Any, layers: Sequence[int]) -> Any:
    """(N, R D) states of several layers, as probes read them."""
    return torch.cat([states[layer] for layer in layers], dim=1)


def test_f1_rises_and_false_alarms_fall(outcome: dict[str, Any]) -> None:
    base, asa = outcome["results"]["base"], outcome["results"]["asa"]
    assert base["n"] == 320
    assert asa["f1"] >= base["f1"] + 0.25
    assert asa["fpr"] <= base["fpr"] - 0.25


def test_the_shipped_model_really_has_the_gap(outcome: dict[str, Any]) -> None:
    domains = outcome["results"]["base"]["per_domain"].values()
    assert min(domain["recall"] for domain in domains) < 0.5
    assert max(domain["fpr"] for domain in domains) > 0.3


def test_intent_is_readable_on_test_where_the_request_can_be_seen(
    outcome: dict[str, Any], states_of_test: Any
) -> None:
    trainer, adapter = outcome["trainer"], outcome["adapter"]
    labels = [row["label"] for row in trainer.splits["test"]]
    read = adapter.config.reading
    assert auc(labels, adapter.probes.p_tool(side_by_side(states_of_test, read))) >= 0.90
    for blind in trainer.report["blind_layers"]:
        assert auc(labels, adapter.probes.p_tool(side_by_side(states_of_test, [blind] * len(read))).round(3)) == 0.5
    assert trainer.report["blind_layers"] == [0, 1]


def test_no_more_calls_than_before_fail_to_parse_or_to_fit(outcome: dict[str, Any]) -> None:
    base, asa = (outcome["results"][name]["validity"] for name in ("base", "asa"))
    calls = {name: outcome["results"][name]["tp"] + outcome["results"][name]["fp"] for name in ("base", "asa")}
    assert base["arguments"] >= 0.9
    # Steering moves the decision to call; what is called must be no worse than before, in form and in its arguments.
    for share in ("format", "arguments"):
        assert round((1 - asa[share]) * calls["asa"]) <= round((1 - base[share]) * calls["base"]), share
    assert asa["success_precision"] > base["success_precision"]
    assert asa["success_recall"] > base["success_recall"]


def test_a_lazy_and_an_over_eager_prompt_are_corrected(outcome: dict[str, Any]) -> None:
    assert {kind: decision.gate for kind, (*_, decision) in outcome["shown"].items()} == {"lazy": 1, "over-eager": -1}


def test_the_loaded_adapter_decides_like_the_fitted_one(outcome: dict[str, Any], states_of_test: Any) -> None:
    fitted, loaded = outcome["fitted"], outcome["adapter"]
    states = states_of_test[list(fitted.config.hooked)]
    assert loaded.decide(states) == fitted.decide(states)
    assert loaded.report == fitted.report


def test_the_shipped_adapter_is_the_one_that_the_command_makes(outcome: dict[str, Any]) -> None:
    shipped, fitted = ASAAdapter.from_pretrained(ROOT / "examples" / "tiny_lfm2_asa"), outcome["adapter"]
    for name in ("layer", "alpha", "tau", "beta", "probe", "domains", "tools", "base_model_fingerprint"):
        assert getattr(shipped.config, name) == getattr(fitted.config, name), name
    assert torch.allclose(shipped.vectors.v_domain, fitted.vectors.v_domain, atol=1e-3)


def test_a_pipeline_around_the_model_is_steered(outcome: dict[str, Any]) -> None:
    trainer, adapter = outcome["trainer"], outcome["adapter"]
    row, base, steered, _ = outcome["shown"]["lazy"]
    ask = transformers.pipeline("text-generation", model=trainer.model, tokenizer=trainer.tokenizer)
    prompt = trainer.tokenizer.apply_chat_template(
        [{"role": "user", "content": row["instruction"]}],
        tools=row["tools"],
        add_generation_prompt=True,
        tokenize=False,
    )
    settings: dict[str, Any] = {
        "add_special_tokens": False,
        "return_full_text": False,
        "skip_special_tokens": False,
        "max_new_tokens": 64,
        "do_sample": False,
    }
    with adapter.attach(trainer.model):
        assert ask(prompt, **settings)[0]["generated_text"] == steered
    assert ask(prompt, **settings)[0]["generated_text"] == base


def test_after_removal_the_model_is_bit_identical(outcome: dict[str, Any]) -> None:
    model, adapter = outcome["trainer"].model, outcome["adapter"]
    weights = copy.deepcopy(model.state_dict())
    ids = torch.arange(10, 60)[None]
    before = model(ids).logits
    with adapter.attach(model):
        model.generate(ids, max_new_tokens=4, do_sample=False)
    assert traces(model) == []
    assert torch.equal(model(ids).logits, before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_rows_with_gate_zero_answer_with_the_bases_logits(outcome: dict[str, Any]) -> None:
    trainer, adapter = outcome["trainer"], outcome["adapter"]
    rows = trainer.splits["test"][:16]
    inputs = trainer.tokenizer.apply_chat_template(
        [[{"role": "user", "content": row["instruction"]}] for row in rows],
        tools=rows[0]["tools"],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
    )
    settings = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    base = trainer.model.generate(**inputs, **settings).logits[0]
    with adapter.attach(trainer.model) as steering:
        steering.tau = 0.5 + sorted(abs(d.p_tool - 0.5) for d in _decisions(steering, trainer, inputs))[8]
        steered = trainer.model.generate(**inputs, **settings).logits[0]
        gates = [decision.gate for decision in steering.decisions]
    assert 0 in gates
    assert any(gates)
    assert [torch.equal(a, b) for a, b in zip(steered, base, strict=True)] == [gate == 0 for gate in gates]


def _decisions(steering: Any, trainer: Any, inputs: Any) -> list[Any]:
    trainer.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    return list(steering.decisions)


@pytest.mark.parametrize("name", ["base", "asa"])
def test_the_readmes_table_is_what_the_command_prints(outcome: dict[str, Any], name: str) -> None:
    row = re.search(rf"^\| {name} \|(.*)\|$", README, flags=re.MULTILINE)
    assert row is not None
    stated = [float(cell) for cell in row[1].split("|")]
    measured = [outcome["results"][name][column] for column in RATIOS]
    # Another processor rounds differently, and a few of the 320 answers sit on the edge.
    assert stated == pytest.approx(measured, abs=0.03)


def test_the_card_shows_these_results(outcome: dict[str, Any], tmp_path: Path) -> None:
    card = (outcome["fitted"].save_pretrained(tmp_path) / "README.md").read_text()
    for name in ("base", "asa"):
        assert f"| {outcome['results'][name]['f1']:.3f} (" in card
