"""Answers that cannot differ are made once, and those that may be the same are looked at in one pass."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from models import fitted_adapter

from asa_adapter import ASAAdapter, ToolCallParser
from asa_adapter.answering import decoding
from asa_adapter.answering.forcing import Forcing
from asa_adapter.answering.guesses import can_guess, confirmed_guesses
from asa_adapter.answering.leads import Lead, Leads, Variant
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.modeling.forward import evaluation_mode
from asa_adapter.modeling.prefix_cache import SharedPrefix

PAD = 0


@pytest.fixture(scope="module")
def rows(splits: Any) -> list[dict[str, Any]]:
    return list(splits["valid"])[::20]


@pytest.fixture(scope="module")
def evaluation(tiny_lfm2: Any) -> Evaluation:
    parser = ToolCallParser.from_tokenizer(tiny_lfm2[1])
    return Evaluation(*tiny_lfm2, parser, max_new_tokens=16, batch_size=4, progress=False)


@pytest.fixture(scope="module")
def adapters(tiny_lfm2: Any) -> dict[str, ASAAdapter]:
    model = tiny_lfm2[0]
    shape = {"width": model.config.hidden_size, "num_layers": len(model.model.layers)}
    return {f"alpha {alpha:g}": fitted_adapter(**shape, alpha=alpha) for alpha in (3.0, 0.05)}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[bool]]:
    """What each pass that looks at guesses found."""
    found: list[list[bool]] = []

    def seen(*given: Any) -> list[bool]:
        found.append(confirmed_guesses(*given))
        return found[-1]

    monkeypatch.setattr(decoding, "confirmed_guesses", seen)
    return found


def forced(evaluation: Evaluation, amounts: Any) -> Forcing:
    tokens = evaluation.parser.opening_ids(evaluation.tokenizer)
    return Forcing(tuple(tokens), np.asarray(amounts, dtype=np.float32))


def test_answers_of_many_variants_are_those_of_each_by_itself(
    rows: list[dict[str, Any]], evaluation: Evaluation, adapters: dict[str, ASAAdapter], passes: list[list[bool]]
) -> None:
    sides = np.where(np.arange(len(rows)) % 2, math.inf, -math.inf)
    rules = {"always": np.full(len(rows), math.inf), "half": sides, "none": np.zeros(len(rows))}
    variants: dict[str, Variant] = {"base": None, **adapters}
    variants |= {name: forced(evaluation, amounts) for name, amounts in rules.items()}
    found = evaluation.answers_of_each(rows, variants)
    right = sum(map(sum, passes))
    assert right > 0
    for name, variant in variants.items():
        assert found[name] == evaluation.answers_of_each(rows, {name: variant})[name], name
    assert found["none"] == found["base"] != found["always"]


def test_a_guess_that_is_wrong_costs_a_pass_and_no_answer(
    rows: list[dict[str, Any]],
    evaluation: Evaluation,
    adapters: dict[str, ASAAdapter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variants: dict[str, Variant] = {"base": None, **adapters}
    expected = evaluation.answers_of_each(rows, variants)
    asked: list[int] = []

    def wrong(_model: Any, _mask: Any, _cache: Any, answers: Any) -> list[bool]:
        asked.append(len(answers))
        return [False] * len(answers)

    monkeypatch.setattr(decoding, "confirmed_guesses", wrong)
    assert evaluation.answers_of_each(rows, variants) == expected
    assert asked


def test_what_is_asked_twice_is_run_once(
    tiny_lfm2: Any, rows: list[dict[str, Any]], evaluation: Evaluation, adapters: dict[str, ASAAdapter]
) -> None:
    variants: dict[str, Variant] = {"base": None, "asa": adapters["alpha 3"]}
    doubled = variants | {"again": None, "none": forced(evaluation, [0.0] * len(rows))}
    steps: list[int] = []
    with tiny_lfm2[0].register_forward_pre_hook(lambda *_: steps.append(1)):
        once = evaluation.answers_of_each(rows, variants)
        first = len(steps)
        twice = evaluation.answers_of_each(rows, doubled)
    assert len(steps) == 2 * first
    assert twice == {**once, "again": once["base"], "none": once["base"]}


def test_a_guess_is_right_only_if_every_token_is_the_likeliest(tiny_lfm2: Any) -> None:
    model = tiny_lfm2[0]
    ids = torch.tensor([[5, 9, 11, 40, 7, 8]])
    with evaluation_mode(model):
        answer = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, 6:].tolist()
        cache = model(ids, use_cache=True).past_key_values
        mask = torch.ones(1, 7, dtype=torch.int64)
        assert confirmed_guesses(model, mask, cache, [answer]) == [True]
        for place in range(1, len(answer)):
            other = [*answer[:place], answer[place] + 1, *answer[place + 1 :]]
            assert confirmed_guesses(model, mask, cache, [other]) == [False]
        assert confirmed_guesses(model, mask, cache, [answer]) == [True]  # the cache is as it was


def test_no_answers_are_guessed_where_the_model_has_rules_of_its_own_for_tokens(
    tiny_lfm2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = tiny_lfm2[0], ([5, 9, 11, 40, 7, 8], [5, 9, 11, 40, 7, 8, 20, 21, 22])
    with evaluation_mode(model):
        assert can_guess(model, *prompts, SharedPrefix(), PAD)
        monkeypatch.setattr(model.generation_config, "suppress_tokens", [4])
        assert not can_guess(model, *prompts, SharedPrefix(), PAD)


def test_sampled_answers_are_made_one_by_one() -> None:
    said: list[Any] = []
    leads = Leads([0, 1], lambda *answer: said.append(answer), shares=False)
    rounds = list(leads.rounds({"one": None, "two": None}))
    assert [(begun.name, begun.rows) for begun in rounds] == [("one", [0, 1]), ("two", [0, 1])]
    assert not any(leads.joined(begun, None, row, 7) for begun in rounds for row in (0, 1))


def test_an_answer_comes_to_all_places_that_wait_for_it_and_to_those_that_ask_later() -> None:
    said: list[Any] = []
    first, second = (Lead(lambda *answer: said.append(answer), name) for name in "ab")
    second.follow(first)
    first.end([3, 4], cut=False)
    second.add("c")
    assert said == [("a", [3, 4], False), ("b", [3, 4], False), ("c", [3, 4], False)]
