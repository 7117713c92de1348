"""Context managers that record, change or skip decoder blocks; all hooks are removed when the `with` block ends."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from asa_adapter.modeling.residual_stream import hidden_state, replace_hidden_state

T = TypeVar("T")


class BlockCall(NamedTuple):
    """One call of a decoder block.

    Attributes:
        layer: index of the block.
        inputs: the tensors among its arguments.
        output: its return value.
    """

    layer: int
    inputs: list[torch.Tensor]
    output: Any


@contextlib.contextmanager
def recorded(
    blocks: nn.ModuleList, layers: Collection[int], keep: Callable[[BlockCall], T]
) -> Iterator[dict[int, list[T]]]:
    """Records the calls of some blocks in the forward passes inside the `with` block.

    Args:
        blocks: the model's decoder blocks.
        layers: indices of the blocks to record.
        keep: called with each `BlockCall`; its return value is recorded.

    Yields:
        For each layer the recorded values, one for each call of the block; a block that did not run has no key.
    """
    found: dict[int, list[T]] = {}

    def record(layer: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        inputs = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        found.setdefault(layer, []).append(keep(BlockCall(layer, inputs, output)))

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(
                blocks[layer].register_forward_hook(
                    lambda _module, args, kwargs, output, layer=layer: record(layer, args, kwargs, output),
                    with_kwargs=True,
                )
            )
        yield found


def pushed(block: nn.Module, delta: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Adds `delta`, (B, D), to a block's output at the last token, inside the `with` block."""
    return block.register_forward_hook(lambda _module, _args, output: _pushed_output(output, delta))


@contextlib.contextmanager
def resumed(blocks: nn.ModuleList, layer: int, output: Any, delta: torch.Tensor) -> Iterator[None]:
    """Skips the blocks up to and including `layer` inside the `with` block, in all threads.

    Each of them returns `output` with `delta` added at the last token, so that the model continues after that block.

    Args:
        blocks: the model's decoder blocks.
        layer: index of the last block to skip.
        output: an earlier output of that block.
        delta: (B, D) float32, or (1,) for the same value everywhere.
    """
    begun, passed_over = _pushed_output(output, delta), list(blocks)[: layer + 1]
    before = [block.__dict__.get("forward") for block in passed_over]
    try:
        for block in passed_over:
            block.__dict__["forward"] = lambda *_args, **_keywords: begun
        yield
    finally:
        for block, own in zip(passed_over, before, strict=True):
            if own is None:
                block.__dict__.pop("forward", None)  # Ctrl-C may come before it is replaced
            else:
                block.__dict__["forward"] = own


def _pushed_output(output: Any, delta: torch.Tensor) -> Any:
    """A block's output with `delta`, (B, D), added at the last token, in the output's dtype."""
    state = hidden_state(output).clone()
    state[:, -1] = (state[:, -1].float() + delta.to(state.device)).to(state.dtype)
    return replace_hidden_state(output, state)
