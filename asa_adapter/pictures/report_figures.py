"""Figures from a report, for its model card. Without matplotlib (the extra [plots]) there are none.

A report may come from a stranger: only its sound part is drawn, and its texts are never taken for formulas.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asa_adapter.pictures.arrows import arrow_of_one
from asa_adapter.pictures.drawing import (
    BLUE,
    GREY,
    MOST_ROWS,
    ORANGE,
    SKY,
    VERMILION,
    draw_bars,
    draw_matrix,
    line_columns,
    name_rows,
    new_figure,
    own_style,
    png,
    short,
)
from asa_adapter.pictures.gates import gates_by_label
from asa_adapter.report import Comparison, Interval, Metrics, Report
from asa_adapter.report_schema import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plots(report: Report) -> dict[str, bytes]:
    """PNG files by name, about 800 pixels wide; the same report gives the same bytes.

    Returns:
        One for each figure that the report has the numbers for; none without matplotlib.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return {}
    return {f"{name}.png": png(figure) for name, figure in figures(report).items()}


def figures(report: Report) -> dict[str, "Figure"]:
    """The figures that a report has the numbers for, by name, in the order in which they are read.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with own_style():
        drawn = {name: draw(report) for name, (draw, _) in _FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _layers_figure(report: Report) -> "Figure | None":
    """How well the need is read at each layer, and how far a step there moves the model."""
    read = {name: _values_by_layer(report, name) for name in ("probe_auc", "shuffled_auc")}
    if not read["probe_auc"]:
        return None
    figure = new_figure(5.2 if report.effects else 3.2)
    axes = figure.subplots(2 if report.effects else 1, sharex=True, squeeze=False)[:, 0]
    axes[0].plot(*line_columns(read["probe_auc"]), color=BLUE, marker="o", label="probe")
    if read["shuffled_auc"]:
        axes[0].plot(*line_columns(read["shuffled_auc"]), color=ORANGE, marker="s", ls="--", label="shuffled labels")
    axes[0].axhline(0.5, color=GREY, ls=":", label="chance")
    lowest = min(0.4, *(auc for values in read.values() for auc in values.values()))
    axes[0].set(title="How well the need for a tool is read (VALID)", ylabel="AUC", ylim=(lowest - 0.03, 1.03))
    if report.effects:
        _draw_effects(axes[1], report)
    chosen = report.chosen.get("layer")
    for ax in axes:
        if chosen in read["probe_auc"]:
            ax.axvspan(chosen - 0.3, chosen + 0.3, color=SKY, alpha=0.3, lw=0, label="chosen layer")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes[-1].set_xlabel("decoder block, counted from 0")
    return figure


def _values_by_layer(report: Report, name: str) -> dict[int, float]:
    return {layer: row[name] for layer, row in sorted(report.layers.items()) if 0 <= row.get(name, -1) <= 1}


def _draw_effects(ax: "Axes", report: Report) -> None:
    """Draws how far steps move the model at each layer, from a report."""
    effects = dict(sorted(report.effects.items()))
    up = {layer: effect.up for layer, effect in effects.items()}
    down = {layer: effect.down for layer, effect in effects.items()}
    ax.plot(*line_columns(up), color=VERMILION, marker="^", label="step up")
    ax.plot(*line_columns(down), color=BLUE, marker="v", ls="--", label="step down")
    ax.axhline(0, color=GREY, ls=":", label="no change")
    lengths = sorted({effect.alpha for effect in effects.values()})
    alpha = f" of alpha {lengths[0]:g}" if len(lengths) == 1 else ""
    ax.set(title=f"How far a step{alpha} moves the model (TRAIN)", ylabel="change of P(start marker)")
    ax.margins(y=0.1)


def _alpha_tau_figure(report: Report) -> "Figure | None":
    """The screen's scores by step and confidence."""
    scores = {(cell.alpha, cell.tau): cell.score for cell in report.screen.alpha_tau}
    alphas, taus = (sorted({key[i] for key in scores}) for i in (0, 1))
    if not scores or len(scores) != len(alphas) * len(taus):
        return None
    figure = new_figure(min(1.6 + 0.55 * len(alphas), 6.0))
    ax = figure.subplots()
    rows = [[scores[alpha, tau] for tau in taus] for alpha in alphas]
    draw_matrix(ax, rows, [f"{tau:g}" for tau in taus], [f"{alpha:g}" for alpha in alphas], "cividis", "{:.3f}")
    figure.colorbar(ax.images[0], ax=ax, label=_score_name(report))
    best = report.screen.best
    fixed = ", ".join(f"{name} {best[name]:g}" for name in ("layer", "beta") if name in best)
    ax.set(
        title="Screen on TRAIN by first tokens" + (f", at {fixed}" if fixed else ""),
        xlabel="tau (confidence from which it acts)",
        ylabel="alpha (step in mean\nresidual norms)",
    )
    if (best.get("alpha"), best.get("tau")) in scores:
        x, y = taus.index(best["tau"]), alphas.index(best["alpha"])
        ax.plot([x - 0.46, x + 0.46, x + 0.46, x - 0.46, x - 0.46], [y - 0.44, y - 0.44, y + 0.44, y + 0.44, y - 0.44],
                color=VERMILION, lw=2.5, label="best of the screen")  # fmt: skip
        figure.legend(loc="outside lower right")
    return figure


def _score_name(report: Report) -> str:
    """The name of the screen's score in a figure, by the report's arguments."""
    if report.arguments.get("max_fpr") is not None:
        return "recall; minus the FPR where it is too high"
    if report.arguments.get("cost") is not None:
        return "minus the cost per row"
    names = {"f1": "F1", "balanced_accuracy": "balanced accuracy"}
    objective = report.arguments.get("objective")
    return names.get(objective, "score") if isinstance(objective, str) else "score"


def _front_figure(report: Report) -> "Figure | None":
    """Recall and FPR of the settings that were tried, and of the chosen one."""
    screen, valid = report.screen, report.valid
    if not screen.points and not valid.points:
        return None
    figure = new_figure(4.4)
    ax = figure.subplots()
    if screen.points:
        ax.plot(*_axes_of(screen.points), color=SKY, marker=".", drawstyle="steps-post", label="front of the screen")
    if valid.points:
        ax.plot(*_axes_of(valid.points), color=BLUE, marker="^", ls="", ms=8, alpha=0.7, label="finalists, VALID")
    single: dict[str, tuple[Point | None, dict[str, Any]]] = {
        "base, TRAIN (first token)": (screen.base, {"marker": "s", "mfc": "white", "mec": GREY}),
        "base, VALID": (valid.base, {"marker": "s", "color": GREY}),
        "choice, TRAIN (first token)": (screen.choice, {"marker": "*", "mfc": "white", "mec": VERMILION, "ms": 14}),
        "choice, VALID": (valid.choice, {"marker": "*", "color": VERMILION, "ms": 14}),
    }
    for label, (point, look) in single.items():
        if point is not None:
            ax.plot([point.fpr], [point.recall], ls="", label=label, **{"ms": 8, **look})
    ax.set(
        title="Recall against calls without need",
        xlabel="FPR (share of the prompts without need that get a call)",
        ylabel="recall (share of the needed calls)",
    )
    ax.margins(0.08)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _axes_of(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.fpr for point in points], [point.recall for point in points]


def _domains_figure(report: Report) -> "Figure | None":
    """The bare and the steered model, overall and in each domain."""
    split = "test" if "test" in report.evaluations else next(iter(report.evaluations), None)
    if split is None:
        return None
    found = report.evaluations[split]
    names = [name for name in found.base["per_domain"] if name in found.asa["per_domain"]]
    shown = names[: MOST_ROWS - 1]
    labels = [f"all ({found.base['n']})"]
    labels += [f"{short(name)} ({found.base['per_domain'][name]['n']})" for name in shown]
    series = {"base": GREY, "asa": BLUE}
    figure = new_figure(1.5 + 0.42 * len(labels))
    panels = figure.subplots(1, 2, sharey=True)
    for ax, ratio, title in zip(panels, ("recall", "fpr"), ("Recall", "FPR (lower is better)"), strict=True):
        for shift, (key, colour) in zip((-0.2, 0.2), series.items(), strict=True):
            metrics, intervals = _bars_with_domains(found, key, shown, ratio)
            label = "the model alone" if key == "base" else "with ASA"
            draw_bars(ax, [m[ratio] for m in metrics], intervals, shift, colour, label)
        name_rows(ax, labels, f"{title}, {short(split).upper()}", "share of the prompts")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, title=_bars_note(names))
    return figure


def _bars_with_domains(
    found: Comparison, key: str, names: Sequence[str], ratio: str
) -> tuple[list[Metrics], list[Interval | None]]:
    """Metrics and intervals of one model, overall and by domain."""
    whole = found.base if key == "base" else found.asa
    intervals = [found.intervals, *(found.by_domain.get(name, {}) for name in names)]
    return [whole, *(whole["per_domain"][name] for name in names)], [
        part.get(key, {}).get(ratio) for part in intervals
    ]


def _bars_note(names: Sequence[str]) -> str:
    bars = "bars: measured; lines: 95 % intervals"
    return bars if len(names) < MOST_ROWS else f"{bars}; the first {MOST_ROWS - 1} of {len(names)} domains"


def _cosines_figure(report: Report) -> "Figure | None":
    """Cosines between the directions of the domains; None where there is only one."""
    rows, names = report.cosines[:MOST_ROWS], report.domains
    if len(report.cosines) < 2 or len(names) != len(report.cosines):
        return None
    rows = tuple(row[:MOST_ROWS] for row in rows)
    labels = [f"{short(name)}  {i}" for i, name in enumerate(names[:MOST_ROWS], start=1)]
    figure = new_figure(min(2.2 + 0.5 * len(rows), 7.5))
    ax = figure.subplots()
    draw_matrix(ax, rows, [str(i) for i in range(1, len(rows) + 1)], labels, "PuOr", "{:.2f}", -1, 1)
    more = f" (the first {MOST_ROWS} of {len(names)})" if len(names) > MOST_ROWS else ""
    ax.set(title=f"How alike the domains' directions are{more}", xlabel="domain, as numbered on the left")
    figure.colorbar(ax.images[0], ax=ax, label="cosine")
    return figure


def _ablations_figure(report: Report) -> "Figure | None":
    """F1 and FPR of variants of the adapter."""
    found = dict(list(report.ablations.items())[:MOST_ROWS])
    if not found:
        return None
    figure = new_figure(1.2 + 0.3 * len(found))
    panels = figure.subplots(1, 2, sharey=True)
    colours = [{"base": GREY, "full": BLUE}.get(name, SKY) for name in found]
    for ax, ratio, title in zip(panels, ("f1", "fpr"), ("F1", "FPR (lower is better)"), strict=True):
        ax.barh(range(len(found)), [metrics[ratio] for metrics in found.values()], height=0.7, color=colours)
        for row, metrics in enumerate(found.values()):
            ax.text(metrics[ratio] + 0.01, row, f"{metrics[ratio]:.3f}", va="center")
        name_rows(ax, [short(name) for name in found], f"{title} of each variant", "share")
        ax.set_xlim(0, 1.15)  # room for the number of a full bar
    return figure


def _marker_figure(report: Report) -> "Figure | None":
    """What steps of each length do to the start of a call."""
    marker = report.marker
    if marker is None or not marker.series:
        return None
    figure = new_figure(3.6)
    ax = figure.subplots()
    looks = {"along": (VERMILION, "^", "-"), "against": (BLUE, "v", "--"), "random": (GREY, "o", ":")}
    for name, values in marker.series.items():
        colour, sign, line = looks[name]
        label = "a random direction" if name == "random" else f"{name} the direction"
        ax.plot([0, *marker.alphas], [marker.base, *values], color=colour, marker=sign, ls=line, label=label)
    layer = report.chosen.get("layer")
    ax.set(
        title="What a step does to the start of a call (VALID" + (f", layer {layer:g})" if layer is not None else ")"),
        xlabel="alpha (step in mean residual norms; 0: the model alone)",
        ylabel="mean P(start marker)",
        ylim=(-0.03, 1.03),
    )
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


_FIGURES: dict[str, tuple[Callable[[Report], "Figure | None"], str]] = {
    "before_and_after": (
        arrow_of_one,
        "The higher, the fewer needed calls are missed; the further left, the fewer needless calls are made. The "
        "arrow leads from the model alone to the model with this adapter; thin lines are 95 % intervals.",
    ),
    "domains_base_and_asa": (
        _domains_figure,
        "The same by domain: the share of the needed calls that are made, and the share of the prompts without need "
        "that get a call all the same.",
    ),
    "p_tool_by_label": (
        gates_by_label,
        "How sure the gate is: prompts that need a tool stand above the line, the others below it. Beyond the dashed "
        "lines it acts, between them it leaves the model alone; what stands on the wrong side is decided wrongly.",
    ),
    "recall_against_fpr": (
        _front_figure,
        "What was tried: each point is a setting, and the star is the one that was chosen.",
    ),
    "score_by_alpha_and_tau": (
        _alpha_tau_figure,
        "How much the length of the step and the confidence matter: the score of the best setting for each pair.",
    ),
    "auc_and_effect_by_layer": (
        _layers_figure,
        "Where in the model the need for a tool can be read, and where a step changes what the model does; an adapter "
        "needs a layer that has both.",
    ),
    "marker_probability_by_step": (
        _marker_figure,
        "The longer the step, the more likely a call becomes along the direction, and the less likely against it; a "
        "random direction should do little.",
    ),
    "cosines_of_directions": (
        _cosines_figure,
        "How much the directions of the domains have in common: 1 is the same direction, 0 has nothing to do with it.",
    ),
    "ablations": (
        _ablations_figure,
        "What the adapter is worth with one part taken away or replaced.",
    ),
}
PLOT_NAMES = tuple(f"{name}.png" for name in _FIGURES)


def caption(name: str) -> str | None:
    """What a figure shows, in a sentence or two, by the name of its file; None for a file that is not ours."""
    found = _FIGURES.get(name.removesuffix(".png"))
    return found[1] if found else None
