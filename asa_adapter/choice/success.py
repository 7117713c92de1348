"""Whether calls succeed: those that are needed, of an offered tool, and that fit its schema.

A trigger is no success. A setting that makes a model call more often may make it call what nobody offered.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.gain import MIN_GROUPS, bound_quantile, chosen_again, luck_of
from asa_adapter.choice.settings import Scored, success_f1
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.intervals import resamples
from asa_adapter.tool_calls.outcomes import Outcome


class Success(NamedTuple):
    """What the chosen setting changes in the F1 of successful calls.

    Attributes:
        base: F1 of the bare model.
        chosen: F1 of the chosen setting.
        lower_bound: one-sided lower 95 % bound of the gain, which holds whichever finalist was chosen.
        upper_bound: one-sided upper 95 % bound of the gain.
    """

    base: float
    chosen: float
    lower_bound: float
    upper_bound: float

    @property
    def sure(self) -> bool:
        """Whether a gain is certain."""
        return self.lower_bound > 0

    @property
    def falls(self) -> bool:
        """Whether a loss is certain."""
        return self.upper_bound < 0

    def __str__(self) -> str:
        return (
            f"the F1 of successful calls (needed, of an offered tool, fitting its schema) goes from {self.base:.3f} "
            f"to {self.chosen:.3f} on VALID (95 % bounds of the gain {self.lower_bound:+.3f} and "
            f"{self.upper_bound:+.3f})"
        )


def success_gain(
    args: ASATrainingArguments,
    labels: NDArray[np.int64],
    base: Outcome,
    finalists: Sequence[Scored],
    chosen: Scored,
    groups: NDArray[np.int64] | None = None,
) -> Success:
    """What `choose`'s finalist changes in success on the rows on which it was chosen.

    Args:
        args: of these, the objective with its limit, resamples and seed are used.
        labels: (N,) 1 where a tool is needed.
        base: what came of the bare model's answers.
        finalists: the settings with their results on these rows, `fits` among them.
        chosen: one of them.
        groups: (N,) numbers from 0; rows with the same number are drawn together. None makes each row a group.
    """
    index = next(i for i, finalist in enumerate(finalists) if finalist is chosen)
    called = np.stack([base.triggered, *(finalist.triggered for finalist in finalists)])
    fits = np.stack([base.fits, *(np.asarray(finalist.fits) for finalist in finalists)])
    weights = resamples(len(labels), args.resamples, args.seed, groups)
    values, drawn = success_f1(labels, called, fits), success_f1(labels, called, fits, weights)
    numbers = np.arange(len(labels)) if groups is None else groups
    count = min(len(set(numbers[labels == label].tolist())) for label in (0, 1))
    luck = luck_of(values, drawn, chosen_again(args, labels, finalists, groups), index, count)
    few = count < MIN_GROUPS
    upper = 1.0 if few else luck.apparent + bound_quantile(count) * luck.error
    lower = -1.0 if few else luck.lower_bound
    return Success(float(values[0]), float(values[1 + index]), lower, min(float(upper), 1.0))
