"""Caches of every kind on tiny random models of many families: steered once per row, at the right token."""

import copy
from typing import Any

import pytest
import torch
from architectures import tiny_model
from models import greedy, prompts
from steered_families import families

from asa_adapter import ASAAdapter
from asa_adapter.modeling.forward import CACHE


@families()
def test_same_tokens_without_a_cache(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model):
        assert torch.equal(greedy(model, prompts(), use_cache=False), greedy(model, prompts()))


def test_a_model_that_has_no_cache_is_steered_in_every_pass(adapter: ASAAdapter) -> None:
    model = tiny_model("openai-gpt")
    base = greedy(model, prompts())
    with adapter.attach(model) as steering:
        steered = greedy(model, prompts())
        assert torch.equal(steered, greedy(model, prompts(), use_cache=False))
        assert [d.position for d in steering.decisions] == [8, 8, 8]
    assert not torch.equal(steered[:, 10:], base[:, 10:])


@families("chunked prefill")
@pytest.mark.parametrize("chunk", [*range(1, 11), 20])
def test_same_tokens_and_position_with_chunked_prefill(model: Any, adapter: ASAAdapter, chunk: int) -> None:
    with adapter.attach(model) as steering:
        whole = greedy(model, prompts())
        assert torch.equal(greedy(model, prompts(), prefill_chunk_size=chunk), whole)
        assert [d.position for d in steering.decisions] == [8, 8, 8]


@families("continued cache")
@pytest.mark.parametrize("whole_row", [True, False])
def test_a_continued_cache_is_steered_at_its_new_last_token(model: Any, adapter: ASAAdapter, whole_row: bool) -> None:
    ids = prompts(length=14)
    cache = getattr(model(ids[:, :10], use_cache=True), CACHE)
    given = ids if whole_row else ids[:, 10:]
    with adapter.attach(model) as steering:
        greedy(model, given, **{CACHE: cache}, attention_mask=torch.ones_like(ids))
        record = steering._record
        assert [d.position for d in steering.decisions] == [given.shape[1] - 1] * 3
    assert record is not None
    assert len(record.met) == 1


@families("static cache")
def test_static_cache_gives_the_same_tokens(model: Any, adapter: ASAAdapter) -> None:
    with adapter.attach(model):
        assert torch.equal(greedy(model, prompts(), cache_implementation="static"), greedy(model, prompts()))


@families("continued cache")
def test_a_prefilled_prefix_is_shared_by_a_batch(model: Any, adapter: ASAAdapter) -> None:
    prefix, rest = prompts(rows=1, length=10), prompts(rows=3, length=4, seed=2)
    ids = torch.cat([prefix.expand(3, -1), rest], dim=1)
    with torch.no_grad():
        cache = getattr(model(prefix, use_cache=True), CACHE)
    with adapter.attach(model) as steering:
        whole = greedy(model, ids)
        shared = copy.deepcopy(cache)
        shared.reorder_cache(torch.zeros(3, dtype=torch.long))
        assert torch.equal(greedy(model, ids, **{CACHE: shared}), whole)
        assert [d.position for d in steering.decisions] == [13] * 3
