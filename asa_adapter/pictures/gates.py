"""What a gate decides: p(tool) of prompts by their label, and along a conversation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from asa_adapter.pictures.drawing import BLUE, GREY, VERMILION, new_figure, own_style, short
from asa_adapter.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOKS = {1: (VERMILION, "^", "pushed towards a call"), 0: (GREY, "o", "left alone"), -1: (BLUE, "v", "away from one")}


def gates_by_label(report: Report) -> "Figure | None":
    """How often p(tool) has each value, for prompts that need a tool and for those that need none, with tau."""
    split = "test" if "test" in report.gates else next(iter(report.gates), None)
    if split is None:
        return None
    tau, found = report.chosen.get("tau"), report.gates[split]
    figure = new_figure(3.4)
    ax = figure.subplots()
    looks = {"needed": (VERMILION, 1, "a tool is needed"), "not_needed": (BLUE, -1, "none is needed")}
    for name, (colour, side, label) in looks.items():
        width = 1 / len(found[name])
        places = [(i + 0.5) * width for i in range(len(found[name]))]
        label = f"{label} ({sum(found[name])} prompts)"
        ax.bar(places, [side * count for count in found[name]], width=0.9 * width, color=colour, label=label)
    ax.axhline(0, color="black", lw=0.8)
    _draw_tau(ax, tau)
    ax.yaxis.set_major_formatter(lambda count, _: f"{abs(count):g}")
    ax.set(title=f"What the gate reads, {short(split).upper()}", xlabel="p(tool)", ylabel="prompts", xlim=(0, 1))
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def conversation(requests: Sequence[str], p_tool: Sequence[float], gates: Sequence[int], tau: float) -> "Figure":
    """The decisions along a conversation, one for each request, from top to bottom.

    Args:
        requests: the N requests, of which the beginning is shown.
        p_tool: N probabilities that a tool is needed, 0 to 1.
        gates: N gates, +1, 0 or -1.
        tau: the confidence from which the gate acts, .5 to 1.

    Raises:
        ValueError: there is no request, or not one number and gate for each.
        ImportError: matplotlib is not installed.
    """
    if not len(requests) == len(p_tool) == len(gates) > 0:
        raise ValueError(
            f"found {len(requests)} requests, {len(p_tool)} probabilities and {len(gates)} gates; expected one or "
            "more requests, with a probability and a gate each"
        )
    with own_style():
        figure = new_figure(1.6 + 0.36 * len(requests))
        ax = figure.subplots()
        ax.plot(p_tool, range(len(requests)), color="#BBBBBB", lw=1, zorder=1)
        _draw_gates(ax, p_tool, gates)
        _draw_tau(ax, tau)
        labels = [f"{number}  {short(request)}" for number, request in enumerate(requests, start=1)]
        ax.set_yticks(range(len(requests)), labels)
        ax.set(title="Decisions along the conversation", xlabel="p(tool)", xlim=(-0.02, 1.02))
        ax.set_ylim(len(requests) - 0.5, -0.5)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _draw_gates(ax: "Axes", p_tool: Sequence[float], gates: Sequence[int]) -> None:
    """Draws a mark for each decision along a conversation, by its gate."""
    for gate, (colour, sign, label) in _LOOKS.items():
        turns = [turn for turn, found in enumerate(gates) if found == gate]
        if turns:
            ax.plot([p_tool[turn] for turn in turns], turns, ls="", marker=sign, ms=9, color=colour, label=label)


def _draw_tau(ax: "Axes", tau: float | None) -> None:
    """Where the gate opens to either side."""
    for place in [] if tau is None else sorted({1 - tau, tau}):
        ax.axvline(place, color="black", ls="--", lw=1, label=f"tau {tau:g}" if place == tau else None)
