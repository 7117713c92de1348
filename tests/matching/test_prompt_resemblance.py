"""In what a prompt is unlike those that an adapter was fitted with."""

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch

from asa_adapter import ASAConfig
from asa_adapter.data.prompt_landmarks import tools_digest
from asa_adapter.matching.prompt_resemblance import NO_TOOLS, Resemblance
from asa_adapter.matching.token_runs import packed, packed_rows

# The turn's end is 20 21, the generation prompt 22 23 24; tools stand behind 11 12 13, or before 14.
END, MARKS = (20, 21, 22, 23, 24), ((11, 12, 13), (14,))
TOOLS: list[dict[str, Any]] = [{"name": "weather", "parameters": {}}, {"name": "add", "parameters": {}}]
CONFIG = ASAConfig(
    hidden_size=8,
    num_layers=4,
    layer=2,
    domains=("math",),
    tools=TOOLS,
    prompt_end=END,
    generation_tokens=3,
    tools_marks=MARKS,
    tool_lists=(tools_digest(TOOLS),),
    chat_template_variables={"enable_thinking": False},
)
LIKE_THE_FITTED = (1, 11, 12, 13, 5, 14, 6, *END)


def resemblance(**changes: Any) -> Resemblance:
    return Resemblance(dataclasses.replace(CONFIG, **changes))


def test_a_row_offers_tools_where_one_of_the_marks_is_whole() -> None:
    rows = torch.tensor(
        [[11, 12, 13, 1, 1], [1, 1, 1, 1, 14], [11, 12, 1, 13, 1], [1, 2, 3, 4, 5], [12, 13, 11, 12, 1]]
    )
    assert resemblance().offers_tools(packed_rows(rows)) == [True, True, False, False, False]


def test_a_row_shorter_than_a_mark_does_not_have_it() -> None:
    assert resemblance(tools_marks=((1, 2, 3),)).offers_tools([packed([1, 2])]) == [False]


def test_without_marks_it_is_not_known_who_offers_tools() -> None:
    assert resemblance(tools_marks=()).offers_tools([packed([1, 2, 3])]) is None


def test_the_end_is_read_at_the_last_prompt_token_of_each_row() -> None:
    rows = torch.tensor([[14, 0, *END], [14, *END, 0], [14, 2, *END[:-1], 7], [0, 14, *END]])
    told = [resemblance().first_other_end(rows[[i]], np.array([n])) for i, n in enumerate((6, 5, 6, 5))]
    assert [text != "" for text in told] == [False, False, True, True]
    assert resemblance().first_other_end(rows, np.array([6, 5, 6, 5])).startswith("the prompt of row 2 does not end")


def test_a_row_shorter_than_the_end_does_not_end_alike() -> None:
    short = resemblance(tools_marks=())
    assert short.first_other_end(torch.tensor([list(END[1:])]), np.array([3])) != ""
    assert short.first_other_end(torch.tensor([list(END)]), np.array([4])) == ""


def test_of_a_row_without_tools_no_other_end_is_told() -> None:
    assert resemblance().first_other_end(torch.tensor([[1, 2, 3]]), np.array([2])) == ""


def test_an_end_that_is_not_known_is_not_compared() -> None:
    unknown = resemblance(prompt_end=(), generation_tokens=0, tools_marks=())
    assert unknown.first_other_end(torch.tensor([[1]]), np.array([0])) == ""
    assert unknown.other_end([1, 2]) == ""


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (LIKE_THE_FITTED, ""),
        ((1, 2, *END[:2]), "it has no generation prompt: render it with add_generation_prompt=True"),
        # the answer of an earlier turn stands near, but the last turn is the user's
        ((1, *END, 5, 20, 21, 9, 20, 21), "it has no generation prompt: render it with add_generation_prompt=True"),
        ((1, *END, 7), "1 more tokens stand behind the generation prompt: a blank, or an answer that has begun"),
        ((1, *END, 7, 8, 9), "3 more tokens stand behind the generation prompt: a blank, or an answer that has begun"),
        ((1, *END[:-1]), "its generation prompt is another one: render it with {'enable_thinking': False}"),
        ((1, *END[:-1], 30, 31), "its generation prompt is another one: render it with {'enable_thinking': False}"),
        (
            (5, 6, 7, 8),
            "it is raw text, or another chat template rendered it: use tokenizer.apply_chat_template",
        ),
    ],
)
def test_another_end_is_told_by_its_cause(ids: tuple[int, ...], expected: str) -> None:
    assert resemblance().other_end(ids) == expected


def test_another_generation_prompt_has_no_cure_where_the_template_has_no_variables() -> None:
    assert resemblance(chat_template_variables={}).other_end((1, *END[:-1])) == "its generation prompt is another one"


@pytest.mark.parametrize(
    ("tools", "expected"),
    [
        (TOOLS, ""),
        ([{"type": "function", "function": tool} for tool in TOOLS], "the tools are those .* but wrapped or ordered"),
        (TOOLS[::-1], "the tools are those that the adapter was fitted with, but wrapped or ordered otherwise"),
        (TOOLS[:1], r"the tools \(weather\) are not those that the adapter was fitted with \(weather, add\)"),
        (None, r"the tools \(none\) are not those that the adapter was fitted with \(weather, add\)"),
    ],
)
def test_other_tools_are_told(tools: Any, expected: str) -> None:
    found = resemblance().other_tools(tools)
    assert found == "" if not expected else re.match(expected, found)


def test_tools_are_not_compared_where_the_lists_are_not_known() -> None:
    assert resemblance(tool_lists=()).other_tools(None) == ""


def test_notes_name_everything_that_is_unlike() -> None:
    assert resemblance().notes(LIKE_THE_FITTED, TOOLS) == []
    assert resemblance().notes((1, 2, *END), TOOLS) == [f"{NO_TOOLS}, so it is left alone"]
    assert resemblance().notes((14, *END, 7), TOOLS[:1]) == [
        "the tools (weather) are not those that the adapter was fitted with (weather, add)",
        "the prompt's end is unlike: 1 more tokens stand behind the generation prompt: a blank, or an answer that has "
        "begun",
    ]


def test_a_config_of_version_1_compares_nothing() -> None:
    first = Resemblance(ASAConfig(hidden_size=8, num_layers=4, layer=2, domains=("math",), tools=TOOLS))
    assert first.notes((1, 2, 3), None) == []
