"""A threshold on a score, chosen on VALID: the simplest of all rules that decide."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective

_ALL = ""  # the one threshold of all domains


def fitted_thresholds(
    objective: Objective,
    scores: NDArray[Any],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    domains: Sequence[str] | None = None,
) -> dict[str, float]:
    """The thresholds at which the decision "a tool is needed" is best: one for each domain, "" for all others.

    Of several that are equally good the middle one is taken.

    Args:
        objective: what is best.
        scores: (N,) scores, higher where a tool is more likely to be needed.
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together. None makes each row a group.
        domains: (N,) names; None for one threshold alone.
    """
    found = {_ALL: _best_threshold(objective, scores, labels, groups)}
    for name in sorted(set(domains or ())):
        own = np.asarray(domains) == name
        found[name] = _best_threshold(objective, scores[own], labels[own], None if groups is None else groups[own])
    return found


def needed_by_threshold(
    scores: NDArray[Any], thresholds: Mapping[str, float], domains: Sequence[str]
) -> NDArray[np.bool_]:
    """(N,) bool: whether each row's score reaches the threshold of its domain."""
    limits = np.array([thresholds.get(name, thresholds[_ALL]) for name in domains])
    decided: NDArray[np.bool_] = np.asarray(scores, dtype=np.float64) >= limits
    return decided


def thresholds_in_words(thresholds: Mapping[str, float]) -> str:
    """The thresholds in words."""
    if len(thresholds) == 1:
        return f"threshold {thresholds[_ALL]:.3g}"
    return "thresholds " + ", ".join(f"{name} {limit:.3g}" for name, limit in thresholds.items() if name != _ALL)


def _best_threshold(
    objective: Objective, scores: NDArray[Any], labels: NDArray[np.int64], groups: NDArray[np.int64] | None
) -> float:
    """The threshold on scores that the objective ranks highest."""
    values = np.unique(np.asarray(scores, dtype=np.float64))
    # Between two neighbours, and beyond both ends: never and always. In the middle, so that rounding decides nothing.
    limits = np.concatenate([values[:1] - 1, (values[:-1] + values[1:]) / 2, values[-1:] + 1])
    ranks = np.array([objective.score(labels, scores >= limit, groups) for limit in limits])
    best = np.flatnonzero(ranks >= ranks.max() - 1e-12)
    return float(limits[best[(len(best) - 1) // 2]])
