"""As much of vLLM as the plug-in reads or changes, and an adapter for it. No test needs vLLM itself."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models import DEPTH, WIDTH, controller_of, fitted_adapter

from asa_adapter import ASAAdapter
from asa_adapter.policy.controller import Controller

CPU = torch.device("cpu")


def array(*values: int) -> np.ndarray[Any, Any]:
    return np.array(values, dtype=np.int32)


def controller() -> Controller:
    return controller_of(fitted_adapter(tau=0.5))


def sampling(**extra: Any) -> SimpleNamespace:
    return SimpleNamespace(extra_args=extra or None)


class Layer(torch.nn.Module):
    """A decoder layer as vLLM has them."""

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> Any:
        return hidden_states * 2, residual + hidden_states


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    """A module of vLLM's with just what is given."""
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
    if "." in name:
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(sys.modules.get(parent) or fake(monkeypatch, parent), child, module, raising=False)
    return module


def engine_config(**changes: Any) -> SimpleNamespace:
    """What `check_engine` looks at of vLLM's configuration, as of an engine that can be steered."""
    values: dict[str, Any] = {
        "model_config.runner_type": "generate",
        "model_config.is_encoder_decoder": False,
        "model_config.is_multimodal_model": False,
        "model_config.enable_prompt_embeds": False,
        "model_config.architecture": "Lfm2ForCausalLM",
        "model_config.get_hidden_size": lambda: WIDTH,
        "model_config.get_total_num_hidden_layers": lambda: DEPTH,
        "model_config.hf_config": SimpleNamespace(_commit_hash=None),
        "model_config.model": "people/lfm2",
        "parallel_config.pipeline_parallel_size": 1,
        "parallel_config.data_parallel_size": 1,
        "parallel_config.prefill_context_parallel_size": 1,
        "parallel_config.decode_context_parallel_size": 1,
        "parallel_config.use_sequence_parallel_moe": False,
        "parallel_config.use_ubatching": False,
        "parallel_config.nnodes": 1,
        "parallel_config.distributed_executor_backend": "mp",
        "cache_config.kv_sharing_fast_prefill": False,
        "offload_config.uva": SimpleNamespace(cpu_offload_gb=0),
        "offload_config.prefetch": SimpleNamespace(offload_group_size=0),
        "kv_transfer_config": None,
        "ec_transfer_config": None,
        "lora_config": None,
        "diffusion_config": None,
        "speculative_config": None,
        "additional_config": {},
        **changes,
    }
    config = SimpleNamespace()
    for path, value in values.items():
        section, _, name = path.rpartition(".")
        if section and not hasattr(config, section):
            setattr(config, section, SimpleNamespace())
        setattr(getattr(config, section) if section else config, name, value)
    return config


def lfm2_adapter(**changes: Any) -> ASAAdapter:
    return fitted_adapter(model_type="lfm2", base_model="people/lfm2", **changes)
