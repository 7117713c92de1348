"""Chooses a setting from measured triggers: which ones are tried on VALID, which one wins, and whether it is a gain.

Everything here is arithmetic on arrays of triggers; no model is needed.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.intervals import effective_rows, resamples, upper_bound
from asa_adapter.evaluation.metrics import Counts
from asa_adapter.steering.controller import ternary_gate


@dataclass(frozen=True)
class Objective:
    """What settings are chosen by: three scores of the same counts; higher is better.

    ========  =====================================  ======================================
    method    with `max_fpr`                         without
    ========  =====================================  ======================================
    `rank`    recall; minus the FPR where too high   F1, balanced accuracy or minus the cost
    `value`   recall                                 the same
    `gain`    the balanced accuracy                  the same
    ========  =====================================  ======================================

    `rank` orders settings. With `max_fpr` it jumps where the limit is crossed, so its bootstrap intervals are useless:
    differences between settings are measured by `value`, and the gain over the bare model by `gain`.

    Attributes:
        name: "f1" or "balanced_accuracy"; unused with `max_fpr` and with `cost`.
        max_fpr: highest FPR allowed, 0 to 1; None for no limit.
        confidence: None holds the limit against the FPR as measured; a number above .5 and below 1 against its
            one-sided upper bound of that confidence.
        cost: of a call without need and of a call that is missed, not below 0; None for `name`.
    """

    name: str = "f1"
    max_fpr: float | None = None
    confidence: float | None = None
    cost: tuple[float, float] | None = None

    @classmethod
    def of(cls, args: ASATrainingArguments) -> "Objective":
        """The objective in the training arguments."""
        cost = None if args.cost is None else (float(args.cost[0]), float(args.cost[1]))
        return cls(args.objective, args.max_fpr, args.max_fpr_confidence, cost)

    def screening(self, labels: NDArray[np.int64]) -> "Objective":
        """The objective of a screen on other rows, whose limit is the highest FPR whose bound is kept on these ones.

        Args:
            labels: (N,) 1 where a tool is needed, of the rows that decide afterwards.

        Raises:
            ValueError: so few of them need no tool that even without a false call the bound is above the limit.
        """
        if self.max_fpr is None or self.confidence is None:
            return self
        without = int((labels == 0).sum())
        shares = np.arange(without + 1) / max(without, 1)
        kept = shares[upper_bound(shares, without, self.confidence) <= self.max_fpr]
        if not len(kept):
            z = float(norm.ppf(self.confidence))
            raise ValueError(
                f"valid has {without} rows without need: even without a false call among them, the upper bound of the "
                f"FPR with confidence {self.confidence:g} is above max_fpr {self.max_fpr:g}. Give at least "
                f"{math.ceil(z**2 * (1 - self.max_fpr) / self.max_fpr)} such rows, or a higher max_fpr"
            )
        return replace(self, max_fpr=float(kept.max()), confidence=None)

    def __str__(self) -> str:
        if self.cost is not None:
            return f"the cost per row ({self.cost[0]:g} for a needless call, {self.cost[1]:g} for a missed one)"
        return self.name if self.max_fpr is None else f"recall with {self.limit}"

    @property
    def limit(self) -> str:
        """What `max_fpr` asks for, in words."""
        if self.confidence is None:
            return f"an FPR of at most {self.max_fpr:g}"
        return f"an FPR whose upper {100 * self.confidence:g} % bound is at most {self.max_fpr:g}"

    @property
    def gain_name(self) -> str:
        """Name of the metric in which a gain is told."""
        if self.cost is not None:
            return "saved cost per row"
        return "F1" if self.max_fpr is None and self.name == "f1" else "balanced accuracy"

    def rank(self, counts: Counts, rows: ArrayLike | None = None) -> NDArray[np.float64]:
        """Score by which settings are ordered, of the counts' shape; below 0 where the limit of the FPR is not kept.

        Args:
            counts: the counts.
            rows: as in `keeps`.
        """
        if self.max_fpr is None:
            return self.gain(counts)
        ratios = counts.ratios()
        # The least number below 0, for a setting that never calls without need and still breaks the limit.
        return np.where(self.keeps(counts, rows), ratios["recall"], np.minimum(-ratios["fpr"], -1e-9))

    def keeps(self, counts: Counts, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
        """Whether the limit of the FPR is kept, of the counts' shape; without a limit it always is.

        Args:
            counts: the counts.
            rows: as how many independent rows those without need count, of a shape that goes with the counts' (see
                `effective_rows`); None counts each.
        """
        fpr = counts.ratios()["fpr"]
        if self.max_fpr is None:
            return np.ones(fpr.shape, dtype=bool)
        if self.confidence is None:
            return fpr <= self.max_fpr
        return upper_bound(fpr, counts.fp + counts.tn if rows is None else rows, self.confidence) <= self.max_fpr

    def score(
        self, labels: NDArray[np.int64], triggered: NDArray[np.bool_], groups: NDArray[np.int64] | None = None
    ) -> float:
        """The `rank` of (N,) triggers; rows with the same number in (N,) `groups` belong together."""
        return float(self.rank(Counts.of(labels, triggered), independent_rows(labels, triggered, groups)))

    def value(self, counts: Counts) -> NDArray[np.float64]:
        """The metric to maximise, whether or not the limit is met, of the counts' shape."""
        return self.gain(counts) if self.max_fpr is None else counts.ratios()["recall"]

    def gain(self, counts: Counts) -> NDArray[np.float64]:
        """The metric in which a gain over the bare model is measured, of the counts' shape."""
        if self.cost is not None:
            needless, missed = self.cost
            return -(needless * counts.fp + missed * counts.fn) / np.maximum(sum(counts), 1)
        ratios = counts.ratios()
        if self.max_fpr is not None or self.name == "balanced_accuracy":
            return (ratios["recall"] + 1 - ratios["fpr"]) / 2
        return ratios["f1"]


def independent_rows(
    labels: NDArray[np.int64], triggered: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> float:
    """As how many independent rows those without need count in the FPR; all arrays are (N,)."""
    without = labels == 0
    return effective_rows(triggered[without], None if groups is None else groups[without])


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


def facts(
    objective: Objective,
    labels: NDArray[np.int64],
    triggered: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Score, F1, recall, FPR and the FPR's upper bound of (N,) triggers of rows in (N,) groups, for the report."""
    ratios = Counts.of(labels, triggered).ratios()
    return {
        "score": objective.score(labels, triggered, groups),
        **{name: float(ratios[name]) for name in ("f1", "recall", "fpr")},
        "fpr_upper_bound_95": float(upper_bound(ratios["fpr"], independent_rows(labels, triggered, groups))),
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


def layer_effects(changes: Mapping[tuple[Any, int], float]) -> dict[int, dict[str, float]]:
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
    objective: Objective,
    labels: NDArray[np.int64],
    base: NDArray[np.bool_],
    scored: Sequence[Scored],
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Results of the screen, for the report.

    Args:
        objective: what the screen ranked by.
        labels: (N,) 1 where a tool is needed.
        base: (N,) triggers of the bare model.
        scored: the settings that were measured on all rows, with their results.
        groups: (N,) numbers from 0; rows with the same number belong together. None makes each row a group.

    Returns:
        split, settings (their number), base, best_of_each_layer, front (the Pareto front of low FPR and high recall)
        and alpha_tau (scores by alpha and tau, the rest as in the best setting).
    """
    ranked = sorted(scored, key=Scored.rank)
    best = ranked[0].setting
    leaders = shortlist(scored, len({s.setting.layer for s in scored}))
    points = [(facts(objective, labels, s.triggered, groups), s.setting) for s in scored]
    front: list[dict[str, Any]] = []
    for numbers, setting in sorted(points, key=lambda point: (point[0]["fpr"], -point[0]["recall"], point[1].alpha)):
        if not front or numbers["recall"] > front[-1]["recall"]:
            front.append({**setting._asdict(), "recall": numbers["recall"], "fpr": numbers["fpr"]})
    return {
        "split": "train",
        "settings": len(scored),
        "base": facts(objective, labels, base, groups),
        "best_of_each_layer": [
            {**s.setting._asdict(), **facts(objective, labels, s.triggered, groups)} for s in leaders
        ],
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
    args: ASATrainingArguments,
    labels: NDArray[np.int64],
    finalists: Sequence[Scored],
    groups: NDArray[np.int64] | None = None,
) -> tuple[Scored, list[float]]:
    """The gentlest finalist within one standard error of the best; one that meets max_fpr, if any does.

    Small differences between finalists are mostly noise, and a smaller step is safer. The standard error is that of
    the difference from the best finalist on the same rows, by a paired bootstrap.

    Args:
        args: of these, the objective with its limit, resamples and seed are used.
        labels: (N,) 1 where a tool is needed.
        finalists: F settings with their results on these rows.
        groups: (N,) numbers from 0; rows with the same number are drawn together. None makes each row a group.

    Returns:
        The chosen finalist, and the F standard errors.
    """
    objective = Objective.of(args)
    best = min(range(len(finalists)), key=lambda i: finalists[i].rank())
    called = np.stack([finalist.triggered for finalist in finalists])
    weights = resamples(len(labels), args.resamples, args.seed, groups)
    errors = standard_errors(objective.value(Counts.of(labels, called, weights)))
    plain = objective.value(Counts.of(labels, called))
    keeps = np.array([args.max_fpr is None or finalist.score >= 0 for finalist in finalists])
    chosen = gentlest_near_best([f.setting for f in finalists], plain[:, None], errors, keeps[:, None])
    return finalists[int(chosen[0])], errors[best].tolist()


def standard_errors(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, F) standard errors of the differences between (F, B) resampled scores."""
    return np.stack([(scores - one).std(axis=1) for one in scores])


def gentlest_near_best(
    settings: Sequence[Setting], scores: NDArray[np.float64], errors: NDArray[np.float64], keeps: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The gentlest setting within one standard error of the best, in each of B trials.

    Args:
        settings: F settings.
        scores: (F, B) results, higher is better.
        errors: (F, F) standard errors of their differences.
        keeps: (F, B) whether the limit of the FPR is kept; settings that keep it come first.

    Returns:
        (B,) int64 indices.
    """
    trials = np.arange(scores.shape[1])
    first = keeps == keeps.any(axis=0)
    ranked = np.where(first, scores, -np.inf)
    best = ranked.argmax(axis=0)
    near = first & (ranked[best, trials] - ranked <= errors[best].T)
    # Of equally gentle ones, the one that scores higher.
    order = np.array([settings[i].gentleness() for i in range(len(settings))])
    ranks = np.unique(order, axis=0, return_inverse=True)[1].reshape(-1, 1)
    gentlest = near & (ranks == np.where(near, ranks, len(ranks)).min(axis=0))
    return np.where(gentlest, ranked, -np.inf).argmax(axis=0)
