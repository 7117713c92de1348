"""Installing the plug-in; tests/serving compares what it serves with transformers."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engines import engine_config, fake, lfm2_adapter, sampling
from models import DEPTH
from vllm_source import write_vllm

from asa_adapter import IncompatibleModelError
from asa_adapter.vllm import plugin


class ValidationError(Exception):
    """As vLLM's."""

    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)


class BeamSearchParams:
    """As vLLM's."""


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """As much of vLLM as the plug-in changes, and an adapter at the last layer, which needs no keys."""

    class EngineArgs:
        def create_engine_config(self, **changes: Any) -> Any:
            return engine_config(**changes)

    class InputProcessor:
        def process_inputs(self, request_id: str, prompt: Any, params: Any, resumable: bool = False) -> Any:
            own = SimpleNamespace(extra_args=dict(params.extra_args or {}))
            return SimpleNamespace(
                request_id=request_id, resumable=resumable, prompt_token_ids=prompt, sampling_params=own
            )

        def resolve_watermarking(self, params: Any) -> bool:
            return True

    own = SimpleNamespace(module_name="vllm.model_executor.models.lfm2", class_name="Lfm2ForCausalLM")
    registered: dict[str, str] = {}
    registry = SimpleNamespace(models={"Lfm2ForCausalLM": own}, register_model=registered.__setitem__)
    source = write_vllm(tmp_path)
    fake(monkeypatch, "vllm", ModelRegistry=registry, __file__=str(source / "__init__.py"))
    fake(monkeypatch, "vllm.version", __version__="0.32.0")
    fake(monkeypatch, "vllm.engine.arg_utils", EngineArgs=EngineArgs)
    fake(monkeypatch, "vllm.exceptions", VLLMValidationError=ValidationError)
    fake(monkeypatch, "vllm.sampling_params", BeamSearchParams=BeamSearchParams)
    fake(monkeypatch, "vllm.v1.engine.input_processor", InputProcessor=InputProcessor)
    monkeypatch.setattr(plugin, "_active", None)
    monkeypatch.setenv("ASA_ADAPTER", str(lfm2_adapter(layer=DEPTH - 1).save_pretrained(tmp_path / "adapter")))
    monkeypatch.setenv("ASA_ADAPTER_REVISION", "")
    return SimpleNamespace(args=EngineArgs, processor=InputProcessor, registered=registered, source=source)


def test_installing_registers_the_steered_architecture_and_marks_the_configuration(vllm: SimpleNamespace) -> None:
    plugin.install()
    active = plugin.active()
    assert active is not None
    assert (active.module, active.class_name) == ("vllm.model_executor.models.lfm2", "Lfm2ForCausalLM")
    assert vllm.registered == {"Lfm2ForCausalLM": "asa_adapter.vllm.model_classes:Lfm2ForCausalLM"}
    assert vllm.args().create_engine_config().additional_config == {"asa_adapter": active.adapter.digest()}


def test_installing_twice_changes_nothing(vllm: SimpleNamespace) -> None:
    plugin.install()
    before = (plugin.active(), vllm.args.create_engine_config, vllm.processor.process_inputs)
    plugin.install()
    assert (plugin.active(), vllm.args.create_engine_config, vllm.processor.process_inputs) == before


def test_an_engine_that_cannot_be_steered_is_refused_where_it_is_configured(vllm: SimpleNamespace) -> None:
    plugin.install()
    with pytest.raises(IncompatibleModelError, match="not tried with LoRA"):
        vllm.args().create_engine_config(lora_config=object())


def test_requests_are_checked_where_they_come_in(vllm: SimpleNamespace) -> None:
    plugin.install()
    processor = vllm.processor()
    assert processor.process_inputs("a", [1], sampling(asa=0)).request_id == "a"
    with pytest.raises(ValidationError, match="asa is 7; expected 0"):
        processor.process_inputs("a", [1], sampling(asa=7))
    with pytest.raises(ValidationError, match="no streaming input"):
        processor.process_inputs("a", [1], sampling(), resumable=True)


@pytest.mark.parametrize(("prompt", "expected"), [([5, 6, 1], {}), ([5, 1, 6], {"asa": 0})])
def test_a_request_without_tools_reaches_the_engine_switched_off(
    prompt: list[int], expected: dict[str, Any], vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = lfm2_adapter(layer=DEPTH - 1, tools_marks=((5, 6),)).save_pretrained(tmp_path / "marked")
    monkeypatch.setenv("ASA_ADAPTER", str(folder))
    plugin.install()
    given = sampling()
    assert vllm.processor().process_inputs("a", prompt, given).sampling_params.extra_args == expected
    assert not given.extra_args


def test_beam_search_is_refused(vllm: SimpleNamespace) -> None:
    plugin.install()
    assert vllm.processor().resolve_watermarking(sampling()) is True
    with pytest.raises(ValidationError, match="no beam search"):
        vllm.processor().resolve_watermarking(BeamSearchParams())


def test_a_vllm_whose_runner_differs_stops_before_anything_is_changed(vllm: SimpleNamespace) -> None:
    runner = vllm.source / "v1" / "worker" / "gpu_model_runner.py"
    runner.write_text(runner.read_text().replace("def _model_forward", "def _forward"))
    with pytest.raises(
        RuntimeError, match=r"this is vLLM 0\.32\.0, .* has no GPUModelRunner\._model_forward\. Install"
    ):
        plugin.install()
    assert vllm.registered == {}
    assert plugin.active() is None


def test_a_newer_vllm_that_looks_the_same_is_installed_in(
    vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.modules["vllm.version"], "__version__", "0.99.0")
    plugin.install()
    assert plugin.active() is not None
    assert "not tried with vLLM 0.99.0" in caplog.text


def test_a_missing_adapter_stops_the_engine(vllm: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASA_ADAPTER", "/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="no adapter folder at /nowhere/at/all"):
        plugin.install()
    assert vllm.registered == {}
    assert plugin.active() is None
