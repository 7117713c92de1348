"""Rows that leave their batch and join others get the answers that they get where they are."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from architectures import tiny_model
from models import EOS, PAD, VOCABULARY

from asa_adapter.answering.decoding import Decoder, Regrouping
from asa_adapter.answering.prefill import Prefilled, can_branch
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.prefix_cache import SharedPrefix

LONGEST = 12
STOPS = range(3, 12)
SETTINGS = {"do_sample": False, "pad_token_id": PAD, "max_new_tokens": LONGEST}


def prompts(count: int = 24) -> list[list[int]]:
    """Random prompts of 5 to 9 tokens."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, VOCABULARY, (5 + i % 5,), generator=generator).tolist() for i in range(count)]


def answered(
    model: Any, texts: Sequence[list[int]], regroups: bool, batch_size: int = 6, cuts: dict[int, bool] | None = None
) -> dict[int, list[int]]:
    """The answer to each prompt, by its index; `cuts` gets whether its length ended it."""
    found: dict[int, list[int]] = {}

    def deliver(name: int, ids: list[int], cut: bool) -> None:
        found[name] = ids
        if cuts is not None:
            cuts[name] = cut

    decoder = Decoder(model, SETTINGS, batch_size, STOPS, None, deliver)
    with evaluation_mode(model):
        for begin in range(0, len(texts), 6):
            batch = texts[begin : begin + 6]
            prompt = Prefilled(model, batch, SharedPrefix(), PAD)
            decoder.begin(prompt, range(begin, begin + len(batch)), regroups)
            decoder.go_on()
        decoder.go_on(to_the_end=True)
    return found


def holds(model: Any) -> bool:
    with evaluation_mode(model):
        texts = prompts()
        return can_branch(model, texts, SharedPrefix(), PAD) and Regrouping().holds(model, texts, SharedPrefix(), PAD)


@pytest.mark.parametrize("family", ["lfm2", "qwen3", "gpt2", "bloom", "deepseek_v3", "qwen3_next"])
def test_rows_that_join_others_get_the_answers_of_whole_batches(family: str) -> None:
    model = tiny_model(family)
    assert holds(model)
    assert answered(model, prompts(), True) == answered(model, prompts(), False)


@pytest.mark.parametrize("family", ["gemma3_text", "mistral", "lfm3"])
def test_where_a_cache_cannot_be_divided_or_joined_answers_are_those_of_whole_batches(family: str) -> None:
    model = tiny_model(family)
    assert answered(model, prompts(), holds(model)) == answered(model, prompts(), False)


def test_an_answer_ends_with_the_first_token_that_ends_it_or_at_its_greatest_length() -> None:
    cuts: dict[int, bool] = {}
    answers = answered(tiny_model("lfm2"), prompts(), True, cuts=cuts)
    assert len({len(answer) for answer in answers.values()}) > 4
    for name, answer in answers.items():
        assert not set(answer[:-1]) & {*STOPS, EOS}
        assert cuts[name] is (answer[-1] not in {*STOPS, EOS})
        assert len(answer) == LONGEST or not cuts[name]
    assert set(cuts.values()) == {True, False}


def test_rounds_take_a_fraction_of_the_passes_and_no_batch_is_wider_than_its_longest_row() -> None:
    model, passes, shapes = tiny_model("lfm2"), list[int](), list[Any]()
    generate = model.generate

    def seen(**keywords: Any) -> Any:
        shapes.append(keywords["attention_mask"])
        return generate(**keywords)

    model.generate = seen
    with model.register_forward_pre_hook(lambda *_: passes.append(1)):
        answered(model, prompts(48), False, batch_size=12)
        whole = len(passes)
        answered(model, prompts(48), True, batch_size=12)
    assert len(passes) - whole < 0.6 * whole
    assert all(mask[:, 0].any() for mask in shapes)
    assert max(len(mask) for mask in shapes) == 12


def test_a_full_batch_of_waiting_rows_is_taken_and_the_others_keep_their_answers() -> None:
    model = tiny_model("qwen3")
    assert answered(model, prompts(), True, batch_size=4) == answered(model, prompts(), False)


@pytest.mark.parametrize("where", [2, 5])
def test_an_answer_may_end_where_its_tokens_say_so(where: int) -> None:
    model, found = tiny_model("lfm2"), dict[int, list[int]]()
    decoder = Decoder(
        model, SETTINGS, 6, [], lambda answer: len(answer) == where, lambda name, ids, cut: found.update({name: ids})
    )
    with evaluation_mode(model):
        decoder.begin(Prefilled(model, prompts(6), SharedPrefix(), PAD), range(6), True)
        decoder.go_on(to_the_end=True)
    assert {len(answer) for answer in found.values() if EOS not in answer} == {where}


@pytest.mark.parametrize("name", ["min_new_tokens", "begin_suppress_tokens", "stop_strings"])
def test_settings_that_count_from_where_generate_is_called_keep_batches_whole(name: str) -> None:
    model = tiny_model("qwen3")
    setattr(model.generation_config, name, 3)
    assert not holds(model)
