"""Rows with a sentence in the system prompt, or with a question behind the request."""

from typing import Any

import pytest

from asa_adapter.comparison.wordings import QUESTION, with_question, with_sentence

PARTS = [{"type": "text", "text": "What is 2 + 2?"}]


@pytest.mark.parametrize(
    ("turns", "role", "expected"),
    [
        ([("user", "Hi")], "system", [("system", "Think."), ("user", "Hi")]),
        ([("system", "Be kind."), ("user", "Hi")], "system", [("system", "Be kind.\n\nThink."), ("user", "Hi")]),
        ([("system", "Be kind."), ("user", "Hi")], "user", [("system", "Be kind."), ("user", "Think.\n\nHi")]),
        ([("user", PARTS)], "user", [("user", [{"type": "text", "text": "Think."}, *PARTS])]),
    ],
)
def test_a_sentence_stands_in_the_system_turn_or_before_the_request(turns: Any, role: str, expected: Any) -> None:
    row = {"messages": [{"role": who, "content": what} for who, what in turns], "label": 1}
    before = repr(row)
    found = with_sentence(row, "Think.", role)
    assert [(turn["role"], turn["content"]) for turn in found["messages"]] == expected
    assert found["label"] == 1
    assert repr(row) == before


def test_an_instruction_is_a_turn_too() -> None:
    assert with_sentence({"instruction": "Hi"}, "Think.")["messages"][1] == {"role": "user", "content": "Hi"}
    assert with_question({"instruction": "Hi"})["messages"] == [{"role": "user", "content": f"Hi\n\n{QUESTION}"}]


def test_the_question_ends_the_last_user_turn_and_the_chat() -> None:
    turns = [
        {"role": "user", "content": "Add 1 and 2."},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": PARTS},
        {"role": "tool", "content": "4"},
    ]
    found = with_question({"messages": turns})["messages"]
    assert found[:2] == turns[:2]
    assert found[2:] == [{"role": "user", "content": [*PARTS, {"type": "text", "text": QUESTION}]}]
