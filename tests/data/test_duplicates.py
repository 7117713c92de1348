from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from asa_adapter.data import duplicates
from asa_adapter.data.duplicates import (
    group_summary,
    leak_summary,
    leaks,
    near_duplicate_groups,
    near_duplicates,
    row_groups,
)
from asa_adapter.data.rows import row_names


def texts(n: int = 90) -> list[str]:
    """Random sentences of a few words, some of them alike."""
    generator = np.random.default_rng(0)
    words = ["river", "stone", "market", "window", "garden", "letter", "bridge", "winter", "copper", "violin"]
    found = [" ".join(generator.choice(words, 7)) for _ in range(n)]
    return found + [text + "!" for text in found[:20]]


@pytest.mark.parametrize("block", [1, 7, 512])
def test_pairs_are_those_of_the_full_matrix_whatever_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(texts())
    similar = np.triu((grams @ grams.T).toarray(), 1)
    expected = set(zip(*np.nonzero(similar > 0.8), strict=True))
    found = list(near_duplicates(texts()))
    assert len(expected) >= 20
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize("some", [[], ["one"], ["", " "]])
def test_nothing_to_compare_has_no_pairs(some: list[str]) -> None:
    assert list(near_duplicates(some)) == []
    assert near_duplicate_groups(some) == [[i] for i in range(len(some))]


def test_leaks_are_named_by_split_and_row() -> None:
    texts = {
        "train": {"a": "how far is it from Leeds to York by train", "b": "what is a noun"},
        "valid": {"c": "How far is it  from leeds to york by train", "d": "who wrote the second letter"},
        "test": {"e": "how far is it from Leeds to York by train?!", "f": "something else entirely"},
    }
    found = leaks(
        {split: [{"id": name, "instruction": text} for name, text in rows.items()] for split, rows in texts.items()}
    )
    assert [tuple(leak) for leak in found] == [
        ("exact", "train:a", "valid:c"),
        ("near", "train:a", "test:e"),
        ("near", "valid:c", "test:e"),
    ]
    assert leak_summary(found, shown=2) == (
        "1 exact and 2 near duplicates stand in two splits: train:a and valid:c; train:a and test:e and 1 more"
    )


def test_alike_rows_of_one_split_are_no_leak() -> None:
    same = {"instruction": "what is the time"}
    assert leaks({"train": [same, same], "test": [{"instruction": "a new one"}]}) == []


def test_turns_of_one_conversation_in_two_splits_are_a_leak_and_a_shared_system_turn_is_none() -> None:
    system = {"role": "system", "content": "You are a patient assistant of the railways and answer in one sentence."}
    begun = [system, {"role": "user", "content": "Which platform?"}]
    asked = [
        {"role": "assistant", "content": "For which train?"},
        {"role": "user", "content": "The one to York at 9."},
    ]
    other = [system, {"role": "user", "content": "Is there a buffet?"}]
    found = leaks(
        {"train": [{"messages": begun}, {"messages": other}], "test": [{"id": "x", "messages": begun + asked}]}
    )
    assert [tuple(leak) for leak in found] == [("conversation", "train:row 0", "test:x")]
    assert leak_summary(found) == (
        "0 exact and 0 near duplicates and 1 pair of turns of one conversation stand in two splits: train:row 0 and "
        "test:x"
    )


def test_rows_without_an_id_are_named_by_number() -> None:
    assert row_names([{"id": "x"}, {}, {"id": 0}]) == ["x", "row 1", "0"]


# --- rows that belong together


def turn(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


TRIP = [turn("user", "Is there a train to York?"), turn("assistant", "Yes, at nine."), turn("user", "And back?")]
BREAD = [
    turn("user", "Is there a train to York?"),
    turn("assistant", "Which day do you mean?"),
    turn("user", "Today."),
]


def test_turns_of_one_conversation_belong_together() -> None:
    rows = [
        {"messages": TRIP[:1]},
        {"instruction": "Tell me a joke."},
        {"messages": TRIP},
        {"messages": [*TRIP, *TRIP[1:]]},
    ]
    assert row_groups(rows).tolist() == [0, 1, 0, 0]


def test_conversations_that_only_open_alike_do_not() -> None:
    long = "something that takes many more words than the question did, so that few of them are alike"
    rows = [{"messages": [*TRIP, turn("assistant", long)]}, {"messages": [*BREAD, turn("assistant", long[::-1])]}]
    assert row_groups(rows).tolist() == [0, 1]
    assert row_groups([*rows, {"messages": TRIP[:1]}]).tolist() == [0, 0, 0]  # it may be cut from either


def test_a_system_prompt_that_all_rows_share_joins_none() -> None:
    system = turn("system", "You are an assistant that answers in a terse and friendly way, and calls tools. " * 5)
    rows = [
        {"messages": [system, turn("user", text)]} for text in ("What is a noun?", "Who wrote it?", "what is a NOUN?")
    ]
    assert row_groups(rows).tolist() == [0, 1, 0]


def test_calls_are_a_part_of_what_was_said() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]}
    other = {**call, "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Rome", "days": [1, 2]}}}]}
    rows = [
        {"messages": [turn("user", "Go."), made, turn("tool", result)]}
        for made, result in ((call, "9"), (other, "sun"))
    ]
    assert row_groups(rows).tolist() == [0, 1]


def test_groups_of_no_rows_are_none() -> None:
    assert row_groups([]).tolist() == []


def test_splits_of_many_copies_are_told() -> None:
    told = group_summary({"train": (200, 240), "valid": (40, 160), "test": (100, 160)})
    assert told.startswith("valid has 160 rows in 40 groups; test has 160 rows in 100 groups: near-duplicates and")
    assert group_summary({"train": (200, 240)}) == ""
