"""Rows with other lists of tools: shuffled, thinned, wrapped, and without the tool that is needed.

An adapter meets other lists than those of its data. How its gate bears that is measured on such rows; where probes
lose by it, router and probes are fitted on such rows of CAL and TRAIN too.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asa_adapter.data.rows import Row, row_domain, row_tools
from asa_adapter.notations.tool_schemas import Tools, tool_names, unwrapped
from asa_adapter.tool_calls.gold_calls import gold_names

_QUARTERS = 4
_WAYS = 3 + _QUARTERS
# Of so many rows that need a tool one loses it: chosen among 2, 3, 4 and 6 on VALID, by draws of both tiny models.
_TAKEN_AWAY = 3

Offered = Sequence[Mapping[str, Any]]


class Varied(NamedTuple):
    """Rows that were made from others.

    Attributes:
        rows: the new rows, with tools and a label of their own.
        of: for each, the index of the row it was made from.
        unknown: how many rows were left out because it is not known which tools they need.
    """

    rows: list[Row]
    of: list[int]
    unknown: int = 0


def needed_tools(row: Row, offered: Offered) -> frozenset[str] | None:
    """Names of the tools that a row needs, by its gold calls; none where its label is 0.

    Returns:
        None where that is not known: there are no gold calls, or one of a tool that is not offered.
    """
    if not int(row["label"]):
        return frozenset()
    names = frozenset(gold_names(row.get("gold_calls") or []))
    return names if names and names <= {*tool_names(offered)} else None


def varied(name: str, rows: Sequence[Row], tools: Tools | None) -> Varied:
    """The rows with their lists of tools varied in one way.

    "shuffled": in another order. "thinned": the needed tool and one other; for a row without need, the tool that most
    rows of its domain need and one other. "wrapped": as {"type": "function", "function": ...}, or bare where they are
    given so. "without": rows whose needed tool is taken away, so that their label becomes 0. A row that a variation
    leaves as it is, or without any tool, is left out. A list becomes a few others only, so that prompts begin alike.

    Args:
        name: one of `report_schema.VARIATIONS`.
        rows: the rows.
        tools: tools for those that have none of their own.
    """
    found = Varied([], [])
    unknown, usual = 0, _usual_tools(rows, tools)
    for i, row in enumerate(rows):
        offered = row_tools(row, tools) or []
        needed = needed_tools(row, offered)
        if needed is None and name in ("thinned", "without"):
            unknown += 1
            continue
        others = _changed_tools(name, offered, needed or frozenset({usual.get(row_domain(row), "")}))
        if not others or others == offered or (name == "without" and not needed):
            continue
        found.rows.append({**row, "tools": others, "label": 0 if name == "without" else row["label"]})
        found.of.append(i)
    return found._replace(unknown=unknown)


def mixed(rows: Sequence[Row], tools: Tools | None, seed: int) -> Varied:
    """Every second row with another list of tools, to fit router and probes on.

    A list of tools becomes at most seven others: shuffled, wrapped, both, and four that each lack a quarter of the
    tools, two of these wrapped. Rows of each domain and label are dealt to them in turn; but a third of those that
    need a tool get a list that lacks it. Where a tool that a row needs is lacking, its label becomes 0.

    Args:
        rows: the rows; those without tools are left out.
        tools: tools for those that have none of their own.
        seed: deals the rows.
    """
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    order.sort(key=lambda i: (row_domain(rows[i]), int(rows[i]["label"])))
    found = Varied([], [])
    for place, i in enumerate(order[::2]):
        if offered := row_tools(rows[i], tools):
            others, label = _mixed_row(rows[i], offered, place)
            found.rows.append({**rows[i], "tools": others, "label": label})
            found.of.append(i)
    return found


def _mixed_row(row: Row, offered: list[dict[str, Any]], place: int) -> tuple[list[dict[str, Any]], int]:
    """The tools and the label of a row that is dealt in its place."""
    needed, quarter = needed_tools(row, offered), place % _WAYS - 3
    if needed and place % _TAKEN_AWAY == 0:
        quarter = next(i for i, name in enumerate(tool_names(offered)) if name in needed) % _QUARTERS
    left = [tool for i, tool in enumerate(offered) if i % _QUARTERS != quarter]
    if left and left != offered and needed is not None:
        label = int(row["label"]) if needed <= {*tool_names(left)} else 0
        return rewrapped(left) if quarter % 2 else left, label
    way = quarter % 3
    others = offered if way == 1 else shuffled(offered, seed=1 + way)
    return others if way == 0 and others != offered else rewrapped(others), int(row["label"])


def shuffled(tools: Sequence[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """The tools in another order, always the same one for as many; a single one stays.

    Example:
        >>> [tool["name"] for tool in shuffled([{"name": "a"}, {"name": "b"}])]
        ['b', 'a']
    """
    others = random.Random(seed).sample(list(tools), len(tools))
    return others if others != list(tools) else [*others[1:], *others[:1]]


def rewrapped(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bare schemas wrapped as {"type": "function", "function": ...}, as servers render them; wrapped ones bare.

    Example:
        >>> rewrapped(rewrapped([{"name": "a"}]))
        [{'name': 'a'}]
    """
    if are_wrapped(tools):
        return [dict(unwrapped(tool)) for tool in tools]
    return [{"type": "function", "function": tool} for tool in tools]


def are_wrapped(tools: Offered) -> bool:
    """Whether any of the tools is given as {"type": "function", "function": ...}."""
    return any(unwrapped(tool) is not tool for tool in tools)


def _changed_tools(name: str, offered: list[dict[str, Any]], needed: frozenset[str]) -> list[dict[str, Any]]:
    """A list of tools varied in one way, for a row that needs some of them."""
    if name == "shuffled":
        return shuffled(offered)
    if name == "wrapped":
        return rewrapped(offered)
    own = [i for i, tool in enumerate(tool_names(offered)) if tool in needed]
    if name == "without":
        return [tool for i, tool in enumerate(offered) if i not in own]
    kept = own or [0]
    following = (i % len(offered) for i in range(kept[-1] + 1, kept[-1] + len(offered)))
    kept = [*kept, *[i for i in following if i not in kept][:1]]
    return [tool for i, tool in enumerate(offered) if i in kept]


def _usual_tools(rows: Sequence[Row], tools: Tools | None) -> dict[str, str]:
    """For each domain the tool that most of its rows need."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row_domain(row)].update(needed_tools(row, row_tools(row, tools) or []) or ())
    return {domain: count.most_common(1)[0][0] for domain, count in counts.items() if count}
