"""The steered layer, and its self-check."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import CPU, Layer, controller
from models import WIDTH

from asa_adapter import IncompatibleModelError
from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.layers import self_check, steer_layer


class SingleLayer(Layer):
    """One whose output is the stream itself."""

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> Any:
        return hidden_states + residual


def test_a_steered_layer_puts_out_its_own_pair_with_the_planned_rows_steered(forward_context: dict[str, Any]) -> None:
    injection, layer = Injection(controller(), slots=2, device=CPU), Layer()
    forward_context[INJECTION] = injection
    plain = Layer()
    hidden, residual = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0)) * 3
    steer_layer(layer, injection)
    injection.plan([2], [1.0])
    expected = list(plain(hidden, residual))
    injection.steer(*expected)
    found = layer(hidden_states=hidden, residual=residual)
    assert isinstance(layer, Layer)
    assert layer.asa is injection
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0][:2], 2 * hidden[:2])
    assert not torch.equal(found[0][2], 2 * hidden[2])


def test_a_layer_that_puts_out_no_pair_is_refused() -> None:
    layer = SingleLayer()
    steer_layer(layer, Injection(controller(), slots=2, device=CPU))
    with pytest.raises(IncompatibleModelError, match="SingleLayer returns a Tensor; expected the pair"):
        layer(torch.zeros(1, WIDTH), torch.zeros(1, WIDTH))


def test_a_layer_whose_forward_was_replaced_is_refused() -> None:
    layer = Layer()
    layer.__dict__["forward"] = lambda *args: args
    with pytest.raises(IncompatibleModelError, match="the forward pass of Layer was replaced"):
        steer_layer(layer, Injection(controller(), slots=2, device=CPU))


@pytest.mark.parametrize("slots", [1, 64])
def test_the_self_check_passes_and_leaves_no_trace(forward_context: dict[str, Any], slots: int) -> None:
    injection = forward_context[INJECTION] = Injection(controller(), slots=slots, device=CPU)
    self_check(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16)))
    assert (injection.ran.tolist(), injection.planned, injection.due.tolist()) == ([0, 0], 0, [1, 0])


def test_the_self_check_stops_an_operation_that_does_nothing(forward_context: dict[str, Any]) -> None:
    injection = Injection(controller(), slots=4, device=CPU)
    forward_context[INJECTION] = SimpleNamespace(steer=lambda hidden, residual: None)
    with pytest.raises(RuntimeError, match="did not steer exactly the rows it was told to"):
        self_check(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32)))
