"""The steered layer of a vLLM model: the model's own layer, whose output passes through one operation of ours."""

from typing import Any

import torch
from torch import nn
from vllm.forward_context import get_forward_context

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.vllm.injection import Injection


@torch.library.custom_op("asa_adapter::steer", mutates_args=("hidden",))
def steer(hidden: torch.Tensor, residual: torch.Tensor, name: str) -> None:
    """Steers a layer's output in place, by the engine's injection of that name."""
    injection: Injection = get_forward_context().no_compile_layers[name]
    injection.steer(hidden, residual)


@steer.register_fake
def _steer_shapes(hidden: torch.Tensor, residual: torch.Tensor, name: str) -> None:
    return None


def steer_layer(layer: nn.Module, injection: Injection, name: str) -> None:
    """Makes a layer of a vLLM model a steered one.

    Args:
        layer: a decoder layer that puts out the pair (hidden_states, residual).
        injection: steers its output; kept as the layer's submodule `asa`.
        name: under which the operation finds the injection.
    """
    plain = type(layer)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = _checked_pair(plain.forward(self, *args, **kwargs), plain.__name__)
        torch.ops.asa_adapter.steer(hidden, residual, name)
        return hidden, residual

    layer.asa = injection
    layer.__class__ = type(f"Steered{plain.__name__}", (plain,), {"forward": forward})


def _checked_pair(output: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(output, tuple) and len(output) == 2 and all(isinstance(part, torch.Tensor) for part in output):
        return output
    raise IncompatibleModelError(
        f"{name} puts out a {type(output).__name__}; expected the pair (hidden_states, residual), whose sum is the "
        "residual stream. This architecture cannot be steered in vLLM"
    )
