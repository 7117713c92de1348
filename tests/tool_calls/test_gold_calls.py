from typing import Any

import pytest

from asa_adapter import ToolCall
from asa_adapter.tool_calls.gold_calls import gold_names, matches_gold

A, B = ToolCall("f", {"a": 1}), ToolCall("g", {})
GOLD_A, GOLD_B = {"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}


def accepted(arguments: dict[str, Any], allowed: dict[str, Any]) -> bool:
    return matches_gold([ToolCall("f", arguments)], [{"name": "f", "arguments": {}, "allowed": allowed}])


@pytest.mark.parametrize(
    ("calls", "gold", "anyhow", "ordered"),
    [
        ([A, B], [GOLD_A, GOLD_B], True, True),
        ([B, A], [GOLD_A, GOLD_B], True, False),
        ([A], [GOLD_A, GOLD_B], False, False),
        ([A, A], [GOLD_A], False, False),
        ([A, A], [GOLD_A, GOLD_A], True, True),
        ([A, A], [GOLD_A, GOLD_B], False, False),
        ([], [], True, True),
        ([ToolCall("h", {"a": 1})], [GOLD_A], False, False),
        ([ToolCall("f", {"a": 1, "b": 2})], [GOLD_A], False, False),
        ([ToolCall("f", {})], [GOLD_A], False, False),
    ],
)
def test_each_call_once_in_any_order_or_in_this_one(calls: Any, gold: Any, anyhow: bool, ordered: bool) -> None:
    assert matches_gold(calls, gold) is anyhow
    assert matches_gold(calls, gold, ordered=True) is ordered


@pytest.mark.parametrize(
    ("written", "expected", "same"),
    [
        (1, 1.0, True),
        (1.0, 1, True),
        ("1", 1, False),
        (1, "1", False),
        (True, 1, False),
        (0, False, False),
        (True, True, True),
        (None, None, True),
        (None, False, False),
        ("Oslo", "oslo", False),
        ([1, 2], [1, 2.0], True),
        ([2, 1], [1, 2], False),
        ([1], [1, 1], False),
        ({"x": 1, "y": [True]}, {"y": [True], "x": 1}, True),
        ({"x": 1}, {"x": True}, False),
        ({"x": 1}, [1], False),
    ],
)
def test_plain_values_are_compared_with_their_types(written: Any, expected: Any, same: bool) -> None:
    gold = [{"name": "f", "arguments": {"a": expected}}]
    assert matches_gold([ToolCall("f", {"a": written})], gold) is same


@pytest.mark.parametrize(
    ("arguments", "allowed", "expected"),
    [
        ({"a": 2}, {"a": [1, 2]}, True),
        ({"a": 3}, {"a": [1, 2]}, False),
        ({"a": "2"}, {"a": [1, 2]}, False),
        ({"a": 2.0}, {"a": [2]}, True),
        ({}, {"a": [1, ""]}, True),
        ({}, {"a": [1]}, False),
        ({"b": 1}, {"a": [1, ""]}, False),
        ({"a": "New York, NY"}, {"a": ["new-york ny"]}, True),
        ({"a": "it's"}, {"a": ['it"s']}, True),
        ({"a": "Bergen"}, {"a": ["Oslo", "Paris"]}, False),
        ({"a": ["X", "y"]}, {"a": [["x", "Y"]]}, True),
        ({"a": ["x"]}, {"a": [["x", "y"]]}, False),
        ({"a": {"k": "hot"}}, {"a": [{"k": ["hot", "warm"], "n": [1, ""]}]}, True),
        ({"a": {"k": "cold"}}, {"a": [{"k": ["hot", "warm"]}]}, False),
        ({"a": {"k": "hot", "x": 1}}, {"a": [{"k": ["hot"]}]}, False),
        ({"a": [{"k": 1}, {"k": 2}]}, {"a": [[{"k": [1]}, {"k": [2, 3]}]]}, True),
        ({"a": True}, {"a": [True]}, True),
        ({"a": 1}, {"a": [True]}, False),
    ],
)
def test_one_of_the_accepted_values_will_do(arguments: Any, allowed: Any, expected: bool) -> None:
    assert accepted(arguments, allowed) is expected


def test_calls_that_fit_several_are_assigned_so_that_all_find_one() -> None:
    gold = [{"name": "f", "arguments": {}, "allowed": {"a": [1, 2]}}, {"name": "f", "arguments": {"a": 1}}]
    assert matches_gold([A, ToolCall("f", {"a": 2})], gold)
    assert not matches_gold([ToolCall("f", {"a": 2}), ToolCall("f", {"a": 2})], gold)


@pytest.mark.parametrize(
    "gold",
    [
        {"function": {"name": "f", "arguments": '{"a": 1}'}},
        {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}},
        {"f": {"a": [1]}},
    ],
    ids=["arguments as text", "OpenAI", "BFCL"],
)
def test_gold_comes_in_other_shapes(gold: dict[str, Any]) -> None:
    assert matches_gold([A], [gold])
    assert not matches_gold([ToolCall("f", {"a": 2})], [gold])


@pytest.mark.parametrize(
    "gold",
    ["f()", {"name": 1}, {"name": "f", "arguments": "{"}, {"name": "f", "arguments": [1]}, {"function": "f"}],
    ids=str,
)
def test_gold_of_another_shape_is_refused(gold: Any) -> None:
    with pytest.raises(ValueError, match=r"a gold call is .*; expected a name and an object of arguments"):
        matches_gold([A], [gold])


@pytest.mark.parametrize("allowed", [5, {"a": 1}], ids=str)
def test_alternatives_that_are_no_lists_are_refused(allowed: Any) -> None:
    with pytest.raises(ValueError, match=r"a gold call allows .*; expected a list of values for each argument"):
        matches_gold([A], [{"name": "f", "arguments": {}, "allowed": allowed}])


def test_arguments_of_a_gold_call_may_be_called_parameters() -> None:
    """They were dropped, so that only a call without arguments was right."""
    gold = [{"name": "f", "parameters": {"a": 1}}]
    assert matches_gold([ToolCall("f", {"a": 1})], gold)
    assert not matches_gold([ToolCall("f", {})], gold)


def test_gold_calls_name_their_tools_in_every_shape() -> None:
    shapes = [GOLD_A, {"function": GOLD_B}, {"h": {"a": [1]}}, {"name": "i", "allowed": {"a": [1]}}]
    assert gold_names(shapes) == ["f", "g", "h", "i"]
    with pytest.raises(ValueError, match="a gold call is"):
        gold_names(["find"])
