import copy
from typing import Any

import pytest
import torch
import transformers
from architectures import tiny_model
from models import PAD, greedy, prompts, random_model, traces

from asa_adapter.evaluation.prefill import Prefilled, logit_sharing
from asa_adapter.modeling.forward import CACHE, evaluation_mode, forward
from asa_adapter.modeling.prefix import Family, SharedPrefix, Sharing, copied, families

SHARED = 20


def behind_a_prefix(lengths: tuple[int, ...] = (6, 3, 6, 1, 4)) -> list[list[int]]:
    """Prompts that begin with the same 20 tokens and go on for so many."""
    beginning, *rest = prompts(rows=1 + len(lengths), length=SHARED, seed=3).tolist()
    # The first token behind the prefix differs, so that exactly the prefix is shared.
    return [[*beginning, 10 + i, *rest[i][1:length]] for i, length in enumerate(lengths)]


def faithful_sharing(model: Any) -> Sharing:
    return logit_sharing(model, PAD)


def test_prompts_are_divided_so_that_the_fewest_tokens_are_run() -> None:
    one, other = [list(range(40)), list(range(3)) + [9] * 40]
    rows = [[*one, 50], [*other, 51], [*one, 52], [*other, 53, 54], [*one, 55]]
    assert families(rows) == [Family([1, 3], 43), Family([0, 2, 4], 40)]


def test_a_few_more_shared_tokens_do_not_divide_a_family() -> None:
    shared = list(range(100))
    rows = [[*shared, 1, 2, 3, i] for i in range(3)] + [[*shared, 4, 5, 6, i] for i in range(3)]
    assert families(rows) == [Family([0, 1, 2, 3, 4, 5], 100)]


def test_every_prompt_keeps_its_last_token() -> None:
    shared = list(range(30))
    assert families([shared, shared, [*shared, 5]]) == [Family([0, 1, 2], 29)]


@pytest.mark.parametrize("rows", [[], [[1, 2]], [[1] * 15 + [2], [1] * 15 + [3]], [[1] * 30, [2] * 30]])
def test_prompts_that_share_too_little_are_one_family_without_a_prefix(rows: list[list[int]]) -> None:
    assert families(rows) == ([Family(list(range(len(rows))), 0)] if rows else [])


def test_a_long_chain_of_prompts_is_divided_without_end() -> None:
    rows = [list(range(i)) for i in range(20, 400)]
    found = families(rows)
    assert sorted(row for family in found for row in family.rows) == list(range(380))


@pytest.mark.parametrize("family", ["lfm2", "lfm2_moe", "llama", "qwen3", "gpt2"])
def test_a_joined_cache_is_that_of_left_padded_prompts(family: str) -> None:
    model, rows = random_model(family), behind_a_prefix()
    with evaluation_mode(model):
        sharing = faithful_sharing(model)
        [(prefix, members)] = sharing.prefixes(rows)
        assert (prefix.length, sorted(members), sharing.holds) == (SHARED, [0, 1, 2, 3, 4], True)
        found = Prefilled(model, rows, prefix, PAD)
        whole = Prefilled(model, rows, SharedPrefix(), PAD)
        torch.testing.assert_close(found.logits(model), whole.logits(model, cached=False), rtol=1e-4, atol=1e-4)
        settings = {"attention_mask": found.mask, "pad_token_id": PAD}
        answers = greedy(model, found.ids, **{CACHE: found.cache}, **settings)
        assert torch.equal(answers, greedy(model, found.ids, **settings))
    assert traces(model) == []


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_sliding_windows_share_among_prompts_of_one_length_and_fall_back_for_others(family: str) -> None:
    model = random_model(family)
    with evaluation_mode(model):
        for lengths, length in (((5, 5, 5), SHARED), ((5, 3, 4), 0)):
            [(prefix, members)] = faithful_sharing(model).prefixes(behind_a_prefix(lengths))
            assert (prefix.length, sorted(members)) == (length, [0, 1, 2])


@pytest.mark.parametrize("model_type", ["mamba", "jamba"])
def test_a_cache_that_cannot_be_gone_on_from_is_not_shared(model_type: str) -> None:
    model = tiny_model(model_type)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)  # or the recurrence would not matter
    with evaluation_mode(model):
        sharing = faithful_sharing(model)
        assert [(prefix.length, len(rows)) for prefix, rows in sharing.prefixes(behind_a_prefix())] == [(0, 5)]
        assert sharing.holds is False


@pytest.mark.parametrize("family", ["lfm2", "llama", "mistral", "falcon_h1"])
def test_using_a_copy_leaves_the_cache_as_it_was(family: str) -> None:
    model, ids = random_model(family), prompts()
    with evaluation_mode(model):
        cache = getattr(forward(model, ids, torch.ones_like(ids), use_cache=True), CACHE)
        before = copy.deepcopy(cache)
        mask = torch.ones(3, ids.shape[1] + 1, dtype=torch.long)
        first, again = (forward(model, ids[:, :1], mask, copied(cache)).logits for _ in range(2))
        assert torch.equal(first, again)
        assert torch.equal(forward(model, ids[:, :1], mask, before).logits, first)


def test_a_copy_holds_the_keys_only_once() -> None:
    model, ids = random_model("llama"), prompts()
    with evaluation_mode(model):
        cache: transformers.DynamicCache = getattr(forward(model, ids, torch.ones_like(ids), use_cache=True), CACHE)
    assert copied(cache).layers[0].keys is cache.layers[0].keys


def test_a_prefix_that_proved_wrong_is_not_tried_again() -> None:
    asked: list[int] = []

    def no(_prefix: SharedPrefix, sample: list[Any]) -> bool:
        asked.append(len(sample))
        return False

    model, rows = random_model(), behind_a_prefix()
    other = [[5, *row] for row in rows]
    with evaluation_mode(model):
        found = list(Sharing(model, no).prefixes([*rows, *other]))
    assert [(prefix.length, sorted(members)) for prefix, members in found] == [(0, list(range(10)))]
    assert asked == [2]
