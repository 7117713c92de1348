import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from architectures import tiny_model
from models import FAMILIES, PAD, greedy, prompts, random_model, traces

from asa_adapter.answering.prefill import Prefilled, prefill_sharing
from asa_adapter.modeling.forward import CACHE, evaluation_mode, forward
from asa_adapter.modeling.prefix_cache import PrefixSharing, SharedPrefix, copied_cache, unusable_cache_ignored

SHARED = 20


def behind_a_prefix(lengths: tuple[int, ...] = (6, 3, 6, 1, 4)) -> list[list[int]]:
    """Prompts that begin with the same 20 tokens and go on for so many."""
    beginning, *rest = prompts(rows=1 + len(lengths), length=SHARED, seed=3).tolist()
    # The first token behind the prefix differs, so that exactly the prefix is shared.
    return [[*beginning, 10 + i, *rest[i][1:length]] for i, length in enumerate(lengths)]


def faithful_sharing(model: Any) -> PrefixSharing:
    return prefill_sharing(model, PAD)


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


# The types that have layers of keys with a sliding window or chunks; here of 8 tokens, fewer than any prompt has.
SLIDING = (
    *("cohere2", "cwm", "exaone4", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "lfm3", "llama4_text"),
    *("ministral", "mistral", "mixtral", "olmo3", "phi3", "smollm3", "starcoder2", "vaultgemma"),
)


def two_families() -> list[list[int]]:
    """Prompts of two beginnings; those of the first have one length, those of the second have several."""
    other = [[5, *prompt] for prompt in behind_a_prefix((9, 2, 4, 7))]
    return [*behind_a_prefix((5, 5, 5)), *other]


def alone(model: Any, rows: list[list[int]]) -> list[tuple[torch.Tensor, list[int]]]:
    """The logits behind each prompt, and four greedy tokens, without padding, batches or a shared prefix."""
    found = []
    for row in rows:
        ids = torch.tensor([row])
        tokens = model.generate(ids, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=PAD)
        found.append((model(ids).logits[0, -1], tokens[0, len(row) :].tolist()))
    return found


def compared(model: Any, rows: list[list[int]]) -> list[tuple[int, list[int]]]:
    """What is run together, with the length of the prefix; asserts that it gives what each prompt gives alone."""
    groups = []
    with evaluation_mode(model):
        expected = alone(model, rows)
        for prefix, members in faithful_sharing(model).prefixes(rows):
            groups.append((prefix.length, sorted(members)))
            batch = Prefilled(model, [rows[i] for i in members], prefix if prefix.length else None, PAD)
            settings = {"attention_mask": batch.mask, "max_new_tokens": 4, "min_new_tokens": 4}
            settings |= {CACHE: batch.branch()} if prefix.length else {}
            tokens = greedy(model, batch.ids, **settings)[:, batch.ids.shape[1] :].tolist()
            for i, logits, answer in zip(members, batch.logits(model), tokens, strict=True):
                torch.testing.assert_close(logits, expected[i][0], rtol=1e-3, atol=1e-3 * float(expected[i][0].std()))
                assert answer == expected[i][1]
    return groups


@pytest.mark.parametrize("model_type", SLIDING)
def test_sliding_windows_are_joined_for_prompts_of_different_lengths(model_type: str) -> None:
    """The second family's lengths differ; the first one's do not, and once spoke for both."""
    assert compared(tiny_model(model_type), two_families()) == [(SHARED + 1, [3, 4, 5, 6]), (SHARED, [0, 1, 2])]


@pytest.mark.parametrize("model_type", ["xlstm", "git", "bart", "opt", "biogpt"])
def test_prompts_that_padding_would_change_are_run_with_those_of_their_length(model_type: str) -> None:
    rows = [prompt[SHARED - 8 :] for prompt in behind_a_prefix((5, 3, 5, 1))]
    groups = compared(tiny_model(model_type), rows)
    assert groups == ([(0, [0, 1, 2, 3])] if model_type in ("opt", "biogpt") else [(0, [0, 2]), (0, [1]), (0, [3])])


def test_prompts_that_any_batch_would_change_are_run_one_by_one() -> None:
    """transformers' RWKV decodes a batch from another state than it left."""
    rows = [prompt[SHARED - 8 :] for prompt in behind_a_prefix((5, 5, 3))]
    assert compared(tiny_model("rwkv"), rows) == [(0, [0]), (0, [1]), (0, [2])]


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
        first, again = (forward(model, ids[:, :1], mask, copied_cache(cache)).logits for _ in range(2))
        assert torch.equal(first, again)
        assert torch.equal(forward(model, ids[:, :1], mask, before).logits, first)


def test_a_copy_holds_the_keys_only_once() -> None:
    model, ids = random_model("llama"), prompts()
    with evaluation_mode(model):
        cache: transformers.DynamicCache = getattr(forward(model, ids, torch.ones_like(ids), use_cache=True), CACHE)
    assert copied_cache(cache).layers[0].keys is cache.layers[0].keys


def sharing_that(answers: Callable[[int, list[int]], bool]) -> tuple[PrefixSharing, list[tuple[int, list[int]]]]:
    """Sharing that asks a function of the prefix's length and the sample's lengths, and what it was asked."""
    asked: list[tuple[int, list[int]]] = []

    def faithful(prefix: SharedPrefix, sample: list[Any]) -> bool:
        asked.append((prefix.length, [len(prompt) for prompt in sample]))
        return answers(*asked[-1])

    return PrefixSharing(random_model(), faithful), asked


def families_of_lengths(*lengths: tuple[int, int, int]) -> list[list[int]]:
    """For each (prefix, shortest, longest) six prompts that begin alike."""
    return [
        [3 + k] * prefix + [20 + i] * ((longest if i else shortest) - prefix)
        for k, (prefix, shortest, longest) in enumerate(lengths)
        for i in range(6)
    ]


def kept(sharing: PrefixSharing, rows: list[list[int]]) -> list[tuple[int, int]]:
    with evaluation_mode(sharing._model):
        return [(prefix.length, len(members)) for prefix, members in sharing.prefixes(rows)]


def test_one_sample_that_spans_all_families_speaks_for_all_of_them() -> None:
    rows = families_of_lengths((40, 44, 60), (30, 35, 50), (20, 22, 28))
    sharing, asked = sharing_that(lambda _prefix, _sample: True)
    assert kept(sharing, rows) == [(40, 6), (30, 6), (20, 6)]
    assert kept(sharing, rows[6:]) == [(30, 6), (20, 6)]
    assert asked == [(20, [36, 60])]


def test_a_family_with_longer_prompts_is_asked_for_again() -> None:
    sharing, asked = sharing_that(lambda prefix, sample: not prefix or max(sample) <= 50)
    assert kept(sharing, families_of_lengths((30, 35, 50))) == [(30, 6)]
    assert kept(sharing, families_of_lengths((30, 35, 51))) == [(0, 6)]
    assert asked == [(30, [35, 50]), (30, [35, 51]), (0, [35, 51])]


def test_a_family_of_several_lengths_is_asked_for_after_one_of_a_single_length() -> None:
    sharing, asked = sharing_that(lambda prefix, sample: not prefix or len(set(sample)) == 1)
    assert kept(sharing, families_of_lengths((30, 50, 50))) == [(30, 6)]
    assert kept(sharing, families_of_lengths((30, 40, 50))) == [(0, 6)]
    assert asked == [(30, [50, 50]), (30, [40, 50]), (0, [40, 50])]


def test_where_the_sample_of_all_fails_each_family_is_asked_for() -> None:
    """As with a rope that switches at 45 tokens: only what lies on one side of it can be shared."""
    rows = families_of_lengths((46, 48, 60), (30, 35, 50), (30, 35, 40))
    sharing, asked = sharing_that(lambda prefix, sample: not min(prefix or 99, *sample) <= 45 < max(sample))
    assert kept(sharing, rows) == [(46, 6), (30, 6), (0, 1), (0, 5)]
    assert asked[:4] == [(30, [46, 60]), (46, [48, 60]), (30, [35, 50]), (30, [35, 40])]
    assert len(kept(sharing, rows)) == 4
    assert len(asked) == 6  # nothing is asked twice


def nested() -> list[list[int]]:
    """Nine prompts behind three prefixes: one of 20 tokens, and two of 42 that continue it."""
    start = [9] * SHARED
    return [[*start, *middle, 20 + i] for middle in ([], [7] * 22, [8] * 22) for i in range(3)]


def test_one_sample_behind_a_prefix_read_in_two_parts_speaks_for_all_that_continue_another() -> None:
    sharing, asked = sharing_that(lambda _prefix, _sample: True)
    assert kept(sharing, families_of_lengths((20, 21, 43))) == [(20, 6)]
    assert kept(sharing, nested()) == [(20, 3), (42, 3), (42, 3)]
    assert asked == [(20, [21, 43]), (20, [36, 43])]
    assert kept(sharing, nested()) == [(20, 3), (42, 3), (42, 3)]
    assert len(asked) == 2


def test_a_prefix_that_cannot_be_continued_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(_self: SharedPrefix, _rows: int) -> None:
        raise RuntimeError("no copy of this cache")

    monkeypatch.setattr(SharedPrefix, "spread", refuses)
    sharing, asked = sharing_that(lambda _prefix, _sample: True)
    assert kept(sharing, nested()) == [(0, 9)]
    assert (sharing.holds, [prefix for prefix, _ in asked]) == (False, [0])


@pytest.mark.parametrize("model_type", ["lfm2", "lfm2_moe", "qwen3", "gpt2", "gemma3_text", "granite", "falcon_h1"])
def test_prompts_behind_a_prefix_that_continues_another_run_as_alone(model_type: str) -> None:
    assert compared(tiny_model(model_type), nested()) == [(20, [0, 1, 2]), (42, [3, 4, 5]), (42, [6, 7, 8])]


def test_prefixes_are_read_once_and_forgotten_when_nothing_continues_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[int, int]] = []
    longer = SharedPrefix.longer

    def counted(self: SharedPrefix, model: Any, tokens: Any) -> SharedPrefix:
        read.append((self.length, len(tokens)))
        return longer(self, model, tokens)

    sharing, _ = sharing_that(lambda _prefix, _sample: True)
    kept(sharing, nested())
    monkeypatch.setattr(SharedPrefix, "longer", counted)
    kept(sharing, nested())
    assert read == [(0, 20), (20, 42), (20, 42)]


def test_a_prefix_that_proved_wrong_is_not_tried_again() -> None:
    sharing, asked = sharing_that(lambda prefix, _sample: not prefix)
    rows = families_of_lengths((30, 35, 50), (25, 35, 60))
    assert kept(sharing, rows) == kept(sharing, rows) == [(0, 12)]
    assert [prefix for prefix, _ in asked] == [25, 30, 0]
    assert sharing.holds is False


def test_a_small_family_is_not_worth_a_sample_of_its_own() -> None:
    sharing, asked = sharing_that(lambda prefix, _sample: not prefix)
    rows = families_of_lengths((30, 35, 50))
    assert kept(sharing, [*rows, *families_of_lengths((20, 22, 24), (20, 22, 24))[6:9]]) == [(0, 9)]
    assert [prefix for prefix, _ in asked] == [20, 30, 0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError, KeyboardInterrupt])
def test_lack_of_memory_is_not_taken_for_a_cache_that_cannot_be_used(error: type[BaseException]) -> None:
    with pytest.raises(error), unusable_cache_ignored():
        raise error


def scaled_rope(rope: str) -> Any:
    """A tiny Phi-3 whose rope is for up to 64 tokens, and changes with the length beyond 32."""
    parameters: dict[str, Any] = {"rope_theta": 10000.0, "rope_type": rope}
    parameters |= (
        {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0], "original_max_position_embeddings": 32}
        if rope == "longrope"
        else {"factor": 4.0}
    )
    config = FAMILIES["phi3"]()
    config.rope_parameters = parameters
    config.original_max_position_embeddings = 32
    config.max_position_embeddings = 64 if rope == "longrope" else 32
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    return model


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_prompts_that_a_rope_takes_for_long_ones_do_not_share_a_short_prefix(rope: str) -> None:
    model, length = scaled_rope(rope), SHARED
    lengths = (3, 4, 5, 3, 5)
    assert compared(model, behind_a_prefix(lengths)) == [(length, [0, 1, 2, 3, 4])]
    across = behind_a_prefix((3, 4, 17, 3, 17))
    assert {length for length, _ in compared(model, across)} == {0}
