"""Kinds of state: told from messages when fitting, from role markers among token ids while a model runs."""

from typing import Any

import pytest
import torch

from asa_adapter import ASAConfig
from asa_adapter.data.prompts import encode_prompt, with_chat_template
from asa_adapter.matching.prompt_resemblance import NO_TOOLS, Resemblance
from asa_adapter.matching.scope import NO_KIND, Scope, state_not_fitted
from asa_adapter.matching.state_kinds import (
    kind_of,
    marks_of_state_kinds,
    state_kind_fields,
    told_kinds,
    with_state_marks,
)
from asa_adapter.matching.token_runs import packed, packed_rows

TOOLS = [{"name": "clock", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}}}]
USER, TOOL = {"role": "user", "content": "what time is it?"}, {"role": "tool", "content": "12:30"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "clock", "arguments": {}}}],
}
ANSWER = {"role": "assistant", "content": "Half past twelve."}
FIRST, AFTER = [USER], [USER, CALL, TOOL]
# Results as a user's turn with a tag of text around them, as Qwen2.5 and Qwen3 write them.
AS_USER = (
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALIKE = AS_USER.replace("<tool_response>\n", "").replace("\n</tool_response>", "")
WITHOUT_RESULTS = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_lfm2: tuple[Any, Any]) -> Any:
    return tiny_lfm2[1]


@pytest.mark.parametrize("role", ["tool", "function"])
def test_the_kind_is_that_of_the_last_message(role: str) -> None:
    assert kind_of({"instruction": "hello"}) == "first"
    assert kind_of({"messages": [USER, CALL, {**TOOL, "role": role}]}) == "after_result"
    assert kind_of({"messages": [*AFTER, ANSWER, USER]}) == "first"


@pytest.mark.parametrize("template", [None, AS_USER], ids=["a role of its own", "as the user's turn"])
def test_marks_learnt_from_a_template_tell_the_kind_of_conversations_that_it_renders(
    tokenizer: Any, template: str | None
) -> None:
    tokenizer = with_chat_template(tokenizer, template)
    marks = marks_of_state_kinds(tokenizer, TOOLS)
    chats = [FIRST, AFTER, [*AFTER, ANSWER, USER], [*AFTER, CALL, TOOL], [*AFTER, ANSWER, USER, CALL, TOOL, TOOL]]
    prompts = [encode_prompt(tokenizer, chat, TOOLS) for chat in chats]
    assert told_kinds([packed(prompt) for prompt in prompts], marks) == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("template", [ALIKE, WITHOUT_RESULTS + AS_USER])
def test_a_template_that_shows_no_difference_or_no_results_gives_no_marks(tokenizer: Any, template: str) -> None:
    assert marks_of_state_kinds(with_chat_template(tokenizer, template), TOOLS) == {}


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_hide_the_kind(side: str) -> None:
    marks = {"first": ((7, 8),), "after_result": ((7, 9),)}
    pad, ids = torch.zeros(2, 3, dtype=torch.long), torch.tensor([[7, 8, 1, 7, 9], [7, 9, 1, 7, 8]])
    rows = packed_rows(torch.cat([pad, ids] if side == "left" else [ids, pad], dim=1))
    assert told_kinds(rows, marks) == [1, 0]


def test_of_two_marks_that_end_together_the_longer_one_counts() -> None:
    marks = {"first": ((8,),), "after_result": ((7, 8),)}
    assert told_kinds([packed(ids) for ids in ([7, 8, 1], [8, 1, 1], [7, 8, 8])], marks) == [1, 0, 0]


def test_fields_of_the_config_are_the_kinds_of_the_rows_with_the_marks_of_their_template(tokenizer: Any) -> None:
    rows = [{"messages": FIRST, "tools": TOOLS}, {"messages": AFTER, "tools": TOOLS}]
    prompts = [encode_prompt(tokenizer, row["messages"], TOOLS) for row in rows]
    marks = marks_of_state_kinds(tokenizer, TOOLS)
    assert state_kind_fields(tokenizer, rows, prompts, None) == {
        "states": ("first", "after_result"),
        "state_marks": marks,
    }
    assert state_kind_fields(tokenizer, rows[1:], prompts[1:], None)["states"] == ("after_result",)
    assert state_kind_fields(tokenizer, rows[:1], prompts[:1], None) == {"states": ("first",), "state_marks": marks}


def test_where_the_marks_tell_a_prompt_wrongly_one_kind_stands_for_all(tokenizer: Any) -> None:
    rows = [{"messages": AFTER, "tools": TOOLS}]
    as_first = [encode_prompt(tokenizer, FIRST, TOOLS)]
    assert state_kind_fields(tokenizer, rows, as_first, None) == {"states": ("first",), "state_marks": {}}


def config(**changes: Any) -> ASAConfig:
    marks = {"first": ((7, 8),), "after_result": ((7, 9),)}
    return ASAConfig(hidden_size=8, num_layers=4, layer=2, domains=("a",), **{"state_marks": marks, **changes})


ROWS = torch.tensor([[7, 8, 1, 2, 3, 4], [7, 8, 1, 7, 9, 2], [1, 2, 3, 4, 5, 6]])


@pytest.mark.parametrize(
    ("states", "every", "acts", "told"),
    [
        (("first",), False, [True, False, True], [("first", ""), ("after_result", "no"), ("", "")]),
        (("after_result",), False, [False, True, True], [("first", "no"), ("after_result", ""), ("", "")]),
        (
            ("first", "after_result"),
            False,
            [True, True, False],
            [("first", ""), ("after_result", ""), ("", NO_KIND)],
        ),
        (("first",), True, None, [("first", ""), ("after_result", ""), ("", "")]),
    ],
)
def test_rows_of_a_kind_that_was_not_fitted_are_left_alone_with_a_reason(
    states: tuple[str, ...], every: bool, acts: list[bool] | None, told: list[tuple[str, str]]
) -> None:
    seen = Scope(Resemblance(config(states=states)), every_state=every).look(ROWS, 3)
    assert seen.acts == acts
    expected = [(state, state_not_fitted(state) if why == "no" else why) for state, why in told]
    assert [seen.of_row(row) for row in range(3)] == expected


def test_that_there_are_no_tools_is_told_first() -> None:
    seen = Scope(Resemblance(config(tools_marks=((3, 4),)))).look(ROWS, 3)
    assert seen.acts == [True, False, True]
    assert [seen.of_row(row)[1] for row in range(3)] == ["", NO_TOOLS, ""]


def test_without_token_ids_one_fitted_kind_acts_as_ever_and_several_leave_the_row_alone() -> None:
    one, several = (
        Scope(Resemblance(config(states=s))).look(None, 2) for s in (("first",), ("first", "after_result"))
    )
    assert one.acts is None
    assert [one.of_row(row) for row in (0, 1)] == [("", "")] * 2
    assert several.acts == [False, False]
    assert several.of_row(0) == ("", NO_KIND)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_at_the_end_make_no_other_kind(role: str) -> None:
    assert kind_of({"messages": [*AFTER, {"role": role, "content": "Be short."}]}) == "after_result"
    assert kind_of({"messages": [*FIRST, {"role": role, "content": "Be short."}]}) == "first"


def test_a_config_of_version_1_takes_the_marks_of_the_tokenizer_and_a_later_one_does_not(tokenizer: Any) -> None:
    later = config(state_marks={}, tools=TOOLS, prompt_end=(1, 2))
    assert (later.format_version, with_state_marks(later, tokenizer)) == (2, later)
    bare = config(state_marks={}, tools=TOOLS)
    assert bare.format_version == 1
    assert with_state_marks(bare, tokenizer).state_marks == marks_of_state_kinds(tokenizer, TOOLS)
    assert with_state_marks(bare, None) is bare
    assert with_state_marks(config(), tokenizer) == config()
