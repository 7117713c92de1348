"""The steered model classes that are registered with vLLM, each a subclass of vLLM's own, by the same name.

vLLM imports this module where it builds a model, and in the process that only inspects a model's class.
"""

import functools
import importlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.matching.loaded_weights import WatchedWeights
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.policy.controller import Controller
from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.plugin import CONFIG_KEY, Plugin, active
from asa_adapter.vllm.refusals import PROVEN
from asa_adapter.vllm.runner_hooks import hook_first_runner, steered_model_state
from asa_adapter.vllm.source_check import LOG
from asa_adapter.vllm.steered_layers import check_operation, read_layer, steer_layer, tell_stream


def __getattr__(name: str) -> type[nn.Module]:
    plugin = active()
    if plugin is None or name != plugin.architecture:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _steered_class(plugin.module, plugin.class_name)


@functools.cache
def _steered_class(module: str, name: str) -> type[nn.Module]:
    """The steered subclass of vLLM's class `name` in `module`."""
    base: Any = getattr(importlib.import_module(module), name)

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        base.__init__(self, vllm_config=vllm_config, prefix=prefix)
        self.asa_vllm_config = vllm_config
        inject_in_model(self, vllm_config)

    def load_weights(self: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> Any:
        watched = WatchedWeights(
            self.asa_vllm_config.model_config.hf_config, _active_plugin().adapter.config.base_model_fingerprint
        )
        loaded = base.load_weights(self, watched.passing(weights))
        watched.check()
        return loaded

    def process_weights_after_loading(self: Any) -> None:
        if hasattr(base, "process_weights_after_loading"):
            base.process_weights_after_loading(self)
        look_at_layers(self, self.asa_vllm_config)

    def get_model_state_cls(self: Any) -> type[Any]:
        from vllm.v1.worker.gpu.model_states import resolve_model_state_cls

        # What vLLM would take without us: the inner model defines no class of its own.
        plain = base.get_model_state_cls(self) if hasattr(base, "get_model_state_cls") else None
        return steered_model_state(plain or resolve_model_state_cls(self.asa_vllm_config, self.model))

    methods = (__init__, load_weights, process_weights_after_loading, get_model_state_cls)
    named = {method.__name__: method for method in methods}
    return type(name, (base,), {**named, "__module__": __name__, "__doc__": base.__doc__})


def inject_in_model(model: nn.Module, vllm_config: Any) -> None:
    """Puts the adapter into a model that was just built, before its weights are loaded and its graphs compiled.

    Args:
        model: vLLM's, of the adapter's architecture.
        vllm_config: the engine's.

    Raises:
        IncompatibleModelError: the model does not fit the adapter, or the engine was configured for another one.
    """
    from vllm.config import CompilationMode

    plugin = _active_plugin()
    adapter, config = plugin.adapter, plugin.adapter.config
    told = vllm_config.additional_config.get(CONFIG_KEY)
    if told != plugin.digest:
        raise IncompatibleModelError(
            f"the engine was configured for the adapter {told!r:.80}, but this process loaded {plugin.digest!r}. All "
            "processes need the same ASA_ADAPTER, and a commit as ASA_ADAPTER_REVISION where the repository moves"
        )
    blocks = decoder_blocks(model)
    if len(blocks) != config.num_layers:
        raise IncompatibleModelError(
            f"vLLM's model has {len(blocks)} decoder blocks, but the adapter was fitted for {config.num_layers}"
        )
    controller = Controller.build(config, adapter.vectors, adapter.router, adapter.probes)
    device = next(model.parameters()).device
    compilation = vllm_config.compilation_config
    slots = vllm_config.scheduler_config.max_num_seqs
    injection = Injection(controller, slots, device, warms_up=compilation.mode != CompilationMode.NONE)
    compilation.static_forward_context[INJECTION] = injection
    for part, layer in enumerate(config.hooked[:-1]):
        read_layer(blocks[layer], part)
    steer_layer(blocks[config.layer], injection)
    check_operation(injection, vllm_config)
    if not vllm_config.use_v2_model_runner:
        hook_first_runner()


@torch.inference_mode()
def look_at_layers(model: nn.Module, vllm_config: Any) -> None:
    """Runs two tokens through a loaded model, to tell how its layers put out the residual stream.

    Args:
        model: vLLM's, with the adapter in it.
        vllm_config: the engine's.

    Raises:
        IncompatibleModelError: in a way that cannot be steered.
    """
    from vllm.forward_context import set_forward_context

    config, blocks = _active_plugin().adapter.config, decoder_blocks(model)
    device = next(model.parameters()).device
    ids, positions = torch.ones(2, dtype=torch.int64, device=device), torch.arange(2, device=device)

    def run() -> torch.Tensor:
        states: torch.Tensor = model(ids, positions, None, None)
        return states

    injection: Injection = vllm_config.compilation_config.static_forward_context[INJECTION]
    with set_forward_context(None, vllm_config, num_tokens=2, skip_compiled=True):
        streams = {tell_stream(model, blocks[layer], run) for layer in config.hooked}
    injection.forget()
    injection.looked = True
    name = _active_plugin().architecture
    proven = "" if name in PROVEN else "; its answers were not yet compared with those of transformers"
    LOG.info("asa_adapter steers %s behind layer %d: %s%s", name, config.layer, " and ".join(sorted(streams)), proven)


def _active_plugin() -> Plugin:
    plugin = active()
    if plugin is None:
        raise RuntimeError("vLLM did not load asa_adapter's plug-in in this process; is ASA_ADAPTER set here too?")
    return plugin
