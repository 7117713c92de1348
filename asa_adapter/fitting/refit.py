"""A layer fitted once more, when everything is chosen: with the rows of VALID too."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from asa_adapter.fitting.layer_fit import LayerFit, fitted_probes, fitted_vectors
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.parts.vectors import SteeringVectors


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

    The unit of the step, the regularisation, out-of-fold predictions and facts stay those of the fit that was judged.
    So do its parts: a domain or a kind of state that had too few rows for a probe or a direction of its own gets none,
    although VALID's rows may make them enough, and VALID's rows of a domain that it does not know are left out.

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
    rows, C = first.joined(others).of_domains(fit.router.domains), fit.facts["C"]
    known = rows.joined(also)
    return replace(
        fit,
        vectors=_with_parts_of(fit.vectors, fitted_vectors(rows, names)),
        router=Router.fit(known.states, known.domains, C, seed),
        probes=_with_probes_of(fit.probes, fitted_probes(known, C, seed, shift)),
    )


def _with_parts_of(judged: SteeringVectors, again: SteeringVectors) -> SteeringVectors:
    """Directions fitted again, of those domains and kinds of state that had some of their own."""
    own = judged.v_domain.any(dim=1, keepdim=True)
    return replace(
        again,
        v_domain=torch.where(own, again.v_domain, 0.0),
        by_state={kind: _with_parts_of(one, again.by_state[kind]) for kind, one in judged.by_state.items()},
    )


def _with_probes_of(judged: Probes, again: Probes) -> Probes:
    """Probes fitted again, of those domains and kinds of state that had one of their own."""
    return Probes(
        again.pooled_,
        {name: again.by_domain_[name] for name in judged.by_domain_},
        {kind: _with_probes_of(one, again.by_state_[kind]) for kind, one in judged.by_state_.items()},
    )
