"""The conformance script: a few types here, all of them with ASA_ALL_TYPES=1, and its checks can fail."""

import json
import os
import socket
from pathlib import Path
from typing import Any

import conformance
import pytest
import torch
import transformers
from architectures import OVERRIDES
from checkout import ROOT
from conformance import CONSTRAINTS, EXPECTED, Result, examine, kind, main, summary, unexpected
from models import WIDTH
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from asa_adapter import ASAAdapter, IncompatibleModelError
from asa_adapter.answering.prefill import Prefilled
from asa_adapter.steering.hook import SteeringHandle
from asa_adapter.steering.windows_and_records import Window

# Plain, tuple and list outputs, recurrent and nested models, an image tower of the text's depth; the rest is refused.
SAMPLE = ("falcon_h1", "gemma3", "git", "gpt2", "lfm2_moe", "mamba2", "rwkv", "deepseek_v4", "xlnet")
TYPES = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if os.environ.get("ASA_ALL_TYPES") else SAMPLE
PINNED = next(line for line in CONSTRAINTS.splitlines() if line.startswith("transformers==")).split("==")[1]


@pytest.mark.parametrize("model_type", TYPES)
def test_every_type_is_steered_and_restored_or_refused(model_type: str) -> None:
    result = examine(model_type)
    assert (result.outcome, unexpected([result])) == (EXPECTED.get(model_type, "steered"), []), result.reason


@pytest.mark.skipif(transformers.__version__ != PINNED, reason="the tables are for the pinned transformers")
@pytest.mark.parametrize("table", [EXPECTED, OVERRIDES])
def test_the_tables_name_types_that_exist(table: dict[str, Any]) -> None:
    assert set(table) <= set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_prompts_that_are_padded_where_they_must_not_be_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prefilled, "is_faithful", lambda _self, _model: True)
    monkeypatch.setattr(Prefilled, "is_paddable", lambda _self, _model: True)
    result = examine("bart")
    assert result.outcome == "failed"
    assert result.reason.startswith("prompts of two tool lists, run together, have other screen, bare answers")


def test_a_step_at_another_token_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    steer = Window.steer

    def one_before(window: Window, hidden: torch.Tensor, in_place: bool) -> torch.Tensor:
        rows, tokens = window.where
        window.where = (rows, tokens - 1)
        return steer(window, hidden, in_place)

    monkeypatch.setattr(Window, "steer", one_before)
    result = examine("gpt2")
    assert result.outcome == "failed"
    assert result.reason.startswith("moved tokens [[False, False, False, False, False, True, False]")


def test_a_step_that_alpha_zero_does_not_stop_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "steer", lambda _window, hidden, in_place: hidden + 1)
    result = examine("gpt2")
    assert (result.outcome, result.reason) == ("failed", "alpha 0 changed the answer")


def test_fitting_that_reads_another_state_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "last_token_states", lambda *_: torch.zeros(4, 1, WIDTH))
    result = examine("gpt2")
    assert result.outcome == "failed"
    assert result.reason == "fitting reads another state than the one that is steered"


def test_what_an_adapter_leaves_behind_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    remove = SteeringHandle.remove

    def untidy(handle: SteeringHandle) -> None:
        if handle._steering is not None:
            handle._steering._model.asa_leftover = True  # type: ignore[assignment]
        remove(handle)

    monkeypatch.setattr(SteeringHandle, "remove", untidy)
    result = examine("gpt2")
    assert (result.outcome, result.reason) == ("failed", "left behind: ['asa_leftover']")


def test_weights_that_change_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    remove = SteeringHandle.remove

    def damage(handle: SteeringHandle) -> None:
        with torch.no_grad():
            handle._weight.add_(1)
        remove(handle)

    monkeypatch.setattr(SteeringHandle, "remove", damage)
    monkeypatch.setattr(conformance, "steer", lambda model, *_: attach_and_remove(model))
    result = examine("gpt2")
    assert (result.outcome, result.reason) == ("failed", "after removal the model is not what it was")


def attach_and_remove(model: Any) -> None:
    conformance.adapter_for(model, conformance.decoder_blocks(model), alpha=1.0).attach(model).remove()


@pytest.mark.parametrize("error", [ValueError, IncompatibleModelError, TypeError])
def test_an_error_that_is_not_raised_by_the_package_fails(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def attach(*_: Any) -> None:
        raise error("not ours")

    monkeypatch.setattr(ASAAdapter, "attach", attach)
    result = examine("gpt2")
    assert result.outcome == "failed"
    assert result.reason.endswith("not ours")


def test_a_model_that_is_not_built_or_cannot_generate_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(conformance, "generate", fail)
    assert (examine("gpt2").outcome, examine("gpt2").reason) == ("no generate", "RuntimeError: broken")
    monkeypatch.setattr(conformance, "tiny_model", fail)
    assert (examine("gpt2").outcome, examine("gpt2").reason) == ("not built", "RuntimeError: broken")


def test_a_connection_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(conformance, "tiny_model", lambda _: socket.create_connection(("127.0.0.1", 9)))
    main(["--only", "gpt2"])
    assert "OSError: the conformance run opens no connection" in capsys.readouterr().out


def test_the_script_prints_the_table_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "gpt2", "--json", str(tmp_path / "table.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=4) == ["steered", "gpt2", "GPT2LMHeadModel", "transformer.h", "tensor (B, T, D)"]
    assert "1 of 1 types built, 1 steered and restored bit by bit, 0 refused with a reason, 0 failed" in lines[1]
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert (row["model_type"], row["outcome"], row["path"]) == ("gpt2", "steered", "transformer.h")


@pytest.mark.parametrize(("version", "status"), [(PINNED, 1), ("99.0", 0)])
def test_another_outcome_than_expected_counts_with_the_pinned_version(
    monkeypatch: pytest.MonkeyPatch, version: str, status: int
) -> None:
    monkeypatch.setattr(transformers, "__version__", version)
    monkeypatch.setitem(EXPECTED, "gpt2", "refused")
    assert main(["--only", "gpt2"]) == status


def test_a_failure_counts_with_every_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers, "__version__", "99.0")
    failed = Result("gpt2", "GPT2LMHeadModel", outcome="failed")
    assert unexpected([failed, Result("llama", "LlamaForCausalLM", outcome="steered")]) == [failed]


def test_the_summary_counts_outcomes() -> None:
    outcomes = ["steered", "steered", "refused", "failed", "not built", "no generate"]
    assert summary([Result("x", "X", outcome=outcome) for outcome in outcomes]).endswith(
        "5 of 6 types built, 2 steered and restored bit by bit, 1 refused with a reason, 1 failed, 1 cannot generate"
    )


def test_an_output_is_named_by_its_axes() -> None:
    state = torch.zeros(2, 7, 32)
    assert kind(state, 32) == "tensor (B, T, D)"
    assert kind((state.transpose(0, 1), None), 32) == "tuple of 2 (T, B, D)"
    assert kind([torch.zeros(2, 7, 4, 32)], 32) == "list of 1 (B, T, 4, D)"


@pytest.mark.skipif(transformers.__version__ != PINNED, reason="the README quotes the pinned transformers")
def test_the_readme_quotes_the_counts_that_the_script_expects() -> None:
    results = [Result(name, "X", outcome=EXPECTED.get(name, "steered")) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert summary(results).split(": ", 1)[1] in readme
