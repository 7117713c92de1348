"""Caches with room behind their keys and values, where the next tokens are written.

The cache of transformers grows by `torch.cat`, which copies all that came before, in each layer and for each token:
with prompts of some hundred tokens that takes longer than all else that a decoded token costs.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

# Keys and values, (B, H, C, D) each, with room for C tokens.
Buffers = tuple[torch.Tensor, torch.Tensor]

# Tokens for which there is room at once, at most; where more follow, it is made again.
_ROOM = 64


class RoomyLayer(DynamicLayer):
    """A layer of a cache whose keys and values are the beginnings of larger tensors.

    Args:
        buffers: these tensors.
        length: number of tokens that are there.
    """

    def __init__(self, buffers: Buffers, length: int) -> None:
        super().__init__()
        self.buffers = buffers
        self.dtype, self.device, self.is_initialized = buffers[0].dtype, buffers[0].device, True
        self.keys, self.values = views(buffers, length)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes (B, H, n, D) tokens behind those that are there; where the room does not do, it is made first."""
        if not self.is_initialized:  # reset() dropped what there was
            self.lazy_initialization(key_states, value_states)
            self.buffers = self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        begin, more = self.get_seq_length(), key_states.shape[-2]
        if begin + more > self.buffers[0].shape[-2]:
            self.buffers = _with_room(self, max(more, _ROOM))
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[..., begin : begin + more, :] = states
        self.keys, self.values = found = views(self.buffers, begin + more)
        return found

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Takes rows, by (M,) indices, with the room behind them."""
        keys, values = self.buffers
        index = beam_idx.to(keys.device)
        self.buffers = keys.index_select(0, index), values.index_select(0, index)
        self.keys, self.values = views(self.buffers, self.get_seq_length())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row several times, with room behind it."""
        rows = torch.arange(self.buffers[0].shape[0])
        self.reorder_cache(rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Takes rows, by (M,) indices, with the room behind them."""
        self.reorder_cache(indices)

    def plain(self) -> DynamicLayer:
        """What it holds, as a layer that grows by concatenation: it changes nothing that others share with it."""
        layer = DynamicLayer()
        layer.dtype, layer.device, layer.is_initialized = self.dtype, self.device, True
        layer.keys, layer.values = self.keys, self.values
        return layer


def give_room(cache: Any, tokens: int) -> None:
    """Gives the layers of a cache that keep all tokens room for some more; what they hold is copied."""
    for i, layer in enumerate(_layers(cache)):
        if _keeps_all(layer):
            cache.layers[i] = RoomyLayer(_with_room(layer, min(tokens, _ROOM)), layer.get_seq_length())


def take_room(cache: Any) -> dict[int, Buffers]:
    """Makes the layers of a cache what they were before; nothing is copied. Returns the room they had, by layer."""
    found = {i: layer for i, layer in enumerate(_layers(cache)) if isinstance(layer, RoomyLayer)}
    for i, layer in found.items():
        cache.layers[i] = layer.plain()
    return {i: layer.buffers for i, layer in found.items()}


def room_for_one(cache: Any) -> dict[int, Buffers]:
    """Room for one more token behind the layers of a cache that keep all tokens, by the index of the layer.

    They hold the beginnings of these tensors from now on.
    """
    found = {i: _with_room(layer, 1) for i, layer in enumerate(_layers(cache)) if _keeps_all(layer)}
    for i, buffers in found.items():
        layer = cache.layers[i]
        layer.keys, layer.values = views(buffers, layer.get_seq_length())
    return found


def views(buffers: Buffers, length: int) -> Buffers:
    """The first tokens of keys and values."""
    keys, values = buffers
    return keys[..., :length, :], values[..., :length, :]


def _layers(cache: Any) -> list[Any]:
    return list(getattr(cache, "layers", ()))


def _keeps_all(layer: Any) -> bool:
    """Whether a layer keeps all tokens and nothing else, and has some."""
    return type(layer) is DynamicLayer and layer.get_seq_length() > 0


def _with_room(layer: Any, tokens: int) -> Buffers:
    """Copies of a layer's keys and values, with room for some more tokens."""
    return _copy_with_room(layer.keys, tokens), _copy_with_room(layer.values, tokens)


def _copy_with_room(tensor: torch.Tensor, tokens: int) -> torch.Tensor:
    rows, heads, length, width = tensor.shape
    buffer = tensor.new_empty(rows, heads, length + tokens, width)
    buffer[..., :length, :] = tensor
    return buffer
