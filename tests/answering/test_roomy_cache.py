"""A cache with room holds what one that grows by concatenation holds, and copies it once."""

from typing import Any

import pytest
import torch
from models import random_model
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from asa_adapter.answering.prefill import Prefilled
from asa_adapter.answering.roomy_cache import RoomyLayer, give_room, room_for_one, take_room
from asa_adapter.modeling.prefix_cache import SharedPrefix

ROWS, HEADS, WIDTH = 2, 3, 4


def states(tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, ROWS, HEADS, tokens, WIDTH, generator=generator)
    return keys, values


def cache_of(layer: Any, tokens: int = 5) -> Any:
    """A cache of one layer that holds some tokens."""
    cache = DynamicCache()
    cache.layers = [layer]
    layer.update(*states(tokens, seed=0))
    return cache


@pytest.mark.parametrize("room", [1, 3, 100])
def test_it_holds_what_a_growing_one_holds_whatever_its_room(room: int) -> None:
    roomy, plain = cache_of(DynamicLayer()), cache_of(DynamicLayer())
    give_room(roomy, room)
    for seed, tokens in enumerate([1, 1, 2, 1, 70, 1], start=1):
        found, expected = (cache.update(*states(tokens, seed), 0) for cache in (roomy, plain))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert roomy.get_seq_length() == plain.get_seq_length() == 81


@pytest.mark.parametrize(
    "changed",
    [
        lambda layer: layer.crop(-2),
        lambda layer: layer.reset(),
        lambda layer: layer.batch_select_indices(torch.tensor([1, 1])),
        lambda layer: layer.batch_select_indices(torch.tensor([1, 0])),
        lambda layer: layer.batch_repeat_interleave(1),
        lambda layer: layer.reorder_cache(torch.tensor([1, 0])),
    ],
    ids=["crop", "reset", "one row twice", "rows in another order", "repeated", "reordered"],
)
def test_it_goes_on_from_what_another_method_left(changed: Any) -> None:
    roomy, plain = cache_of(DynamicLayer()), cache_of(DynamicLayer())
    give_room(roomy, 3)
    for cache in (roomy, plain):
        cache.update(*states(1, 1), 0)
        changed(cache.layers[0])
    for seed in (2, 3):
        found, expected = (cache.update(*states(1, seed), 0) for cache in (roomy, plain))
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert roomy.get_seq_length() == plain.get_seq_length()


def test_repeated_rows_have_room_too() -> None:
    roomy, plain = cache_of(DynamicLayer()), cache_of(DynamicLayer())
    give_room(roomy, 3)
    more = [torch.cat([one, one]) for one in states(1, 1)]
    for cache in (roomy, plain):
        cache.layers[0].batch_repeat_interleave(2)
    found, expected = (cache.update(*more, 0) for cache in (roomy, plain))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_token_for_which_there_is_room_copies_nothing() -> None:
    cache = cache_of(DynamicLayer())
    give_room(cache, 3)
    places = set()
    for seed in range(3):
        cache.update(*states(1, seed), 0)
        places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1
    cache.update(*states(1, 3), 0)
    assert cache.layers[0].keys.data_ptr() not in places


def test_taken_away_it_grows_by_concatenation_and_leaves_the_room_alone() -> None:
    cache = cache_of(DynamicLayer())
    give_room(cache, 4)
    cache.update(*states(1, 1), 0)
    before = cache.layers[0].keys.clone()
    [(keys, _)] = take_room(cache).values()
    assert type(cache.layers[0]) is DynamicLayer
    behind = keys[..., 6:, :].clone()
    cache.update(*states(1, 2), 0)
    assert torch.equal(cache.layers[0].keys, torch.cat([before, states(1, 2)[0]], dim=-2))
    assert torch.equal(keys[..., 6:, :], behind)


def test_rows_are_taken_with_their_room() -> None:
    cache = cache_of(DynamicLayer())
    give_room(cache, 2)
    cache.reorder_cache(torch.tensor([1, 1, 0]))
    assert torch.equal(cache.layers[0].keys, states(5, 0)[0][[1, 1, 0]])
    place = cache.layers[0].keys.data_ptr()
    keys, values = (torch.ones(3, HEADS, 1, WIDTH) for _ in range(2))
    cache.update(keys, values, 0)
    assert cache.layers[0].keys.data_ptr() == place
    assert torch.equal(cache.layers[0].values[..., -1:, :], values)


def test_layers_that_forget_and_empty_ones_get_none() -> None:
    for layer in (DynamicSlidingWindowLayer(4), DynamicLayer()):
        cache = DynamicCache()
        cache.layers = [layer]
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.update(*states(5, 0))
        give_room(cache, 4)
        assert (cache.layers, room_for_one(cache), take_room(cache)) == ([layer], {}, {})


def test_a_cache_without_layers_stays_as_it_is() -> None:
    give_room(None, 4)
    assert take_room(object()) == {}


def test_passes_of_one_token_use_one_place_and_leave_the_prompts_as_they_were() -> None:
    model = random_model("llama").eval()
    prompt = Prefilled(model, [[3, 4, 5, 6], [3, 4, 5, 7]], SharedPrefix(), pad_id=0)
    with torch.no_grad():
        first, before = prompt.logits(model), [layer.keys.clone() for layer in prompt.cache.layers]
        some = prompt.chosen([1, 0, 1])
        assert torch.allclose(some.logits(model), first[[1, 0, 1]], atol=1e-5)
        assert torch.equal(prompt.logits(model), first)
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(prompt.cache.layers, before, strict=True))
    one, other = prompt.branch_of_one_token(), prompt.branch_of_one_token()
    assert isinstance(one.layers[0], RoomyLayer)
    assert one.layers[0].keys.data_ptr() == other.layers[0].keys.data_ptr()
