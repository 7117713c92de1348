"""`Objective`: what settings are chosen by."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from asa_adapter.choice.intervals import effective_rows, upper_bound
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import ConfusionCounts


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
    def shift(self) -> float:
        """What is added to the probes' log odds: with `cost`, what makes both errors cost the same at p = .5.

        That is log(missed / needless), the threshold of cost-sensitive learning (Elkan, IJCAI 2001), at most 3 either
        way: beyond costs of 1 to 20 a probe's tails say too little.
        """
        needless, missed = self.cost or (1.0, 1.0)
        return float(np.log(np.clip(missed / needless if needless else np.inf, np.exp(-3), np.exp(3))))

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

    def rank(self, counts: ConfusionCounts, rows: ArrayLike | None = None) -> NDArray[np.float64]:
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

    def keeps(self, counts: ConfusionCounts, rows: ArrayLike | None = None) -> NDArray[np.bool_]:
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
        self, labels: NDArray[np.int64], triggered: NDArray[np.bool_], groups: NDArray[np.int64] | None
    ) -> float:
        """The `rank` of (N,) triggers; rows with the same number in (N,) `groups` belong together."""
        return float(
            self.rank(ConfusionCounts.of(labels, triggered), independent_negatives(labels, triggered, groups))
        )

    def value(self, counts: ConfusionCounts) -> NDArray[np.float64]:
        """The metric to maximise, whether or not the limit is met, of the counts' shape."""
        return self.gain(counts) if self.max_fpr is None else counts.ratios()["recall"]

    def gain(self, counts: ConfusionCounts) -> NDArray[np.float64]:
        """The metric in which a gain over the bare model is measured, of the counts' shape."""
        if self.cost is not None:
            needless, missed = self.cost
            return -(needless * counts.fp + missed * counts.fn) / np.maximum(sum(counts), 1)
        ratios = counts.ratios()
        if self.max_fpr is not None or self.name == "balanced_accuracy":
            return (ratios["recall"] + 1 - ratios["fpr"]) / 2
        return ratios["f1"]


def independent_negatives(
    labels: NDArray[np.int64], triggered: NDArray[np.bool_], groups: NDArray[np.int64] | None
) -> float:
    """As how many independent rows those without need count in the objective's FPR; all arrays are (N,)."""
    without = labels == 0
    return effective_rows(triggered[without], None if groups is None else groups[without])
