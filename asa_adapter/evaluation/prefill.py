"""`Prefilled`: a batch of prompts that was run up to its last token, so that several answers can start from there."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from asa_adapter.data.batches import pad_batch
from asa_adapter.modeling.forward import CACHE, forward, input_device, rounding
from asa_adapter.modeling.prefix import Prompt, SharedPrefix, Sharing, copied

# Greatest mean difference of logits, relative to their standard deviation, between equal ways of running a prompt.
_LOGIT_TOLERANCE = 1e-4


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
        if prefix is None:
            return
        if prefix.length:
            self.cache = _behind(model, prompts, prefix)
        elif self.ids.shape[1] > 1:
            output = forward(model, self.ids[:, :-1], self.mask[:, :-1], use_cache=True)
            self.cache = getattr(output, CACHE, None)

    def branch(self) -> Any:
        """A copy of the cache, to continue from without changing the original."""
        return copied(self.cache)

    def logits(self, model: nn.Module, cached: bool = True) -> torch.Tensor:
        """(B, V) float32 logits of the answer's first token; with `cached=False` the whole prompts are run."""
        if cached and self.cache is not None:
            output = forward(model, self.ids[:, -1:], self.mask, self.branch(), use_cache=True)
        else:
            output = forward(model, self.ids, self.mask, use_cache=False)
        return output.logits[:, -1].float()

    def is_faithful(self, model: nn.Module) -> bool:
        """Whether the logits after the cache are those of the whole prompts; False without a cache."""
        return self.cache is not None and alike(model, self.logits(model), self.logits(model, cached=False))


def can_branch(model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix, pad_id: int) -> bool:
    """Whether answers to these prompts can start from a cache; tried on the shortest and the longest of them."""
    sample = [min(prompts, key=len), max(prompts, key=len)]
    # These errors mean that a cache cannot be copied or joined. Whole prompts are slower, not wrong.
    with contextlib.suppress(AttributeError, RuntimeError, TypeError, ValueError):
        return Prefilled(model, sample, prefix, pad_id).is_faithful(model)
    return False


def logit_sharing(model: nn.Module, pad_id: int) -> Sharing:
    """Shared prefixes of a model, used where the logits of the answer's first token are those of whole prompts."""
    return Sharing(model, lambda prefix, sample: can_branch(model, sample, prefix, pad_id))


def alike(model: nn.Module, logits: torch.Tensor, whole: torch.Tensor) -> bool:
    """Whether two ways of running prompts gave the same (B, V) logits, except for rounding."""
    tolerance = max(_LOGIT_TOLERANCE, rounding(model))
    return bool((whole - logits).abs().mean() <= tolerance * whole.std())


def _behind(model: nn.Module, prompts: Sequence[Prompt], prefix: SharedPrefix) -> Any:
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
    whole = joined(caches)
    order = [row for rows in by_length.values() for row in rows]
    if order != sorted(order):
        whole.reorder_cache(torch.tensor(order).argsort())
    return whole


def joined(caches: list[Any]) -> Any:
    """Caches of different lengths joined along the batch and padded on the left to the longest.

    The caches are not to be used any more.

    Raises:
        TypeError: a layer of the cache cannot be padded, such as one with a sliding window.
    """
    first = caches[0]
    if len(caches) == 1:
        return first
    for layers in zip(*(cache.layers for cache in caches), strict=True):
        if not all(type(layer) in (DynamicLayer, LinearAttentionLayer) for layer in layers):
            raise TypeError(f"cannot join caches that hold a {type(layers[0]).__name__}")
        if type(layers[0]) is LinearAttentionLayer:
            for states in ("conv_states", "recurrent_states"):
                for i, state in getattr(layers[0], states).items():
                    if state is not None:
                        getattr(layers[0], states)[i] = torch.cat([getattr(layer, states)[i] for layer in layers])
        elif layers[0].is_initialized:
            length = max(layer.keys.shape[-2] for layer in layers)
            for name in ("keys", "values"):
                parts = [getattr(layer, name) for layer in layers]
                padded = [nn.functional.pad(x, (0, 0, length - x.shape[-2], 0)) for x in parts]
                setattr(layers[0], name, torch.cat(padded))
    return first
