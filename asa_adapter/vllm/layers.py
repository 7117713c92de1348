"""The steered layer of a vLLM model: the model's own layer, with its output passed through our operation."""

from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.vllm.injection import INJECTION, Injection


@torch.library.custom_op("asa_adapter::steer", mutates_args=("hidden",))
def steer(hidden: torch.Tensor, residual: torch.Tensor, name: str) -> None:
    """Steers a layer's output in place, by the engine's injection of that name."""
    from vllm.forward_context import get_forward_context

    injection: Injection = get_forward_context().no_compile_layers[name]
    injection.steer(hidden, residual)


@steer.register_fake
def _steer_shapes(hidden: torch.Tensor, residual: torch.Tensor, name: str) -> None:
    return None


def steer_layer(layer: nn.Module, injection: Injection) -> None:
    """Makes a layer of a vLLM model a steered one.

    Args:
        layer: a decoder layer whose output is the pair (hidden_states, residual).
        injection: the engine's; kept as the layer's submodule `asa`.

    Raises:
        IncompatibleModelError: the layer's forward pass was replaced, so that ours would not run.
    """
    plain = type(layer)
    if "forward" in layer.__dict__:
        raise IncompatibleModelError(f"the forward pass of {plain.__name__} was replaced; it cannot be steered")

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = _checked_pair(plain.forward(self, *args, **kwargs), plain.__name__)
        torch.ops.asa_adapter.steer(hidden, residual, INJECTION)
        return hidden, residual

    layer.asa = injection
    layer.__class__ = type(f"Steered{plain.__name__}", (plain,), {"forward": forward})


def _checked_pair(output: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(output, tuple) and len(output) == 2 and all(isinstance(part, torch.Tensor) for part in output):
        return output
    raise IncompatibleModelError(
        f"{name} returns a {type(output).__name__}; expected the pair (hidden_states, residual), whose sum is the "
        "residual stream. This architecture cannot be steered in vLLM"
    )


def self_check(injection: Injection, vllm_config: Any) -> None:
    """Sends random states through the operation as the engine will, and checks what it did to them.

    Args:
        injection: the engine's, with nothing planned; left in that state.
        vllm_config: the engine's.

    Raises:
        RuntimeError: the operation did not do what was planned.
    """
    from vllm.forward_context import create_forward_context, override_forward_context

    rows = list(range(1, 1 + min(16, injection.slots)))
    shape = (len(rows) + 2, injection.weight.shape[1])
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(2, *shape, generator=generator, device="cpu") * 10
    hidden, residual = drawn.to(injection.rows.device, vllm_config.model_config.dtype)
    injection.plan(rows, [1.0] * len(rows))
    by_hand, by_operation = hidden.clone(), hidden.clone()
    injection.steer(by_hand, residual)
    with override_forward_context(create_forward_context(None, vllm_config)):
        torch.ops.asa_adapter.steer(by_operation, residual, INJECTION)
        injection.clear()
        untouched = hidden.clone()
        torch.ops.asa_adapter.steer(untouched, residual, INJECTION)
    others = [0, len(rows) + 1]
    sound = (
        torch.equal(by_operation, by_hand)
        and torch.equal(by_operation[others], hidden[others])
        and torch.equal(untouched, hidden)
        and injection.ran.tolist() == [3, 2 * len(rows)]
    )
    injection.forget()
    if not sound:
        raise RuntimeError(
            "asa_adapter's operation did not steer exactly the rows it was told to; report this with the versions of "
            "vLLM and torch, and unset ASA_ADAPTER to serve the bare model"
        )
