"""Prompts unlike those of the fit: without tools they are left alone, with another end they are told of."""

import warnings
from typing import Any

import pytest
import torch
from models import WAYS, fitted_adapter, greedy, prompts, random_model

from asa_adapter import ASAAdapter
from asa_adapter.data.prompt_landmarks import tools_digest
from asa_adapter.matching.prompt_resemblance import NO_TOOLS
from asa_adapter.modeling.forward import CACHE, given_cache

MARK = (40, 41, 42)
END = (50, 51)
TOOLS = [{"name": "weather", "parameters": {}}]


def marked(ids: torch.Tensor, *rows: int) -> torch.Tensor:
    """Prompts with the marks of tools at token 2 of some rows."""
    changed = ids.clone()
    changed[list(rows), 2:5] = torch.tensor(MARK)
    return changed


def adapter(**changes: Any) -> ASAAdapter:
    """An adapter that pushes every row hard, fitted on prompts with the marks."""
    return fitted_adapter(alpha=40.0, tau=0.5, tools_marks=(MARK,), **changes)


@pytest.fixture
def lfm2() -> Any:
    return random_model("lfm2")


@pytest.mark.parametrize("keywords", WAYS, ids=str)
def test_rows_without_tools_are_left_alone_and_the_others_are_steered_as_ever(
    lfm2: Any, keywords: dict[str, Any]
) -> None:
    ids = marked(prompts(3), 1)
    torch.manual_seed(0)
    bare = greedy(lfm2, ids, **keywords)
    with adapter().attach(lfm2) as steering:
        torch.manual_seed(0)
        some = greedy(lfm2, ids, **keywords)
        decisions = steering.decisions
    with adapter().attach(lfm2, steer_without_tools=True):
        torch.manual_seed(0)
        every = greedy(lfm2, ids, **keywords)
    times = len(bare) // 3
    assert torch.equal(some[:times], bare[:times])
    assert torch.equal(some[2 * times :], bare[2 * times :])
    assert torch.equal(some[times : 2 * times], every[times : 2 * times])
    assert not torch.equal(every, bare)
    assert [(bool(d.gate), d.applied, d.reason) for d in decisions] == [
        (False, False, NO_TOOLS),
        (True, True, ""),
        (False, False, NO_TOOLS),
    ]


def test_padding_does_not_hide_the_tools(lfm2: Any) -> None:
    ids = torch.cat([torch.zeros(3, 2, dtype=torch.long), marked(prompts(3), 1)], dim=1)
    mask = torch.ones_like(ids)
    mask[:, :2] = 0
    with adapter().attach(lfm2) as steering:
        greedy(lfm2, ids, attention_mask=mask)
        assert [d.applied for d in steering.decisions] == [False, True, False]


def test_the_switch_can_be_set_later(lfm2: Any) -> None:
    with adapter().attach(lfm2) as steering:
        greedy(lfm2, prompts(2))
        assert [d.applied for d in steering.decisions] == [False, False]
        steering.steer_without_tools = True
        greedy(lfm2, prompts(2))
        assert [d.applied for d in steering.decisions] == [True, True]


def test_an_adapter_without_marks_steers_every_prompt_as_before(lfm2: Any) -> None:
    with fitted_adapter(alpha=40.0, tau=0.5).attach(lfm2) as steering:
        greedy(lfm2, prompts(2))
        assert [(d.applied, d.reason) for d in steering.decisions] == [(True, ""), (True, "")]


def test_embeddings_are_steered_since_their_tokens_are_not_known(lfm2: Any) -> None:
    embeddings = lfm2.get_input_embeddings()(prompts(2))
    with adapter().attach(lfm2) as steering:
        lfm2.generate(inputs_embeds=embeddings, max_new_tokens=2, do_sample=False)
        assert [d.applied for d in steering.decisions] == [True, True]


def test_behind_a_cache_the_tools_are_found_where_whole_rows_are_given(lfm2: Any) -> None:
    ids = marked(prompts(1), 0)
    with adapter().attach(lfm2) as steering:
        first = lfm2.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        more = torch.cat([first.sequences, prompts(1, 4)], dim=1)
        lfm2.generate(more, max_new_tokens=2, do_sample=False, **{CACHE: given_cache(first)})
        assert [d.applied for d in steering.decisions] == [True]


def test_behind_a_cache_tokens_that_are_not_seen_are_taken_to_offer_tools(lfm2: Any) -> None:
    ids = marked(prompts(1), 0)
    with adapter().attach(lfm2) as steering:
        first = lfm2.generate(ids, max_new_tokens=2, do_sample=False, return_dict_in_generate=True)
        more = prompts(1, 4)
        mask = torch.ones(1, first.sequences.shape[1] - 1 + 4, dtype=torch.long)
        lfm2.generate(more, attention_mask=mask, max_new_tokens=2, do_sample=False, **{CACHE: given_cache(first)})
        assert [(d.applied, d.reason) for d in steering.decisions] == [(True, "")]


def ending(ids: torch.Tensor, *rows: int) -> torch.Tensor:
    changed = ids.clone()
    changed[list(rows), -2:] = torch.tensor(END)
    return changed


def test_a_prompt_with_another_end_is_told_of_once_with_its_cause(lfm2: Any) -> None:
    fitted = fitted_adapter(prompt_end=END, generation_tokens=1)
    told = (
        r"the prompt of row 1 does not end like those that the adapter was fitted with: it is raw text, .*apply_chat_"
        r"template\. Its gate was not measured on such prompts"
    )
    with fitted.attach(lfm2):
        with pytest.warns(RuntimeWarning, match=told):
            greedy(lfm2, ending(prompts(3), 0, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            greedy(lfm2, prompts(3))


def test_prompts_that_end_as_the_fitted_ones_are_not_told_of(lfm2: Any) -> None:
    fitted = fitted_adapter(prompt_end=END, generation_tokens=1, tools_marks=(MARK,))
    with fitted.attach(lfm2), warnings.catch_warnings():
        warnings.simplefilter("error")
        greedy(lfm2, ending(marked(prompts(2), 0, 1), 0, 1))
        greedy(lfm2, prompts(2))  # without tools: left alone, whatever the end


def test_other_tools_are_told_of_where_they_are_named(lfm2: Any) -> None:
    fitted = fitted_adapter(tools=TOOLS, tool_lists=(tools_digest(TOOLS),))
    other = [{"name": "stocks", "parameters": {}}]
    told = r"the tools \(stocks\) are not those that the adapter was fitted with \(weather\)\. `evaluate` on rows"
    with pytest.warns(UserWarning, match=told):
        fitted.attach(lfm2, tools=other).remove()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted.attach(lfm2, tools=TOOLS).remove()
        fitted.attach(lfm2).remove()


def test_a_strategy_that_runs_rows_one_by_one_is_asked_for_each(lfm2: Any) -> None:
    ids = marked(prompts(2), 1)

    def one_by_one(model: Any, input_ids: torch.Tensor, **_keywords: Any) -> torch.Tensor:
        return torch.cat([greedy(model, row[None]) for row in input_ids])

    bare = greedy(lfm2, ids)
    with adapter().attach(lfm2) as steering:
        together = greedy(lfm2, ids)
        with steering.recording() as calls:
            apart = greedy(lfm2, ids, custom_generate=one_by_one)
    assert torch.equal(apart, together)
    assert torch.equal(apart[0], bare[0])
    assert [(d.applied, d.reason) for d in calls[0]] == [(True, "")]  # of the latest run
