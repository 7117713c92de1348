"""Whether the chosen setting is a gain over the bare model, and how large a gain, freed of the luck of being chosen.

VALID chooses among finalists and says whether the chosen one ships, so what it shows of that one is too good twice.
The bootstrap chooses again in every resample, as if all finalists were equally good, which is where choosing helps the
most; how far the chosen one then lies above its own mean is what its lower bound has to make up for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from asa_adapter.choice.finalists import FinalistEvidence, ScreenedFinalists, gentlest_near_best, standard_errors
from asa_adapter.choice.intervals import LEVEL
from asa_adapter.choice.objective import Objective, independent_negatives
from asa_adapter.choice.settings import Scored
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import ConfusionCounts

# Below this many groups with the rarer label no gain is sure: there is too little to resample.
MIN_GROUPS = 10
# Quantile of the bootstrapped luck. At .95 up to 5.6 % of simulated trainings shipped what was no gain.
_QUANTILE = 0.96


class Gain(NamedTuple):
    """Gain of the chosen setting over the bare model, in the metric of `Objective.gain`.

    Attributes:
        mean: estimate that allows for the setting having been chosen and, where it ships, for its gain having been
            found sure.
        lower_bound: one-sided lower 95 % bound that holds whichever finalist was chosen.
        balanced_accuracy_bound: the same bound of the gain in balanced accuracy.
        apparent: gain as it was measured, which choosing made too large.
        groups: number of groups of rows that belong together and have the rarer label, so half of them or fewer.
    """

    mean: float
    lower_bound: float
    balanced_accuracy_bound: float
    apparent: float
    groups: int

    @property
    def sure(self) -> bool:
        """Whether the gain is certain, in balanced accuracy too.

        F1 alone rises where a model calls a tool in every row, whether or not one is needed.
        """
        return min(self.lower_bound, self.balanced_accuracy_bound) > 0

    def rows_needed(self, rows: int) -> int | None:
        """On about how many rows a gain as large as the measured one would be sure; None where that is not the matter.

        Args:
            rows: on how many it was measured.
        """
        if self.groups < MIN_GROUPS or self.apparent <= 0 or self.lower_bound > 0:
            return None
        return math.ceil(rows * (1 - self.lower_bound / self.apparent) ** 2)

    def doubt(self, metric: str) -> str:
        """Why the gain is not sure, in words; `metric` is the name of the metric in which it was measured."""
        if self.groups < MIN_GROUPS:
            return f"one label has {self.groups} groups of rows that belong together; expected at least {MIN_GROUPS}"
        if self.lower_bound <= 0:
            return f"its lower 95 % bound is {self.lower_bound:+.3f} ({metric})"
        return (
            f"its lower 95 % bound is {self.balanced_accuracy_bound:+.3f} in balanced accuracy, whatever {metric} says"
        )


class Luck(NamedTuple):
    """The measured gain of the chosen setting, and by how many standard errors it may lie above the truth.

    Attributes:
        apparent: gain as measured.
        error: standard error of the chosen setting's gain.
        mean: mean luck of what is chosen, in standard errors.
        most: luck that is exceeded with a probability of 5 %, in standard errors.
    """

    apparent: float
    error: float
    mean: float
    most: float

    @property
    def lower_bound(self) -> float:
        """One-sided lower 95 % bound of the gain."""
        return self.apparent - self.most * self.error


@dataclass(frozen=True)
class GainRedraw:
    """Resamples of the rows on which `choose` chose a finalist, and what is chosen in each of them.

    Attributes:
        objective: what it was chosen by.
        labels: (N,) 1 where a tool is needed.
        finalists: F settings with their results on these rows.
        index: which of them was chosen.
        weights: (B, N) how often each row of VALID counts in each of B resamples.
        settled: (B,) index of the finalist that is chosen in each resample, were all of them equally good.
        again: share of the resamples in which the same one is chosen, by what each has there.
        groups: number of groups with the rarer label.
    """

    objective: Objective
    labels: NDArray[np.int64]
    finalists: Sequence[Scored]
    index: int
    weights: NDArray[np.int64]
    settled: NDArray[np.int64]
    again: float
    groups: int

    @classmethod
    def of(
        cls,
        args: ASATrainingArguments,
        labels: NDArray[np.int64],
        finalists: Sequence[Scored],
        chosen: Scored,
        groups: NDArray[np.int64] | None = None,
        screened: ScreenedFinalists | None = None,
    ) -> "GainRedraw":
        """Draws the rows again.

        Args:
            args: of these, the objective with its limit, resamples and seed are used.
            labels: (N,) 1 where a tool is needed.
            finalists: the settings with their results on these rows.
            chosen: one of them.
            groups: (N,) numbers from 0; rows with the same number are drawn together. None makes each row a group.
            screened: as `choose` was given.
        """
        objective = Objective.of(args)
        index = next(i for i, finalist in enumerate(finalists) if finalist is chosen)
        evidence = FinalistEvidence.of(args, labels, finalists, groups, screened)
        chosen_again, settled = _chosen_in_redraws(objective, labels, finalists, groups, evidence)
        again, weights = float((chosen_again == index).mean()), evidence.first(len(labels)).weights
        return cls(objective, labels, finalists, index, weights, settled, again, min(groups_by_label(labels, groups)))

    @property
    def few(self) -> bool:
        """Whether there are too few groups for any gain to be sure."""
        return self.groups < MIN_GROUPS

    def called(self, base: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(1 + F, N) triggers, those of the bare model first."""
        return np.stack([base, *(finalist.triggered for finalist in self.finalists)])

    def luck(self, values: NDArray[np.float64], resampled: NDArray[np.float64]) -> Luck:
        """The `Luck` of the chosen finalist.

        Args:
            values: (1 + F,) the metric of the bare model and of each finalist.
            resampled: (1 + F, B) the same in each resample.
        """
        gains, noisy = values[1:] - values[0], resampled[1:] - resampled[0]
        errors = noisy.std(axis=1)
        luck = np.divide(noisy - gains[:, None], errors[:, None], out=np.zeros_like(noisy), where=errors[:, None] > 0)
        taken = luck[self.settled, np.arange(len(self.settled))]
        most = float(np.quantile(taken, _QUANTILE) * bound_quantile(self.groups) / norm.ppf(LEVEL))
        return Luck(float(gains[self.index]), float(errors[self.index]), float(taken.mean()), most)


def sure_gain(redraw: GainRedraw, base: NDArray[np.bool_]) -> Gain:
    """The gain over the bare model of the chosen finalist.

    Args:
        redraw: the rows drawn again.
        base: (N,) triggers of the bare model on these rows.
    """
    called = redraw.called(base)
    plain, drawn = ConfusionCounts.of(redraw.labels, called), ConfusionCounts.of(redraw.labels, called, redraw.weights)
    goals = redraw.objective, Objective("balanced_accuracy")
    lucks = [redraw.luck(goal.gain(plain), goal.gain(drawn)) for goal in goals]
    found, bounds = lucks[0], [-1.0 if redraw.few else luck.lower_bound for luck in lucks]
    mean = found.apparent - found.mean * found.error
    if min(bounds) > 0:
        spare = min(luck.apparent / luck.error - luck.most if luck.error else math.inf for luck in lucks)
        mean = max(_gain_without_luck(mean, spare, found.error), bounds[0])
    return Gain(mean, bounds[0], bounds[1], found.apparent, redraw.groups)


def _chosen_in_redraws(
    objective: Objective,
    labels: NDArray[np.int64],
    finalists: Sequence[Scored],
    groups: NDArray[np.int64] | None,
    evidence: FinalistEvidence,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B,) index of the finalist chosen in each resample: by what each has there, and as if all were as good."""
    valid = evidence.first(len(labels))
    scores = objective.value(evidence.drawn())
    noise = scores - objective.value(evidence.plain())[:, None]
    independent = np.array([independent_negatives(labels, finalist.triggered, groups) for finalist in finalists])
    errors, keeps = standard_errors(scores), objective.keeps(valid.drawn(), independent[:, None])
    success = success_noise = None
    if found := valid.successes(finalists):
        plain, drawn, apart = found
        success, success_noise = (drawn, apart), (drawn - plain[:, None], apart)
    gentleness = [finalist.gentleness() for finalist in finalists]
    return (
        gentlest_near_best(gentleness, scores, errors, keeps, success),
        gentlest_near_best(gentleness, noise, errors, keeps, success_noise),
    )


def groups_by_label(labels: NDArray[np.int64], groups: NDArray[np.int64] | None) -> tuple[int, int]:
    """How many groups have rows of label 0, and of label 1: with few of either no gain is sure.

    Args:
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together. None makes each row a group.
    """
    numbers = np.arange(len(labels)) if groups is None else groups
    without, needed = (len(set(numbers[labels == label].tolist())) for label in (0, 1))
    return without, needed


def bound_quantile(groups: int) -> float:
    """How many standard errors from a measured gain its one-sided 95 % bound lies, by the number of groups.

    A bootstrap's spread does not know from how few groups it was estimated; those of the rarer label decide.
    """
    return math.sqrt(groups / max(groups - 1, 1)) * float(student.ppf(LEVEL, max(groups - 1, 1)))


def _gain_without_luck(measured: float, spare: float, error: float) -> float:
    """Median-unbiased estimate of a mean that is only told because it was measured far enough above 0.

    Args:
        measured: what was measured, normal about the mean.
        spare: by how many standard errors it lies above the least that is told.
        error: its standard error.
    """
    if not error or not math.isfinite(spare):
        return measured

    def excess(shift: float) -> float:
        """Log odds against a measurement this high, if the mean lies `shift` standard errors below it."""
        return float(norm.logsf(shift) - norm.logsf(shift - spare)) - math.log(0.5)

    furthest = 30.0
    return measured - error * (brentq(excess, -8.0, furthest) if excess(furthest) < 0 < excess(-8.0) else furthest)
