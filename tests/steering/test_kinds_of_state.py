"""Rows that end in a kind of state that was not fitted are left alone, whatever generate() does with them."""

from typing import Any

import pytest
import torch
from models import WAYS, fitted_adapter, greedy, prompts, random_model

from asa_adapter import ASAAdapter
from asa_adapter.matching.scope import NO_KIND, state_not_fitted

USER, RESULT = (40, 41), (40, 42)
MARKS = {"first": (USER,), "after_result": (RESULT,)}


def conversation(*ends: str) -> torch.Tensor:
    """Prompts with a user's turn, behind which a tool's result stands in those that end so."""
    ids = prompts(len(ends), 10)
    ids[:, 1:3] = torch.tensor(USER)
    for row, end in enumerate(ends):
        if end == "after_result":
            ids[row, 5:7] = torch.tensor(RESULT)
    return ids


def adapter(**changes: Any) -> ASAAdapter:
    """An adapter that pushes every row hard."""
    return fitted_adapter(alpha=40.0, tau=0.5, state_marks=MARKS, **changes)


@pytest.fixture
def lfm2() -> Any:
    return random_model("lfm2")


@pytest.mark.parametrize("keywords", WAYS, ids=str)
def test_rows_behind_a_result_are_left_alone_and_the_others_are_steered_as_ever(
    lfm2: Any, keywords: dict[str, Any]
) -> None:
    ids = conversation("after_result", "first", "after_result")
    found = {}
    for name, states in (("bare", None), ("fitted", "fitted"), ("all", "all")):
        torch.manual_seed(0)
        if states is None:
            found[name] = greedy(lfm2, ids, **keywords)
            continue
        with adapter().attach(lfm2, states=states) as steering:
            found[name] = greedy(lfm2, ids, **keywords)
            if name == "fitted":
                decisions = steering.decisions
    n = len(found["bare"]) // 3
    for begin in (0, 2 * n):
        assert torch.equal(found["fitted"][begin : begin + n], found["bare"][begin : begin + n])
    assert torch.equal(found["fitted"][n : 2 * n], found["all"][n : 2 * n])
    assert not torch.equal(found["all"], found["bare"])
    why = state_not_fitted("after_result")
    assert [(d.state, d.applied, d.reason) for d in decisions] == [
        ("after_result", False, why),
        ("first", True, ""),
        ("after_result", False, why),
    ]


def test_the_switch_can_be_set_later(lfm2: Any) -> None:
    with adapter().attach(lfm2) as steering:
        greedy(lfm2, conversation("after_result"))
        assert [d.applied for d in steering.decisions] == [False]
        steering.every_state = True
        greedy(lfm2, conversation("after_result"))
        assert [(d.applied, d.state, d.reason) for d in steering.decisions] == [(True, "after_result", "")]


def test_an_adapter_fitted_behind_results_leaves_first_turns_alone(lfm2: Any) -> None:
    with adapter(states=("after_result",)).attach(lfm2) as steering:
        greedy(lfm2, conversation("first", "after_result"))
        assert [d.applied for d in steering.decisions] == [False, True]


def test_an_adapter_without_marks_steers_every_row_as_before(lfm2: Any) -> None:
    ids = conversation("first", "after_result")
    with fitted_adapter(alpha=40.0, tau=0.5).attach(lfm2) as steering:
        greedy(lfm2, ids)
        assert [(d.applied, d.state, d.reason) for d in steering.decisions] == [(True, "", "")] * 2


def test_prompts_whose_tokens_are_not_known_are_steered_by_an_adapter_for_one_kind_alone(lfm2: Any) -> None:
    embeddings = lfm2.get_input_embeddings()(conversation("first", "first"))
    both = adapter(states=("first", "after_result"))
    for one, expected in ((adapter(), (True, "")), (both, (False, NO_KIND))):
        with one.attach(lfm2) as steering:
            lfm2.generate(inputs_embeds=embeddings, max_new_tokens=2, do_sample=False)
            assert [(d.applied, d.reason) for d in steering.decisions] == [expected] * 2


def test_another_word_than_fitted_or_all_is_refused(lfm2: Any) -> None:
    with pytest.raises(ValueError, match="states is 'after_result'; expected 'fitted' or 'all'"):
        adapter().attach(lfm2, states="after_result")


def test_with_a_tokenizer_an_adapter_of_version_1_leaves_turns_behind_a_result_alone(
    tiny_lfm2: tuple[Any, Any], tiny_adapter: ASAAdapter
) -> None:
    model, tokenizer = tiny_lfm2
    call = {"role": "assistant", "content": "[clock()]"}
    chat = [{"role": "user", "content": "what is 7 x 8?"}, call, {"role": "tool", "content": "56"}]
    told = []
    for messages in (chat[:1], chat):
        inputs = tokenizer.apply_chat_template(
            messages,
            tools=tiny_adapter.config.tools,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        for given in (tokenizer, None):
            with tiny_adapter.attach(model, tokenizer=given) as steering:
                model.generate(**inputs, max_new_tokens=1, do_sample=False)
            told += [(d.state, bool(d.reason)) for d in steering.decisions]
    assert told == [("first", False), ("", False), ("after_result", True), ("", False)]
