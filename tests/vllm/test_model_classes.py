"""The steered model class."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import Layer, engine_config, fake, lfm2_adapter
from models import DEPTH, WIDTH, random_model

from asa_adapter import IncompatibleModelError
from asa_adapter.modeling.fingerprint import model_fingerprint
from asa_adapter.vllm import model_classes, plugin
from asa_adapter.vllm.injection import INJECTION


class Norm(torch.nn.Module):
    """Of a sum, as vLLM's."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(hidden + residual)


class Lfm2ForCausalLM(torch.nn.Module):
    """As vLLM's, as far as it is looked at."""

    def __init__(self, *, vllm_config: Any, prefix: str) -> None:
        super().__init__()
        self.config = vllm_config.model_config.hf_config
        self.model = torch.nn.Module()
        self.model.layers = torch.nn.ModuleList(Layer() for _ in range(vllm_config.depth))
        self.model.norm = Norm()
        self.head = torch.nn.Linear(1, 1)

    def forward(self, ids: Any, positions: Any, intermediate: Any, embeddings: Any) -> torch.Tensor:
        hidden, residual = torch.randn(2, len(ids), WIDTH)
        for layer in self.model.layers:
            hidden, residual = layer(self.model.norm(hidden, residual), hidden + residual)
        states: torch.Tensor = self.model.norm(hidden, residual)
        return states

    def load_weights(self, weights: Any) -> set[str]:
        return {name for name, _ in weights}


@pytest.fixture
def steered_class(monkeypatch: pytest.MonkeyPatch, forward_context: dict[str, Any]) -> type[Any]:
    """The class that vLLM finds where it looks for the architecture of the adapter, whose digest is "d"."""
    module = "vllm.model_executor.models.lfm2"
    fake(monkeypatch, module, Lfm2ForCausalLM=Lfm2ForCausalLM)
    fake(monkeypatch, "vllm.config", CompilationMode=SimpleNamespace(NONE=0))
    served = random_model("lfm2")
    adapter = lfm2_adapter(base_model_fingerprint=model_fingerprint(served))
    monkeypatch.setattr(plugin, "_active", plugin.Plugin(adapter, "d", "Lfm2ForCausalLM", module, "Lfm2ForCausalLM"))
    model_classes._steered_class.cache_clear()
    return model_classes.Lfm2ForCausalLM


def built(steered: type[Any], context: dict[str, Any], digest: str = "d", depth: int = DEPTH) -> Any:
    """A steered model, built as vLLM does."""
    vllm_config = engine_config(additional_config={"asa_adapter": digest}, depth=depth, use_v2_model_runner=True)
    vllm_config.compilation_config = SimpleNamespace(mode=0, static_forward_context=context)
    vllm_config.scheduler_config = SimpleNamespace(max_num_seqs=4)
    vllm_config.model_config.dtype = torch.float32
    vllm_config.model_config.hf_config = random_model("lfm2").config
    return steered(vllm_config=vllm_config, prefix="")


def test_the_models_one_layer_is_steered_as_it_is_built(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    model = built(steered_class, forward_context)
    assert isinstance(model, Lfm2ForCausalLM)
    assert type(model).__name__ == "Lfm2ForCausalLM"
    assert [type(layer).__name__ for layer in model.model.layers] == ["Layer", "Layer", "SteeredLayer", "Layer"]
    assert model.model.layers[2].asa is forward_context[INJECTION]
    assert forward_context[INJECTION].slots == 4


def test_a_process_with_another_adapter_than_the_engines_is_refused(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    with pytest.raises(IncompatibleModelError, match="configured for the adapter 'e', but this process loaded 'd'"):
        built(steered_class, forward_context, digest="e")


def test_a_model_of_another_depth_is_refused(steered_class: type[Any], forward_context: dict[str, Any]) -> None:
    with pytest.raises(IncompatibleModelError, match=f"has 3 decoder blocks, but the adapter was fitted for {DEPTH}"):
        built(steered_class, forward_context, depth=3)


def test_a_process_without_the_plug_in_is_told(
    steered_class: type[Any], forward_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "_active", None)
    with pytest.raises(RuntimeError, match="did not load asa_adapter's plug-in in this process; is ASA_ADAPTER set"):
        built(steered_class, forward_context)
    with pytest.raises(AttributeError, match="has no attribute 'Lfm2ForCausalLM'"):
        getattr(model_classes, "Lfm2ForCausalLM")  # noqa: B009


def test_the_steered_model_takes_the_adapters_weights_and_no_others(
    steered_class: type[Any], forward_context: dict[str, Any]
) -> None:
    model = built(steered_class, forward_context)
    own = random_model("lfm2").state_dict()
    assert model.load_weights(own.items()) == set(own)
    with pytest.raises(IncompatibleModelError, match="are not those the adapter was fitted for"):
        model.load_weights(random_model("lfm2", seed=1).state_dict().items())


def test_a_loaded_model_is_looked_at_and_what_it_is_goes_to_the_log(
    steered_class: type[Any], forward_context: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = built(steered_class, forward_context)
    injection = forward_context[INJECTION]
    assert not injection.looked
    with caplog.at_level(logging.INFO):
        model.process_weights_after_loading()
    assert injection.looked
    assert (injection.ran.tolist(), injection.planned) == ([0, 0], 0)
    assert caplog.messages == ["asa_adapter steers Lfm2ForCausalLM behind layer 2: the sum of a pair"]


def test_an_architecture_that_was_not_compared_is_served_with_a_word(
    steered_class: type[Any],
    forward_context: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_classes, "PROVEN", ())
    model = built(steered_class, forward_context)
    with caplog.at_level(logging.INFO):
        model.process_weights_after_loading()
    assert caplog.messages[0].endswith("; its answers were not yet compared with those of transformers")


def test_a_model_with_a_hook_of_its_own_keeps_it(
    steered_class: type[Any], forward_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(Lfm2ForCausalLM, "process_weights_after_loading", called.append, raising=False)
    model = built(steered_class, forward_context)
    model.process_weights_after_loading()
    assert called == [model]
    assert forward_context[INJECTION].looked


def test_the_models_own_state_class_plans_for_the_second_runner(
    steered_class: type[Any], forward_context: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own:
        """vLLM's for this model."""

    asked: list[Any] = []
    fake(
        monkeypatch,
        "vllm.v1.worker.gpu.model_states",
        resolve_model_state_cls=lambda config, inner: asked.append(inner) or Own,
    )
    model = built(steered_class, forward_context)
    state = model.get_model_state_cls()
    assert issubclass(state, Own)
    assert state.__name__ == "SteeredModelState"
    assert asked == [model.model]
