"""Checks on a run of two tokens that a block's output is the residual stream, before a model is steered."""

import weakref
from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.forward import evaluation_mode, forward_keywords, input_device
from asa_adapter.modeling.recording import BlockCall, recorded
from asa_adapter.modeling.residual_stream import hidden_size, hidden_state

# Blocks that passed, so that attaching again does not run the model again. Nothing is stored on the model.
_verified: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()

_WAY_OUT = "If the list of decoder blocks is not the right one, name another with the config's layer_path"


def verify_block(model: nn.Module, blocks: nn.ModuleList, layer: int) -> None:
    """Runs two tokens through the model and checks a block's output; the model is left unchanged.

    The block must run exactly once, its output must have the shape (rows, tokens, width), and the next block must read
    exactly these values; for the last block, it must read those of the block before. Otherwise a vector that is added
    to the output would have no effect, or another one.

    Args:
        model: a causal language model.
        blocks: its decoder blocks.
        layer: index of the block to steer.

    Raises:
        IncompatibleModelError: one of these conditions fails, or the forward pass does.
    """
    if blocks[layer] in _verified:
        return
    calls = _calls_for_two_tokens(model, blocks)
    if (runs := len(calls.get(layer, ()))) > 1:
        raise IncompatibleModelError(
            f"block {layer} of {type(model).__name__} runs {runs} times in one forward pass, so that there is "
            "no one state to read and steer. This architecture cannot be steered"
        )
    if layer not in calls:
        raise IncompatibleModelError(
            f"block {layer} of {type(model).__name__} did not run when the model read two tokens. {_WAY_OUT}"
        )
    shape, expected = tuple(hidden_state(calls[layer][0].output).shape), (1, 2, hidden_size(model))
    if shape != expected:
        raise IncompatibleModelError(
            f"block {layer} of {type(model).__name__} returned a state of shape {shape} for one row of two tokens; "
            f"expected (rows, tokens, width) = {expected}. This architecture cannot be steered"
        )
    from_layer_on = [i for i in sorted(calls) if i >= layer]
    pair = from_layer_on[:2] if len(from_layer_on) > 1 else sorted(calls)[-2:]
    if len(pair) == 2 and not _hands_over_residual(calls[pair[0]][0].output, calls[pair[1]][0].inputs):
        raise IncompatibleModelError(
            f"block {pair[1]} of {type(model).__name__} does not read the output of block {pair[0]}, so that is not "
            f"the residual stream. {_WAY_OUT}"
        )
    _verified.add(blocks[layer])


def _calls_for_two_tokens(model: nn.Module, blocks: nn.ModuleList) -> dict[int, list[BlockCall]]:
    """The calls of each block in a forward pass of two tokens, by layer.

    Raises:
        IncompatibleModelError: the forward pass fails.
    """
    device = input_device(model)
    ids = torch.tensor([[1, 2]], device=device)
    keywords = forward_keywords(model, attention_mask=torch.ones_like(ids), use_cache=False, logits_to_keep=1)
    with (
        evaluation_mode(model),
        torch.random.fork_rng([device] if device.type == "cuda" else []),
        torch.compiler.set_stance("force_eager"),
        recorded(blocks, range(len(blocks)), lambda call: call) as calls,
    ):
        try:
            model(input_ids=ids, **keywords)
        except Exception as error:
            raise IncompatibleModelError(
                f"{type(model).__name__} could not read two tokens, so nothing could be checked: "
                f"{type(error).__name__}: {str(error).strip()[:300]}"
            ) from error
    return calls


def _hands_over_residual(output: Any, inputs: list[torch.Tensor]) -> bool:
    """Whether a block's output is among the next block's inputs, with the same values."""
    state = hidden_state(output)
    return any(t is state or (t.shape == state.shape and torch.equal(t.to(state.device), state)) for t in inputs)
