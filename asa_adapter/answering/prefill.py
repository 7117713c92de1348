"""`Prefilled`: a batch of prompts that was run up to its last token, so that several answers can start from there."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from asa_adapter.answering.roomy_cache import Buffers, RoomyLayer, room_for_one, take_room
from asa_adapter.engine.padded_batches import pad_batch
from asa_adapter.engine.prefix_tree import Prompt
from asa_adapter.modeling.forward import CACHE, forward, greedy_logits, input_device, rounding
from asa_adapter.modeling.prefix_cache import PrefixSharing, SharedPrefix, copied_cache, unusable_cache_ignored

# Greatest mean difference of logits, relative to their standard deviation, between equal ways of running a prompt.
_LOGIT_TOLERANCE = 1e-4


# Settings with which generate() creates its own cache, or feeds the prompt in another way.
_OWN_CACHE = ("cache_implementation", "prefill_chunk_size", "prompt_lookup_num_tokens", "assistant_early_exit")


def takes_a_cache(model: Any) -> bool:
    """Whether the model's settings let generate() continue from a prefilled cache."""
    settings, config = (getattr(model, name, None) for name in ("generation_config", "config"))
    uncached = any(getattr(place, "use_cache", None) is False for place in (settings, config))
    return not uncached and not any(getattr(settings, name, None) for name in _OWN_CACHE)


class Prefilled:
    """A batch of left-padded prompts, run up to their last token.

    Args:
        model: a causal language model.
        prompts: B prompts as token ids.
        prefix: what all of them begin with. With a prefix of length 0 the prompts are run from their first token; with
            None nothing is run.
        pad_id: id of the token to pad with.

    Attributes:
        ids: (B, T) int64 token ids.
        mask: (B, T) int64, 1 where there is a token.
        cache: the model's cache after all tokens but the last; None if nothing was run, the prompts have one token
            only, or the model returns no cache.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix | None, pad_id: int) -> None:
        self.ids, self.mask = pad_batch(prompts, pad_id, "left", input_device(model))
        self.cache: Any = None
        self._room: dict[int, Buffers] | None = None
        if prefix is None:
            return
        if prefix.length:
            self.cache = _prefilled_cache(model, prompts, prefix)
        elif self.ids.shape[1] > 1:
            output = forward(model, self.ids[:, :-1], self.mask[:, :-1], use_cache=True)
            self.cache = getattr(output, CACHE, None)

    def branch(self) -> Any:
        """A copy of the cache, to continue from without changing the original."""
        return copied_cache(self.cache)

    def branch_of_one_token(self) -> Any:
        """The same for one more token. It has to be done with before the next is asked for: all write to one place."""
        if self.cache is None:
            return None
        if self._room is None:
            self._room = room_for_one(self.cache)
        cache = self.branch()
        for i, buffers in self._room.items():
            cache.layers[i] = RoomyLayer(buffers, self.cache.layers[i].get_seq_length())
        return cache

    def chosen(self, places: Sequence[int]) -> "Prefilled":
        """The prompts at some places of the batch, which may be named several times."""
        if list(places) == list(range(len(self.ids))):
            return self
        some = copy.copy(self)
        index = torch.tensor(list(places), device=self.ids.device)
        some.ids, some.mask, some.cache = self.ids[index], self.mask[index], self.branch_of_one_token()
        if some.cache is not None:
            some.cache.reorder_cache(index)
            some._room = take_room(some.cache)
        return some

    def logits(self, model: nn.Module, cached: bool = True) -> torch.Tensor:
        """(B, V) float32 logits of the answer's first token; with `cached=False` the whole prompts are run."""
        if cached and self.cache is not None:
            output = forward(model, self.ids[:, -1:], self.mask, self.branch_of_one_token(), use_cache=True)
        else:
            output = forward(model, self.ids, self.mask, use_cache=False)
        return output.logits[:, -1].float()

    def is_faithful(self, model: nn.Module) -> bool:
        """Whether the first tokens after the cache have the logits of each prompt run whole and alone.

        The first two tokens are compared, as decoding from a cache may count positions in its own way. False without a
        cache.
        """
        return self.cache is not None and self._is_alike(model)

    def is_paddable(self, model: nn.Module) -> bool:
        """Whether the first tokens after the whole prompts have the logits of each prompt alone."""
        return self._is_alike(model, cached=False)

    def _is_alike(self, model: nn.Module, cached: bool = True) -> bool:
        rows = [ids[mask.bool()][None] for ids, mask in zip(self.ids, self.mask, strict=True)]
        passes = [forward(model, ids, torch.ones_like(ids), use_cache=False).logits[:, -1] for ids in rows]
        if not alike_logits(model, self.logits(model, cached), torch.cat(passes).float()):
            return False
        alone = torch.cat([greedy_logits(model, ids, torch.ones_like(ids)) for ids in rows])
        together = greedy_logits(model, self.ids, self.mask, self.branch() if cached else None)
        same = together[:, 0].argmax(dim=1) == alone[:, 0].argmax(dim=1)  # else they go on from different tokens
        return alike_logits(model, together[:, 0], alone[:, 0]) and alike_logits(
            model, together[same, 1], alone[same, 1]
        )


def can_branch(model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix, pad_id: int) -> bool:
    """Whether answers can start from a prefilled cache; tried on the shortest and the longest of these prompts."""
    sample = [min(prompts, key=len), max(prompts, key=len)]
    with unusable_cache_ignored():
        return Prefilled(model, sample, prefix, pad_id).is_faithful(model)
    return False  # the cache cannot be used


def prefill_sharing(model: nn.Module, pad_id: int) -> PrefixSharing:
    """Shared prefixes and padding of a model, used where the answer's first token has the logits of prompts alone."""

    def faithful(prefix: SharedPrefix, sample: list[Prompt]) -> bool:
        if prefix.length:
            return can_branch(model, sample, prefix, pad_id)
        return Prefilled(model, sample, None, pad_id).is_paddable(model)

    return PrefixSharing(model, faithful)


def alike_logits(model: nn.Module, logits: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether two ways of running prompts gave the same (B, V) logits for each of them, except for rounding."""
    tolerance = max(_LOGIT_TOLERANCE, rounding(model))
    return bool(((whole - logits).abs().mean(dim=1) <= tolerance * whole.std(dim=1)).all())


def _prefilled_cache(model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix) -> Any:
    """The cache after all tokens of the prompts but the last, as if they were run left-padded.

    Padding between the prefix and the rest of a prompt would change the states of convolutional and recurrent layers,
    so only prompts of the same length are run together, and their caches are joined afterwards.
    """
    by_length: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(row)
    caches = []
    for rows in by_length.values():
        cache = prefix.spread(len(rows))
        ids = torch.tensor([list(prompts[row][prefix.length : -1]) for row in rows], device=input_device(model))
        if ids.shape[1]:
            mask = ids.new_ones(len(rows), prefix.length + ids.shape[1])
            forward(model, ids, mask, cache, use_cache=True)
        caches.append(cache)
    whole = joined_caches(caches)
    order = [row for rows in by_length.values() for row in rows]
    if order != sorted(order):
        whole.reorder_cache(torch.tensor(order).argsort())
    return whole


# Layers of a cache that can be joined: what each is made of.
_RECURRENT = (
    LinearAttentionLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)
_ATTENDING = (
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
)


def joined_caches(caches: list[Any]) -> Any:
    """Prefilled caches of different lengths joined along the batch, as if the prompts had been padded on the left.

    The caches are not to be used any more.

    Raises:
        TypeError: a layer of the cache is of a kind that cannot be joined.
    """
    first = caches[0]
    if len(caches) == 1:
        return first
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        if not all(type(layer) in (*_RECURRENT, *_ATTENDING) for layer in layers):
            raise TypeError(f"cannot join caches that hold a {type(layers[0]).__name__}")
        if type(layers[0]) in _RECURRENT:
            _join_states(layers)
        if type(layers[0]) in _ATTENDING and layers[0].is_initialized:
            _join_prefilled_keys(layers)
    return first


def _join_states(layers: Sequence[Any]) -> None:
    """Joins the states of the caches' recurrent layers in the first of them."""
    for states in ("conv_states", "recurrent_states"):
        for i, state in getattr(layers[0], states).items():
            if state is not None:
                getattr(layers[0], states)[i] = torch.cat([getattr(layer, states)[i] for layer in layers])


def _join_prefilled_keys(layers: Sequence[Any]) -> None:
    """Joins the keys and values of the caches' attention layers in the first of them.

    A sliding window holds the last tokens of each prompt, which padding on the left moves alike.
    """
    longest = max(layer.keys.shape[-2] for layer in layers)
    for name in ("keys", "values"):
        setattr(layers[0], name, _left_padded([getattr(layer, name) for layer in layers], longest))
    if isinstance(layers[0], DynamicSlidingWindowLayer):
        layers[0].cumulative_length = max(layer.cumulative_length for layer in layers)


def _left_padded(parts: Sequence[torch.Tensor], length: int) -> torch.Tensor:
    """(B, H, T, D) keys or values of several batches as one, of one length T; each is copied once."""
    rows = [len(part) for part in parts]
    _, heads, _, width = parts[0].shape
    found = parts[0].new_zeros(sum(rows), heads, length, width)
    for part, own in zip(parts, found.split(rows), strict=True):
        own[:, :, length - part.shape[-2] :] = part
    return found
