"""The steered layer of a vLLM model: the model's own layer, with its output passed through our operation."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.vllm.injection import INJECTION, Injection

# How a layer's output holds the residual stream: as the sum of a pair, as the pair's first part, or as itself.
SUM, FIRST, PLAIN = "the sum of a pair", "the first of a pair", "one tensor"


@torch.library.custom_op("asa_adapter::steer", mutates_args=("hidden",))
def steer(hidden: torch.Tensor, residual: torch.Tensor | None, name: str) -> None:
    """Steers a layer's output in place, by the engine's injection of that name."""
    from vllm.forward_context import get_forward_context

    injection: Injection = get_forward_context().no_compile_layers[name]
    injection.steer(hidden, residual)


@steer.register_fake
def _steer_shapes(hidden: torch.Tensor, residual: torch.Tensor | None, name: str) -> None:
    return None


@torch.library.custom_op("asa_adapter::read", mutates_args=("hidden",))
def read(hidden: torch.Tensor, residual: torch.Tensor | None, name: str, part: int) -> None:
    """Shows a layer's output to the engine's injection of that name; nothing changes.

    The output counts as changed: a compiler would leave out an operation that returns and changes nothing.
    """
    from vllm.forward_context import get_forward_context

    injection: Injection = get_forward_context().no_compile_layers[name]
    injection.read(hidden, residual, part)


@read.register_fake
def _read_shapes(hidden: torch.Tensor, residual: torch.Tensor | None, name: str, part: int) -> None:
    return None


def read_layer(layer: nn.Module, part: int) -> None:
    """Makes a layer of a vLLM model one that the injection reads, as number `part`; see `steer_layer`."""
    _end_layer_in(
        layer, "Read", lambda hidden, residual: torch.ops.asa_adapter.read(hidden, residual, INJECTION, part)
    )


def steer_layer(layer: nn.Module, injection: Injection) -> None:
    """Makes a layer of a vLLM model a steered one.

    Args:
        layer: a decoder layer; until `tell_stream` has told more, its output counts as a pair whose sum is the stream,
            or as the stream itself.
        injection: the engine's; kept as the layer's submodule `asa`.

    Raises:
        IncompatibleModelError: the layer's forward pass was replaced, so that ours would not run.
    """
    _end_layer_in(layer, "Steered", lambda hidden, residual: torch.ops.asa_adapter.steer(hidden, residual, INJECTION))
    layer.asa = injection


def _end_layer_in(layer: nn.Module, what: str, work: Callable[[torch.Tensor, torch.Tensor | None], None]) -> None:
    """Makes a layer's forward pass end in some work on its output."""
    plain = type(layer)
    if "forward" in layer.__dict__:
        raise IncompatibleModelError(f"the forward pass of {plain.__name__} was replaced; it cannot be steered")

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = plain.forward(self, *args, **kwargs)
        hidden, residual = _parts_of_output(output, plain.__name__)
        work(hidden, None if self.asa_stream == FIRST else residual)
        return output

    layer.__class__ = type(f"{what}{plain.__name__}", (plain,), {"forward": forward, "asa_stream": None})


def _parts_of_output(output: Any, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a layer's output is made of, (tokens, D) each; vLLM's transformers back end adds a batch of one."""
    parts = output if isinstance(output, tuple) else (output,)
    if len(parts) > 2 or not all(isinstance(part, torch.Tensor) and _is_of_tokens(part) for part in parts):
        raise IncompatibleModelError(
            f"{name} returns {_described(output)}; expected the pair (hidden_states, residual), whose sum is the "
            "residual stream, or the stream itself, (tokens, D). This architecture cannot be steered in vLLM"
        )
    hidden, residual = (*(part[0] if part.ndim == 3 else part for part in parts), None)[:2]
    return hidden, residual


def _is_of_tokens(part: torch.Tensor) -> bool:
    return part.ndim == 2 or (part.ndim == 3 and len(part) == 1)


def _described(output: Any) -> str:
    if isinstance(output, torch.Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    what = type(output).__name__
    return (
        f"a {what} of {', '.join(type(part).__name__ for part in output)}"
        if isinstance(output, tuple)
        else f"a {what}"
    )


def check_operation(injection: Injection, vllm_config: Any) -> None:
    """Sends random states through the layer's operation as the engine will, and checks what it did to them.

    Args:
        injection: the engine's, with nothing planned; left in that state.
        vllm_config: the engine's.

    Raises:
        RuntimeError: the operation did not do what was planned.
    """
    from vllm.forward_context import create_forward_context, override_forward_context

    rows = list(range(1, 1 + min(16, injection.slots)))
    shape = (len(rows) + 2, injection.width)
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(2, *shape, generator=generator, device="cpu") * 10
    hidden, residual = drawn.to(injection.rows.device, vllm_config.model_config.dtype)
    kinds = len(injection.controller.each)
    injection.plan(rows, [1.0] * len(rows), [row % kinds for row in rows])
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


def tell_stream(model: nn.Module, layer: Any, run: Callable[[], torch.Tensor]) -> str:
    """Finds out how a layer's output holds the residual stream, by what the next module makes of it.

    The model is run once. The first module behind the layer that is given the output, such as the norm at the
    beginning of the next layer, is then asked with random states instead: whether (h, r) and (h + r, 0) are the same
    to it, or (h, r) and (h, 0).

    Args:
        model: vLLM's, with its weights.
        layer: one of its decoder layers, steered or read; what is found is kept in its `asa_stream`.
        run: runs the model on a few tokens, not compiled, and returns its states. Attention may compute anything.

    Returns:
        `SUM`, `FIRST` or `PLAIN`.

    Raises:
        IncompatibleModelError: the stream is held in another way.
    """
    found = _OutputReader(layer)
    with found.watching(model):
        run()
    name = type(layer).__name__
    if found.reader is None:
        raise IncompatibleModelError(
            f"nothing behind {name} reads its output as it is, so the residual stream was not found in it. This "
            "architecture cannot be steered in vLLM"
        )
    if (stream := found.told(run)) is None:
        raise IncompatibleModelError(
            f"{name} returns a pair, but to {type(found.reader).__name__} behind it neither the pair's sum nor its "
            "first part is the residual stream. This architecture cannot be steered in vLLM"
        )
    layer.asa_stream = stream
    return stream


class _OutputReader:
    """The first module that is given the output of a layer.

    Attributes:
        reader: the module; None as long as there is none.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._output: tuple[torch.Tensor, ...] = ()
        self._given: tuple[tuple[Any, ...], Mapping[str, Any]] = ((), {})
        self.reader: nn.Module | None = None

    @contextlib.contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Looks for it in the model's runs while the block lasts."""
        inside = set(self._layer.modules())
        leaves = [part for part in model.modules() if part not in inside and not any(part.children())]
        handles = [part.register_forward_pre_hook(self._look, with_kwargs=True) for part in leaves]
        handles.append(self._layer.register_forward_hook(self._keep))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, layer: nn.Module, args: Any, output: Any) -> None:
        self._output = tuple(part for part in _parts_of_output(output, type(layer).__name__) if part is not None)

    def _look(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = (*args, *kwargs.values())
        if self.reader is None and self._output and any(_same_output(value, self._output[0]) for value in given):
            self.reader, self._given = module, (args, dict(kwargs))

    def told(self, run: Callable[[], torch.Tensor]) -> str | None:
        """How the output holds the stream; None if in no known way."""
        if len(self._output) == 1:
            return PLAIN
        generator = torch.Generator("cpu").manual_seed(0)
        drawn = torch.randn(2, *self._output[0].shape, generator=generator, device="cpu")
        hidden, residual = drawn.to(self._output[0].device, self._output[0].dtype)
        nothing = torch.zeros_like(residual)
        as_given = self._asked(hidden, residual)
        if _close_outputs(as_given, self._asked(hidden + residual, nothing)):
            return SUM
        if not _close_outputs(as_given, self._asked(hidden, nothing)):
            return None
        return None if self._is_second_used(run) else FIRST

    def _is_second_used(self, run: Callable[[], torch.Tensor]) -> bool:
        """Whether the output's second part comes to anything, even if not in the reader."""
        hook = self._layer.register_forward_hook(lambda layer, args, output: (output[0], output[1] * float("nan")))
        with hook, _Zeroed():
            return bool(run().isnan().all())

    def _asked(self, *parts: torch.Tensor) -> torch.Tensor:
        """What the reader makes of other states in the place of the output."""

        def instead(value: Any) -> Any:
            # A copy: the reader may write into what it is given.
            return next(
                (
                    new.clone().view_as(value)
                    for new, old in zip(parts, self._output, strict=True)
                    if _same_output(value, old)
                ),
                value.clone() if isinstance(value, torch.Tensor) else value,
            )

        assert self.reader is not None
        args, kwargs = self._given
        output = self.reader(*map(instead, args), **{name: instead(value) for name, value in kwargs.items()})
        first = output[0] if isinstance(output, tuple) else output
        assert isinstance(first, torch.Tensor)
        return first.clone()


class _Zeroed(TorchFunctionMode):
    """Memory that is taken is zero. Attention without requests leaves its output as it is taken.

    That is often no number, where a tensor without numbers was given back just before.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        return found.zero_() if func in _TAKING else found


_TAKING = (torch.empty, torch.empty_like, torch.Tensor.new_empty)


def _same_output(value: Any, part: torch.Tensor) -> bool:
    """Whether a value is the very tensor that a layer put out, perhaps in another shape."""
    return isinstance(value, torch.Tensor) and value.data_ptr() == part.data_ptr() and value.numel() == part.numel()


def _close_outputs(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for the rounding of sums in their dtype."""
    tolerance = 64 * torch.finfo(a.dtype).eps
    return torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance * float(a.float().abs().max()))
