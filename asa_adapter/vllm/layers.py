"""The steered layer of a vLLM model: the model's own layer, with its output passed through our operation."""

from collections.abc import Callable
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


@torch.library.custom_op("asa_adapter::read", mutates_args=("hidden",))
def read(hidden: torch.Tensor, residual: torch.Tensor, name: str, part: int) -> None:
    """Shows a layer's output to the engine's injection of that name; nothing changes.

    The output counts as changed: a compiler would leave out an operation that returns and changes nothing.
    """
    from vllm.forward_context import get_forward_context

    injection: Injection = get_forward_context().no_compile_layers[name]
    injection.read(hidden, residual, part)


@read.register_fake
def _read_shapes(hidden: torch.Tensor, residual: torch.Tensor, name: str, part: int) -> None:
    return None


def read_layer(layer: nn.Module, part: int) -> None:
    """Makes a layer of a vLLM model one that the injection reads, as number `part`; see `steer_layer`."""
    _then(layer, "Read", lambda hidden, residual: torch.ops.asa_adapter.read(hidden, residual, INJECTION, part))


def steer_layer(layer: nn.Module, injection: Injection) -> None:
    """Makes a layer of a vLLM model a steered one.

    Args:
        layer: a decoder layer whose output is the pair (hidden_states, residual).
        injection: the engine's; kept as the layer's submodule `asa`.

    Raises:
        IncompatibleModelError: the layer's forward pass was replaced, so that ours would not run.
    """
    _then(layer, "Steered", lambda hidden, residual: torch.ops.asa_adapter.steer(hidden, residual, INJECTION))
    layer.asa = injection


def _then(layer: nn.Module, what: str, work: Callable[[torch.Tensor, torch.Tensor], None]) -> None:
    """Makes a layer's forward pass end in some work on its output."""
    plain = type(layer)
    if "forward" in layer.__dict__:
        raise IncompatibleModelError(f"the forward pass of {plain.__name__} was replaced; it cannot be steered")

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, residual = _checked_pair(plain.forward(self, *args, **kwargs), plain.__name__)
        work(hidden, residual)
        return hidden, residual

    layer.__class__ = type(f"{what}{plain.__name__}", (plain,), {"forward": forward})


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
    shape = (len(rows) + 2, injection.direction.shape[1])
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(2, *shape, generator=generator, device="cpu") * 10
    hidden, residual = drawn.to(injection.rows.device, vllm_config.model_config.dtype)
    injection.plan(rows, [1.0] * len(rows))
    for part in range(len(injection.earlier)):
        injection.read(hidden, residual, part)
    by_hand, by_operation = hidden.clone(), hidden.clone()
    injection.steer(by_hand, residual)
    injection.earlier.zero_()
    with override_forward_context(create_forward_context(None, vllm_config)):
        for part in range(len(injection.earlier)):
            torch.ops.asa_adapter.read(by_operation, residual, INJECTION, part)
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
