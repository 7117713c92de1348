"""Rows with other lists of tools, and the labels that they then have."""

import json
from collections import Counter
from typing import Any

import pytest

from asa_adapter.notations.tool_schemas import tool_names
from asa_adapter.training.tool_variations import are_wrapped, mixed, needed_tools, varied

NAMES = ("add", "find", "run", "say", "tell")
TOOLS = [{"name": name, "description": f"Does {name}."} for name in NAMES]


def row(needed: str | None = "find", tools: Any = TOOLS, domain: str = "web", **changes: Any) -> dict[str, Any]:
    gold = [{"name": needed, "arguments": {}}] if needed else []
    return {"label": int(bool(needed)), "domain": domain, "tools": tools, "gold_calls": gold, **changes}


def names(found: Any) -> list[list[str]]:
    return [tool_names(changed["tools"]) for changed in found.rows]


def test_shuffled_lists_have_the_same_tools_in_one_other_order() -> None:
    found = varied("shuffled", [row(), row(None), row(tools=TOOLS[:2]), row(tools=TOOLS[1:2])], None)
    first, second, two = names(found)
    assert first == second != list(NAMES)
    assert sorted(first) == list(NAMES)
    assert two == ["find", "add"]
    assert found.of == [0, 1, 2]  # a single tool has no other order
    assert [changed["label"] for changed in found.rows] == [1, 0, 1]


def test_thinned_lists_have_the_needed_tool_and_the_one_behind_it() -> None:
    found = varied("thinned", [row("find"), row("tell"), row("say", tools=TOOLS[2:4])], None)
    assert names(found) == [["find", "run"], ["add", "tell"]]
    assert found.of == [0, 1]


def test_thinned_lists_of_rows_without_need_keep_what_their_domain_needs() -> None:
    rows = [row("run", domain="code"), row(None, domain="code"), row(None, domain="talk")]
    assert names(varied("thinned", rows, None)) == [["run", "say"], ["run", "say"], ["add", "find"]]


def test_tools_are_wrapped_where_they_are_bare_and_bare_where_they_are_wrapped() -> None:
    found = varied("wrapped", [row()], None)
    assert found.rows[0]["tools"][1] == {"type": "function", "function": TOOLS[1]}
    assert varied("wrapped", found.rows, None).rows[0]["tools"] == TOOLS


def test_without_the_needed_tool_a_row_needs_none() -> None:
    rows = [row("find"), row(None), row("find", tools=TOOLS[1:2])]
    found = varied("without", rows, None)
    assert names(found) == [["add", "run", "say", "tell"]]
    assert (found.rows[0]["label"], found.of, found.unknown) == (0, [0], 0)
    assert rows[0]["label"] == 1


def test_rows_whose_needed_tool_is_not_known_are_left_out_and_counted() -> None:
    rows = [row(gold_calls=None), row("other"), row("find")]
    assert needed_tools(rows[0], TOOLS) is needed_tools(rows[1], TOOLS) is None
    for name in ("thinned", "without"):
        found = varied(name, rows, None)
        assert (found.of, found.unknown) == ([2], 2)
    assert varied("wrapped", rows, None).unknown == 0


def test_rows_without_tools_of_their_own_have_those_for_all_and_else_none() -> None:
    rows = [row(tools=None), row(tools=[])]
    assert varied("shuffled", rows, TOOLS).of == [0]
    assert varied("shuffled", rows, None).of == []
    assert len(mixed(rows, TOOLS, 0).rows) <= 1


@pytest.mark.parametrize("count", [2, 4, 5, 9])
def test_rows_to_fit_on_have_at_most_seven_lists_and_a_label_by_what_is_offered(count: int) -> None:
    tools = [{"name": f"tool_{i}"} for i in range(count)]
    rows = [row(f"tool_{i % count}" if i % 2 else None, tools, domain=str(i % count)) for i in range(200)]
    found = mixed(rows, None, seed=3)
    lists = Counter(json.dumps(changed["tools"]) for changed in found.rows)
    assert 4 <= len(lists) <= 7
    assert json.dumps(tools) not in lists
    assert len(found.rows) == len(set(found.of)) == 100
    for changed, i in zip(found.rows, found.of, strict=True):
        needed = needed_tools(rows[i], tools) or {"nothing"}
        assert changed["label"] == int(needed <= {*tool_names(changed["tools"])})
    lost = sum(rows[i]["label"] != changed["label"] for changed, i in zip(found.rows, found.of, strict=True))
    needing = sum(rows[i]["label"] for i in found.of)
    assert 0.25 * needing <= lost <= 0.5 * needing
    assert 0.2 < sum(are_wrapped(changed["tools"]) for changed in found.rows) / 100 < 0.8
    assert found == mixed(rows, None, seed=3)
    assert found.of != mixed(rows, None, seed=4).of


def test_rows_to_fit_on_keep_their_tools_where_their_need_is_not_known() -> None:
    rows = [row(gold_calls=None, domain=str(i)) for i in range(40)]
    for changed in mixed(rows, None, 0).rows:
        assert sorted(tool_names(changed["tools"])) == list(NAMES)
        assert changed["label"] == 1


def test_a_single_tool_can_only_be_wrapped() -> None:
    found = mixed([row("add", TOOLS[:1]) for _ in range(20)], None, 0)
    assert [changed["tools"] for changed in found.rows] == [[{"type": "function", "function": TOOLS[0]}]] * 10
    assert all(changed["label"] for changed in found.rows)
