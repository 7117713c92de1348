"""The steered layer, and its self-check."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import CPU, Layer, controller
from models import WIDTH, controller_of, fitted_adapter

from asa_adapter import IncompatibleModelError
from asa_adapter.vllm.injection import INJECTION, Injection
from asa_adapter.vllm.steered_layers import FIRST, PLAIN, SUM, check_operation, read_layer, steer_layer, tell_stream


class Single(torch.nn.Module):
    """A layer whose output is the stream itself."""

    def forward(self, hidden_states: torch.Tensor) -> Any:
        return hidden_states * 2


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


@pytest.mark.parametrize("shape", [(3, WIDTH), (1, 3, WIDTH)])
def test_a_layer_that_puts_out_one_tensor_is_steered_in_it(
    shape: tuple[int, ...], forward_context: dict[str, Any]
) -> None:
    """The second shape is that of models which vLLM takes from transformers."""
    injection, layer = Injection(controller(), slots=1, device=CPU), Single()
    forward_context[INJECTION] = injection
    states = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3
    steer_layer(layer, injection)
    injection.plan([2], [1.0])
    expected = (2 * states).reshape(3, WIDTH)
    injection.steer(expected, None)
    found = layer(states)
    assert found.shape == shape
    assert torch.equal(found.reshape(3, WIDTH), expected)
    assert not torch.equal(expected[2], 2 * states.reshape(3, WIDTH)[2])


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (torch.zeros(2, 3, WIDTH), rf"a tensor of shape \(2, 3, {WIDTH}\)"),
        ((torch.zeros(2, WIDTH), None), "a tuple of Tensor, NoneType"),
        ((torch.zeros(2, WIDTH),) * 3, "a tuple of Tensor, Tensor, Tensor"),
        ({}, "a dict"),
    ],
)
def test_a_layer_that_puts_out_anything_else_is_refused(output: Any, told: str) -> None:
    layer = Returning(output)
    steer_layer(layer, Injection(controller(), slots=2, device=CPU))
    with pytest.raises(IncompatibleModelError, match=f"Returning returns {told}; expected the pair"):
        layer()


class Returning(torch.nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self) -> Any:
        return self.output


def test_a_layer_whose_forward_was_replaced_is_refused() -> None:
    layer = Layer()
    layer.__dict__["forward"] = lambda *args: args
    with pytest.raises(IncompatibleModelError, match="the forward pass of Layer was replaced"):
        steer_layer(layer, Injection(controller(), slots=2, device=CPU))


@pytest.mark.parametrize("slots", [1, 64])
def test_the_self_check_passes_and_leaves_no_trace(forward_context: dict[str, Any], slots: int) -> None:
    injection = forward_context[INJECTION] = Injection(controller(), slots=slots, device=CPU)
    check_operation(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.bfloat16)))
    assert (injection.ran.tolist(), injection.planned, injection.due.tolist()) == ([0, 0], 0, [1, 0])


def test_the_self_check_stops_an_operation_that_does_nothing(forward_context: dict[str, Any]) -> None:
    injection = Injection(controller(), slots=4, device=CPU)
    forward_context[INJECTION] = SimpleNamespace(steer=lambda hidden, residual: None)
    with pytest.raises(RuntimeError, match="did not steer exactly the rows it was told to"):
        check_operation(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32)))


def test_earlier_layers_are_read_for_the_steered_one(forward_context: dict[str, Any]) -> None:
    """The planned rows get the step that the controller takes for the states of both layers."""
    adapter = fitted_adapter(read_layers=(0, 2), tau=0.5)
    both = controller_of(adapter)
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
    several = controller_of(adapter)
    injection = forward_context[INJECTION] = Injection(several, slots=4, device=CPU)
    check_operation(injection, SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32)))
    assert injection.ran.tolist() == [0, 0]


class Norm(torch.nn.Module):
    """vLLM's: of one tensor, or of a sum that it puts out too, writing into what it is given."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        if residual is None:
            return hidden / hidden.norm(dim=-1, keepdim=True)
        residual += hidden
        hidden.copy_(residual / residual.norm(dim=-1, keepdim=True))
        return hidden, residual


class Rotating(torch.nn.Module):
    """A kind of layer, by how it hands on the stream: "sum", "first", "plain", "difference" or "late".

    Like vLLM's attention without requests, it leaves memory uninitialised.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.norm = kind, Norm()

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> Any:
        if self.kind == "sum":
            normed, residual = self.norm(hidden, residual)
            return normed.roll(1, -1), residual
        if self.kind == "difference":
            normed, residual = self.norm(hidden, -residual)
            return normed.roll(1, -1), residual
        normed = self.norm(hidden)
        if self.kind == "late":  # the second part is added behind the first module
            return normed.roll(1, -1) + residual, hidden
        stream = hidden + normed.roll(1, -1)
        return stream if self.kind == "plain" else (stream, normed)


class Decoder(torch.nn.Module):
    """Layers and a norm, as vLLM's models have them."""

    def __init__(self, kind: str, depth: int = 3) -> None:
        super().__init__()
        self.kind = kind
        self.layers = torch.nn.ModuleList(Rotating(kind) for _ in range(depth))
        self.norm = Norm()

    def forward(self) -> torch.Tensor:
        hidden, residual = torch.randn(2, 2, WIDTH)
        for layer in self.layers:
            output = layer(hidden, residual)
            hidden, residual = output if isinstance(output, tuple) else (output, residual)
        if self.kind in ("sum", "difference"):
            return self.norm(hidden, residual)[0]
        return self.norm(hidden) + (residual if self.kind == "late" else 0)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize(("kind", "stream"), [("sum", SUM), ("first", FIRST), ("plain", PLAIN)])
def test_the_stream_is_told_by_what_reads_it(
    kind: str, stream: str, layer: int, forward_context: dict[str, Any]
) -> None:
    """By the next layer's norm, or the model's own behind the last layer."""
    injection = forward_context[INJECTION] = Injection(controller(), slots=1, device=CPU)
    model = Decoder(kind)
    steer_layer(model.layers[layer], injection)
    assert tell_stream(model, model.layers[layer], model) == stream
    assert not [part for part in model.modules() if part._forward_pre_hooks or part._forward_hooks]


@pytest.fixture
def memory_holds_no_numbers() -> Iterator[None]:
    """What is not initialised is NaN, as memory often is that was NaN before."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("memory_holds_no_numbers")
def test_attention_that_leaves_its_output_as_it_was_does_not_hide_the_stream(forward_context: dict[str, Any]) -> None:
    class Attentive(Decoder):
        def forward(self) -> torch.Tensor:
            hidden, residual = torch.randn(2, 2, WIDTH)
            for layer in self.layers:
                given = hidden + torch.empty(hidden.shape) + torch.empty_like(hidden) + hidden.new_empty(hidden.shape)
                hidden, residual = layer(given, residual)
            return self.norm(hidden)

    injection = forward_context[INJECTION] = Injection(controller(), slots=1, device=CPU)
    model = Attentive("first")
    assert model().isnan().all()
    steer_layer(model.layers[2], injection)
    assert tell_stream(model, model.layers[2], model) == FIRST


@pytest.mark.parametrize("kind", ["difference", "late"])
def test_a_pair_that_holds_the_stream_otherwise_is_refused(kind: str, forward_context: dict[str, Any]) -> None:
    injection = forward_context[INJECTION] = Injection(controller(), slots=1, device=CPU)
    model = Decoder(kind)
    steer_layer(model.layers[1], injection)
    with pytest.raises(IncompatibleModelError, match=r"SteeredRotating returns a pair, but to Norm behind it neither"):
        tell_stream(model, model.layers[1], model)


def test_an_output_that_is_changed_before_it_is_read_is_refused(forward_context: dict[str, Any]) -> None:
    class Scaled(Decoder):
        def forward(self) -> torch.Tensor:
            stream = torch.randn(2, WIDTH)
            for layer in self.layers:
                stream = layer(stream, stream) * 0.5
            return self.norm(stream)

    injection = forward_context[INJECTION] = Injection(controller(), slots=1, device=CPU)
    model = Scaled("plain")
    steer_layer(model.layers[1], injection)
    with pytest.raises(IncompatibleModelError, match="nothing behind SteeredRotating reads its output as it is"):
        tell_stream(model, model.layers[1], model)


def test_only_the_first_part_of_a_pair_is_steered_where_it_is_the_stream(forward_context: dict[str, Any]) -> None:
    injection = forward_context[INJECTION] = Injection(controller(), slots=1, device=CPU)
    model, plain = Decoder("first"), Rotating("first")
    steer_layer(model.layers[1], injection)
    tell_stream(model, model.layers[1], model)
    injection.forget()
    hidden, residual = torch.randn(2, 2, WIDTH, generator=torch.Generator().manual_seed(2)) * 3
    expected, beside = plain(hidden, residual)
    injection.plan([1], [1.0])
    injection.steer(expected, None)
    found = model.layers[1](hidden, residual)
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], beside)
