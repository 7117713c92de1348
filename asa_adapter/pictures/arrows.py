"""From the model alone to the steered one: recall against needless calls, an arrow for each model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asa_adapter.pictures.drawing import BLUE, GREY, ORANGE, VERMILION, new_figure, own_style, short
from asa_adapter.report import Comparison, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (BLUE, VERMILION, ORANGE, GREY)
_MOST = len(_COLOURS)


def before_and_after(reports: Mapping[str, Report]) -> "Figure":
    """A point for each model alone and one for it with its adapter, on TEST, with 95 % intervals and an arrow.

    Args:
        reports: one to four reports with an evaluation of TEST, by the name of their model.

    Raises:
        ValueError: there are none or too many, or one has no evaluation of TEST.
        ImportError: matplotlib is not installed.
    """
    if not 0 < len(reports) <= _MOST:
        raise ValueError(f"found {len(reports)} reports; expected 1 to {_MOST}")
    for name, report in reports.items():
        if "test" not in report.evaluations:
            raise ValueError(f"the report of {name!r:.80} has no evaluation of TEST; run trainer.evaluate('test')")
    with own_style():
        figure = new_figure(4.4)
        ax = figure.subplots()
        for (name, report), colour in zip(reports.items(), _COLOURS, strict=False):
            _draw_arrow(ax, report.evaluations["test"], short(name), colour)
        ax.set(
            title="From the model alone to the model with its adapter (TEST)",
            xlabel="needless calls (share of the prompts without need that get one)",
            ylabel="recall (share of the needed calls)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
        )
        ax.text(0.01, 0.99, "better", transform=ax.transAxes, va="top", color=GREY, style="italic")
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def arrow_of_one(report: Report) -> "Figure | None":
    """The arrow of one adapter; None where TEST was not measured."""
    return before_and_after({"the model": report}) if "test" in report.evaluations else None


def _draw_arrow(ax: "Axes", found: Comparison, name: str, colour: str) -> None:
    """The arrow from a model alone to the one with its adapter, and their intervals."""
    places = [(part["fpr"], part["recall"]) for part in (found.base, found.asa)]
    looks: dict[str, dict[str, Any]] = {"alone": {"mfc": "white"}, "with ASA": {"mfc": colour}}
    for (label, look), key, (x, y) in zip(looks.items(), ("base", "asa"), places, strict=True):
        sure = found.intervals.get(key, {})
        for ratio, low_high in (("fpr", sure.get("fpr")), ("recall", sure.get("recall"))):
            if low_high is not None:
                ends = [min(max(end, 0.0), 1.0) for end in low_high]
                ax.plot(*((ends, [y, y]) if ratio == "fpr" else ([x, x], ends)), color=colour, lw=1, alpha=0.5)
        ax.plot([x], [y], ls="", marker="o", ms=10, mec=colour, label=f"{name} {label}", **look)
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 8, "shrinkB": 8}
    ax.annotate("", xy=places[1], xytext=places[0], arrowprops=arrow)
