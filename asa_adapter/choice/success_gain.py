"""Whether calls succeed: those that are needed, of an offered tool, and that fit its schema.

A trigger is no success. A setting that makes a model call more often may make it call what nobody offered.
"""

from typing import NamedTuple

import numpy as np

from asa_adapter.choice.gain import GainRedraw, bound_quantile
from asa_adapter.evaluation.metrics import success_f1
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


def success_gain(redraw: GainRedraw, base: Outcome) -> Success:
    """What the chosen finalist changes in success.

    Args:
        redraw: the rows on which it was chosen, drawn again; its finalists have `fits`.
        base: what came of the bare model's answers to these rows.
    """
    called = redraw.called(base.triggered)
    fits = np.stack([base.fits, *(np.asarray(finalist.fits) for finalist in redraw.finalists)])
    values = success_f1(redraw.labels, called, fits)
    luck = redraw.luck(values, success_f1(redraw.labels, called, fits, redraw.weights))
    upper = 1.0 if redraw.few else luck.apparent + bound_quantile(redraw.groups) * luck.error
    lower = -1.0 if redraw.few else luck.lower_bound
    return Success(float(values[0]), float(values[1 + redraw.index]), lower, min(float(upper), 1.0))
