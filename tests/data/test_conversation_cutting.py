"""Whole conversations as labelled states: what `cut` makes of them, what it refuses, and that they stay together."""

import json
from pathlib import Path
from typing import Any

import pytest
from rows import SPLITS, labelled, places, words, write

from asa_adapter import load_splits
from asa_adapter.data import cut
from asa_adapter.data.duplicates import leaks, row_groups

TOOLS = [{"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def calls(*cities: str) -> dict[str, Any]:
    """An assistant's turn with a call for each city, in the OpenAI shape."""
    functions = [{"name": "weather", "arguments": json.dumps({"city": city})} for city in cities]
    made = [{"id": f"c{i}", "type": "function", "function": function} for i, function in enumerate(functions)]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(text: str, name: str = "c0") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": text}


def gold(*cities: str) -> list[dict[str, Any]]:
    return [{"name": "weather", "arguments": {"city": city}} for city in cities]


TWO = [user("Oslo and Rome?"), calls("Oslo"), result("-9"), calls("Rome"), result("20"), said("Cold and warm.")]


def talk(seed: int) -> list[dict[str, Any]]:
    """A conversation of two calls that is like no other."""
    return [user(words(seed)), calls(words(seed + 1)), result(words(seed + 2)), calls("x"), result("1"), said("Done.")]


def test_every_turn_of_the_assistant_is_a_state_labelled_by_whether_it_calls() -> None:
    rows = cut([{"messages": TWO, "domain": "rain", "conversation": "trip", "tools": TOOLS}])
    assert rows == [
        {
            "id": f"trip/{k}",
            "conversation": "trip",
            "messages": TWO[:end],
            "label": label,
            "gold_calls": expected,
            "domain": "rain",
            "tools": TOOLS,
        }
        for k, (end, label, expected) in enumerate([(1, 1, gold("Oslo")), (3, 1, gold("Rome")), (5, 0, [])])
    ]


def test_calls_of_one_turn_are_one_state_and_all_their_results_stand_before_the_next() -> None:
    chat = [user("Both?"), calls("Oslo", "Rome"), result("-9"), result("20", "c1"), said("Yes.")]
    assert [(len(row["messages"]), row["gold_calls"]) for row in cut([{"messages": chat}])] == [
        (1, gold("Oslo", "Rome")),
        (4, []),
    ]


def test_a_text_directly_before_its_call_is_one_turn_with_it() -> None:
    chat = [user("Oslo?"), said("Let me see."), calls("Oslo"), result("-9"), said("Cold."), said("Very.")]
    assert [(len(row["messages"]), row["label"]) for row in cut([{"messages": chat}])] == [(1, 1), (4, 0)]


def test_what_comes_before_the_first_user_and_behind_the_last_answer_is_no_state() -> None:
    chat = [{"role": "system", "content": "Be brief."}, said("Hello!"), user("Hi"), said("Hi."), user("Oslo?")]
    assert [row["messages"] for row in cut([{"messages": chat}])] == [chat[:3]]


def test_tools_are_for_trajectories_without_their_own_and_unknown_domains_stay_open() -> None:
    own = [{"name": "weather", "description": "its own"}]
    rows = cut([{"messages": TWO}, {"messages": TWO, "tools": own, "id": "b"}], tools=TOOLS)
    assert [row["tools"] for row in rows] == [TOOLS] * 3 + [own] * 3
    assert not any("domain" in row for row in rows)
    assert "tools" not in cut([{"messages": TWO}])[0]


def test_a_conversation_without_a_name_gets_one_of_its_messages() -> None:
    one, other = cut([{"messages": talk(0)}]), cut([{"messages": talk(9)}])
    assert one == cut([{"messages": json.dumps(talk(0))}])
    assert {row["conversation"] for row in one}.isdisjoint(row["conversation"] for row in other)


@pytest.mark.parametrize(
    ("trajectory", "message"),
    [
        ("hello", "row 1: found a str; expected an object with messages"),
        ({}, "row 1: there are no messages; expected a conversation"),
        ({"messages": "[{"}, r"row 1, messages: '\[\{' is not valid JSON"),
        (
            {"messages": [user("Hi"), {"role": "bot", "content": "Hi"}]},
            "row 1: turn 1 .* the role 'bot'; expected",
        ),
        ({"messages": [user("Hi")]}, "row 1: no assistant's turn follows a user's or a tool's turn; expected"),
        (
            {"messages": [user("Hi"), result("-9"), said("Cold.")]},
            "row 1: turn 1 of messages is a tool's result, but no call before it waits for one; expected",
        ),
        (
            {"messages": [user("Hi"), calls("Oslo", "Rome"), result("-9"), user("And?"), said("Cold.")]},
            "row 1: turn 3 of messages is a user's, and the calls before it lack 1 of their results; expected",
        ),
        (
            {"messages": [user("Hi"), calls("Oslo", "Rome"), result("-9"), said("Cold."), result("20", "c1")]},
            "row 1: turn 3 of messages is an assistant's, and the calls before it lack 1 of their results; expected",
        ),
        (
            {"messages": [user("Hi"), calls("Oslo"), said("Cold.")]},
            "row 1: turn 2 of messages is an assistant's, and the calls before it lack 1 of their results; expected",
        ),
        (
            {"messages": [user("Hi"), {"role": "assistant", "tool_calls": [3]}]},
            "row 1: turn 1 .*: a tool call",
        ),
        ({"messages": TWO, "conversation": "a"}, "row 1: the conversation is called 'a', as that of row 0; expected"),
    ],
)
def test_what_is_no_trajectory_is_refused_by_its_number(trajectory: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut([{"messages": TWO, "conversation": "a"}, trajectory])


def test_load_splits_cuts_whole_conversations_and_keeps_each_in_one_split(tmp_path: Path) -> None:
    rows = [{"messages": talk(10 * i), "domain": ("a", "b")[i % 2], "conversation": f"t{i}"} for i in range(28)]
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    splits = load_splits(write(tmp_path / "all.jsonl", rows))
    where: dict[str, set[str]] = {}
    for row_id, split in places(splits).items():
        where.setdefault(row_id.partition("/")[0], set()).add(split)
    assert all(len(found) == 1 for found in where.values())
    assert {name: len(splits[name]) for name in SPLITS} == {"cal": 24, "train": 24, "valid": 12, "test": 24}
    assert all(row["tools"] == TOOLS for row in splits["cal"])


def test_an_error_in_a_conversation_of_a_file_names_its_line(tmp_path: Path) -> None:
    bad = {"messages": [user("Hi"), result("-9"), said("Cold.")]}
    with pytest.raises(ValueError, match=r"all\.jsonl, line 2: turn 1 of messages is a tool's result"):
        load_splits(write(tmp_path / "all.jsonl", [{"messages": TWO}, bad]))


def test_rows_that_name_one_conversation_stay_in_one_split_and_one_group() -> None:
    """Nothing else links them: a summary stands in place of what was said before."""
    rows = [{**row, "conversation": f"t{i // 4}"} for i, row in enumerate(labelled(112))]
    splits = load_splits(rows)
    where = places(splits)
    assert all(len({where[f"r{4 * i + k}"] for k in range(4)}) == 1 for i in range(28))
    assert len(set(row_groups(rows).tolist())) == 28
    assert splits["cal"].features["conversation"].dtype == "string"


def test_a_conversation_in_two_splits_is_a_leak() -> None:
    one, other = ({**row, "conversation": "same"} for row in labelled(2))
    assert [tuple(leak) for leak in leaks({"train": [one], "test": [other]})] == [
        ("conversation", "train:r0", "test:r1")
    ]


def test_rows_without_conversations_have_no_such_column() -> None:
    rows = [{**row, "conversation": [user("a list of turns is no name")]} for row in labelled(56)]
    assert "conversation" not in load_splits(rows)["cal"].column_names


def test_a_conversation_without_a_name_may_occur_twice_and_stays_one() -> None:
    rows = cut([{"messages": TWO}, {"messages": TWO}])
    assert len({row["id"] for row in rows}) == len(rows) == 6
    assert len({row["conversation"] for row in rows}) == 1
