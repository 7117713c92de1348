"""Decoder blocks recorded, pushed, or passed over for a moment: hooks that are gone when the `with` block ends."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from asa_adapter.modeling.residual import hidden_state, replace_hidden_state

T = TypeVar("T")


class BlockCall(NamedTuple):
    """One call of a decoder block.

    Attributes:
        layer: index of the block.
        inputs: the tensors among its arguments.
        output: what it returned.
    """

    layer: int
    inputs: list[torch.Tensor]
    output: Any


@contextlib.contextmanager
def recorded(
    blocks: nn.ModuleList, layers: Collection[int], keep: Callable[[BlockCall], T]
) -> Iterator[dict[int, list[T]]]:
    """What some blocks do in the forward passes run inside.

    Args:
        blocks: the model's decoder blocks.
        layers: indices of those to record.
        keep: what is kept of a call.

    Yields:
        By layer what was kept, one entry for each time the block ran; no entry for a block that did not.
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
    """A block to whose output (B, D) is added at the last token."""
    return block.register_forward_hook(lambda _module, _args, output: _with_delta(output, delta))


@contextlib.contextmanager
def resumed(blocks: nn.ModuleList, layer: int, output: Any, delta: torch.Tensor) -> Iterator[None]:
    """A model that begins behind a block, with that block's output and (B, D) added to it, in all threads."""
    begun, passed_over = _with_delta(output, delta), list(blocks)[: layer + 1]
    before = [block.__dict__.get("forward") for block in passed_over]
    try:
        for block in passed_over:
            block.__dict__["forward"] = lambda *_args, **_keywords: begun
        yield
    finally:
        for block, own in zip(passed_over, before, strict=True):
            if own is None:
                block.__dict__.pop("forward", None)  # a Ctrl-C may come before it was replaced
            else:
                block.__dict__["forward"] = own


def _with_delta(output: Any, delta: torch.Tensor) -> Any:
    """A block's output with (B, D) added at the last token."""
    state = hidden_state(output).clone()
    state[:, -1] = (state[:, -1].float() + delta.to(state.device)).to(state.dtype)
    return replace_hidden_state(output, state)
