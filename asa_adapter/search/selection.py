"""Chooses a setting from measured triggers: which ones are tried on VALID, which one wins, and whether it is a gain.

Everything here is arithmetic on arrays of triggers; no model is needed.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.intervals import LEVEL, resamples, upper_confidence_bound
from asa_adapter.evaluation.metrics import Counts
from asa_adapter.steering.controller import ternary_gate


@dataclass(frozen=True)
class Objective:
    """What settings are chosen by: three scores of the same counts; higher is better.

    ========  =====================================  ============================
    method    with `max_fpr`                         without
    ========  =====================================  ============================
    `rank`    recall; minus the FPR where too high   F1, or the balanced accuracy
    `value`   recall                                 the same
    `gain`    the balanced accuracy                  the same
    ========  =====================================  ============================

    `rank` orders settings. With `max_fpr` it jumps where the limit is crossed, so its bootstrap intervals are useless:
    differences between settings are measured by `value`, and the gain over the bare model by `gain`.

    Attributes:
        name: "f1" or "balanced_accuracy"; unused with `max_fpr`.
        max_fpr: highest FPR allowed, 0 to 1; None for no limit.
    """

    name: str = "f1"
    max_fpr: float | None = None

    @classmethod
    def of(cls, args: ASATrainingArguments) -> "Objective":
        """The objective in the training arguments."""
        return cls(args.objective, args.max_fpr)

    def __str__(self) -> str:
        return self.name if self.max_fpr is None else f"recall with an FPR of at most {self.max_fpr:g}"

    @property
    def gain_name(self) -> str:
        """Name of the metric that `gain` returns."""
        return "F1" if self.max_fpr is None and self.name == "f1" else "balanced accuracy"

    def rank(self, counts: Counts) -> NDArray[np.float64]:
        """Score by which settings are ordered, of the counts' shape; below 0 where the FPR is above `max_fpr`."""
        if self.max_fpr is None:
            return self.gain(counts)
        ratios = counts.ratios()
        return np.where(ratios["fpr"] <= self.max_fpr, ratios["recall"], -ratios["fpr"])

    def value(self, counts: Counts) -> NDArray[np.float64]:
        """The metric to maximise, whether or not the limit is met, of the counts' shape."""
        return self.gain(counts) if self.max_fpr is None else counts.ratios()["recall"]

    def gain(self, counts: Counts) -> NDArray[np.float64]:
        """The metric in which a gain over the bare model is measured, of the counts' shape."""
        ratios = counts.ratios()
        if self.max_fpr is not None or self.name == "balanced_accuracy":
            return (ratios["recall"] + 1 - ratios["fpr"]) / 2
        return ratios["f1"]


class Setting(NamedTuple):
    """One point of the grid: the fields of ASAConfig that are chosen. See there for what they mean."""

    layer: int
    alpha: float
    tau: float
    beta: float
    probe: str

    def gentleness(self) -> tuple[float, float]:
        """Sort key: smaller steps first, then higher tau, with which the gate opens less often."""
        return (self.alpha, -self.tau)


class Scored(NamedTuple):
    """A setting and its result on N rows."""

    setting: Setting
    score: float  # Objective.rank on these rows
    triggered: NDArray[np.bool_]  # (N,) whether each row's answer calls a tool

    def rank(self) -> tuple[float, float, float]:
        """Sort key: higher scores first, then gentler settings."""
        return (-round(self.score, 9), *self.setting.gentleness())


class Gain(NamedTuple):
    """Gain over the bare model on rows that had no part in the choice, in the metric of `Objective.gain`.

    Attributes:
        mean: mean over the bootstrap resamples.
        lower_bound: one-sided lower 95 % bound.
    """

    mean: float
    lower_bound: float


def facts(args: ASATrainingArguments, labels: NDArray[np.int64], triggered: NDArray[np.bool_]) -> dict[str, Any]:
    """Score, F1, recall, FPR and the FPR's upper bound of (N,) triggers, for the report."""
    counts = Counts.of(labels, triggered)
    ratios = counts.ratios()
    return {
        "score": float(Objective.of(args).rank(counts)),
        **{name: float(ratios[name]) for name in ("f1", "recall", "fpr")},
        "fpr_upper_bound_95": upper_confidence_bound(int(counts.fp), int(counts.fp + counts.tn)),
    }


def gated(
    p_tool: NDArray[np.float32],
    tau: float,
    base: NDArray[np.bool_],
    up: NDArray[np.bool_],
    down: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether each row calls a tool with its own gate, from triggers without and with a step.

    Args:
        p_tool: (N,) float32 probabilities that a tool is needed.
        tau: confidence from which the gate opens.
        base: (N,) triggers of the bare model (gate 0).
        up: (N,) triggers with a step towards a call (gate +1).
        down: (N,) triggers with a step away from a call (gate -1).

    Returns:
        (N,) bool.
    """
    gate = ternary_gate(torch.from_numpy(p_tool), tau).numpy()
    return np.where(gate > 0, up, np.where(gate < 0, down, base))


def layer_effects(changes: Mapping[tuple[tuple[int, float, float], int], float]) -> dict[int, dict[str, float]]:
    """How much a push changes the probability of the token that opens a call, at each layer.

    Args:
        changes: mean change over rows, by (layer, beta, alpha) and sign; the steps of a layer are equally long.

    Returns:
        For each layer the mean change over betas, `up` for steps towards a call and `down` for steps away, at `alpha`.
    """
    effects = {}
    for layer in sorted({key[0] for key, _ in changes}):
        [alpha] = {key[2] for key, _ in changes if key[0] == layer}
        up, down = (
            float(np.mean([change for (key, sign), change in changes.items() if (key[0], sign) == (layer, wanted)]))
            for wanted in (1, -1)
        )
        effects[layer] = {"alpha": alpha, "up": up, "down": down}
    return effects


def screen_facts(
    args: ASATrainingArguments, labels: NDArray[np.int64], base: NDArray[np.bool_], scored: Sequence[Scored]
) -> dict[str, Any]:
    """Results of the screen, for the report.

    Args:
        args: the training arguments.
        labels: (N,) 1 where a tool is needed.
        base: (N,) triggers of the bare model.
        scored: the settings that were measured on all rows, with their results.

    Returns:
        split, settings (their number), base, best_of_each_layer, front (the Pareto front of low FPR and high recall)
        and alpha_tau (scores by alpha and tau, the rest as in the best setting).
    """
    ranked = sorted(scored, key=Scored.rank)
    best = ranked[0].setting
    leaders = shortlist(scored, len({s.setting.layer for s in scored}))
    points = [(facts(args, labels, s.triggered), s.setting) for s in scored]
    front: list[dict[str, Any]] = []
    for numbers, setting in sorted(points, key=lambda point: (point[0]["fpr"], -point[0]["recall"], point[1].alpha)):
        if not front or numbers["recall"] > front[-1]["recall"]:
            front.append({**setting._asdict(), "recall": numbers["recall"], "fpr": numbers["fpr"]})
    return {
        "split": "train",
        "settings": len(scored),
        "base": facts(args, labels, base),
        "best_of_each_layer": [{**s.setting._asdict(), **facts(args, labels, s.triggered)} for s in leaders],
        "front": front,
        "alpha_tau": [
            {"alpha": s.setting.alpha, "tau": s.setting.tau, "score": s.score}
            for s in scored
            if s.setting._replace(alpha=best.alpha, tau=best.tau) == best
        ],
    }


def grid(args: ASATrainingArguments, layers: Sequence[int]) -> Iterator[Setting]:
    """All settings to screen. Alpha 0 is left out: it is the bare model."""
    alphas = [alpha for alpha in args.alphas if alpha]
    return itertools.starmap(Setting, itertools.product(layers, alphas, args.taus, args.betas, args.probes))


def shortlist(scored: Sequence[Scored], finalists: int) -> list[Scored]:
    """At most `finalists` settings to generate with on VALID: the best of each layer first, then the best others."""
    ranked = sorted(scored, key=Scored.rank)
    leaders: dict[int, Scored] = {}
    for candidate in ranked:
        leaders.setdefault(candidate.setting.layer, candidate)
    taken = {candidate.setting for candidate in leaders.values()}
    return [*leaders.values(), *(candidate for candidate in ranked if candidate.setting not in taken)][:finalists]


def choose(
    args: ASATrainingArguments, labels: NDArray[np.int64], finalists: Sequence[Scored]
) -> tuple[Scored, list[float]]:
    """The gentlest finalist within one standard error of the best; one that meets max_fpr, if any does.

    Small differences between finalists are mostly noise, and a smaller step is safer. The standard error is that of
    the difference from the best finalist on the same rows, by a paired bootstrap.

    Args:
        args: of these, objective, max_fpr, resamples and seed are used.
        labels: (N,) 1 where a tool is needed.
        finalists: F settings with their results on these rows.

    Returns:
        The chosen finalist, and the F standard errors.
    """
    objective = Objective.of(args)
    best = min(range(len(finalists)), key=lambda i: finalists[i].rank())
    called = np.stack([finalist.triggered for finalist in finalists])
    scores = objective.value(Counts.of(labels, called, resamples(len(labels), args.resamples, args.seed)))  # (F, B)
    errors = (scores[best] - scores).std(axis=1)
    plain = objective.value(Counts.of(labels, called))
    keeps_limit = [args.max_fpr is None or finalist.score >= 0 for finalist in finalists]
    near = [
        finalist
        for i, finalist in enumerate(finalists)
        if plain[best] - plain[i] <= errors[i] and keeps_limit[i] == keeps_limit[best]
    ]
    return min(near, key=lambda finalist: (*finalist.setting.gentleness(), -finalist.score)), errors.tolist()


def honest_gain(
    args: ASATrainingArguments, labels: NDArray[np.int64], base: NDArray[np.bool_], finalists: Sequence[Scored]
) -> Gain:
    """Gain over the bare model of choosing the best finalist, without the optimism of measuring on the same rows.

    In each bootstrap resample the best finalist is chosen again, and its gain is measured on the rows that are not in
    the resample. `labels` and `base`, the triggers of the bare model, are (N,).
    """
    objective = Objective.of(args)
    ordered = sorted(finalists, key=Scored.rank)
    called = np.stack([f.triggered for f in ordered])
    weights = resamples(len(labels), args.resamples, args.seed)
    chosen = objective.rank(Counts.of(labels, called, weights)).argmax(axis=0)  # (B,)
    left_out = (weights == 0).astype(np.int64)
    steered = objective.gain(Counts.of(labels, called, left_out))[chosen, np.arange(len(chosen))]
    gains = steered - objective.gain(Counts.of(labels, base, left_out))
    return Gain(float(gains.mean()), float(np.quantile(gains, 1 - LEVEL)))


def sure_gain(
    args: ASATrainingArguments,
    labels: NDArray[np.int64],
    base: NDArray[np.bool_],
    finalists: Sequence[Scored],
    chosen: Scored,
) -> Gain:
    """The smaller `honest_gain` (by its bound) of choosing among all finalists and of the chosen one alone."""
    gains = [honest_gain(args, labels, base, some) for some in (finalists, [chosen])]
    return min(gains, key=lambda gain: gain.lower_bound)
