"""The steered layer, and its self-check."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import CPU, Layer, controller
from models import WIDTH, fitted_adapter

from asa_adapter import IncompatibleModelError
from asa_adapter.policy.controller import Controller
from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.layers import read_layer, self_check, steer_layer


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


def test_earlier_layers_are_read_for_the_steered_one(forward_context: dict[str, Any]) -> None:
    """The planned rows get the step that the controller takes for the states of both layers."""
    adapter = fitted_adapter(read_layers=(0, 2), tau=0.5)
    both = Controller.build(adapter.config, adapter.vectors, adapter.router, adapter.probes)
    injection = forward_context[INJECTION] = Injection(both, slots=3, device=CPU)
    first, last = Layer(), Layer()
    read_layer(first, 0)
    steer_layer(last, injection)
    hidden, residual = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(1)) * 3
    injection.plan([3, 1], [1.0, 1.0])
    early = [part.clone() for part in first(hidden, residual)]
    expected, beside = Layer()(*early)
    together = torch.cat([early[0] + early[1], expected + beside], dim=1)
    rows = torch.tensor([3, 1])
    expected[rows] = both.steer(expected[rows], both.decide(together[rows]))
    found, _ = last(*early)
    assert torch.equal(early[0], 2 * hidden)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, 2 * early[0])


def test_the_self_check_passes_where_several_layers_are_read(forward_context: dict[str, Any]) -> None:
    adapter = fitted_adapter(read_layers=(0, 1, 2))
    several = Controller.build(adapter.config, adapter.vectors, adapter.router, adapter.probes)
    injection = forward_context[INJECTION] = Injection(several, slots=4, device=CPU)
    self_check(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32)))
    assert injection.ran.tolist() == [0, 0]
