"""A layer fitted once more, when everything is chosen: with the rows of VALID too."""

from collections.abc import Sequence
from dataclasses import replace

from asa_adapter.fitting.layer_fit import LayerFit, fitted_probes, fitted_vectors
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.parts.classifiers import Router


def refitted(
    fit: LayerFit,
    given: Sequence[LabelledStates],
    names: Sequence[str],
    also: Sequence[LabelledStates] = (),
    *,
    seed: int,
    shift: float = 0.0,
) -> LayerFit:
    """Directions, router and probes of a layer, fitted on more rows; what they were chosen by stays.

    More rows make all of them surer, and another draw of the splits changes them less. The unit of the step, the
    regularisation, out-of-fold predictions and facts stay those of the fit that was judged.

    Args:
        fit: what was fitted on CAL and TRAIN.
        given: CAL, TRAIN and VALID.
        names: (K,) domain names, in the order of the config.
        also: further rows for router and probes, as in `fit_layer`.
        seed: seed of the solvers.
        shift: what is added to the log odds of all probes.

    Raises:
        ValueError: the states give no direction.
    """
    first, *others = given
    rows, C = first.joined(others), fit.facts["C"]
    known = rows.joined(also)
    return replace(
        fit,
        vectors=fitted_vectors(rows, names),
        router=Router.fit(known.states, known.domains, C, seed),
        probes=fitted_probes(known, C, seed, shift),
    )
