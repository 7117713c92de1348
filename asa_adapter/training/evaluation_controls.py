"""What an evaluation is held against: chance, a classifier of the words, and probes of meaningless labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.intervals import paired_intervals
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.fitting.layer_fit import LayerFit, probe_quality
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.measurement.word_classifier import bag_of_words


def sureness(
    measured: Measurements, split: str, called: tuple[NDArray[np.bool_], NDArray[np.bool_]], args: ASATrainingArguments
) -> dict[str, Any]:
    """How sure the difference is between which prompts of a split two models call for; see `paired_intervals`."""
    return paired_intervals(
        measured.labels(split),
        *called,
        measured.domains(split),
        draws=args.resamples,
        seed=args.seed,
        groups=measured.groups(split),
    )


def controls(
    measured: Measurements, split: str, layer: int, fit: LayerFit, known: Sequence[str], seed: int
) -> dict[str, Any]:
    """Metrics of the bag-of-words classifier, and of probes of true and shuffled labels at one layer.

    Args:
        measured: has the rows and their states.
        split: name of the split that is judged.
        layer: index of the decoder block.
        fit: what was fitted there.
        known: splits that are fitted on.
        seed: seed of the fits.
    """
    first, *others, judged = (measured.labelled(name, layer) for name in (*known, split))
    rows = [row for name in known for row in measured.rows(name)]
    return {
        "bag_of_words": bag_of_words(rows, measured.rows(split), seed),
        **probe_quality(fit, first.joined(others), judged, fit.router.domains, seed),
    }
