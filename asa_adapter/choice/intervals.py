"""Uncertainty of metrics: intervals and tests in which rows that belong together count as one draw.

Copies of a row, and rows cut from one conversation, stand or fall together: taken for independent rows they make luck
look certain. So groups of rows are resampled, never rows; see `asa_adapter.data.duplicates.row_groups`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm

from asa_adapter.evaluation.metrics import ConfusionCounts

LEVEL = 0.95

# A ratio as hits among the rows that count, each named by cells of the confusion counts. F1 is 2 j / (1 + j) of the
# last, j = tp / (tp + fp + fn), and rises with it.
_CELLS = {
    "precision": (("tp",), ("fp",)),
    "recall": (("tp",), ("fn",)),
    "f1": (("tp",), ("fp", "fn")),
    "accuracy": (("tp", "tn"), ("fp", "fn")),
    "fpr": (("fp",), ("tn",)),
}


def resamples(rows: int, draws: int, seed: int, groups: ArrayLike | None = None) -> NDArray[np.int64]:
    """How often each row was drawn in each bootstrap resample.

    Args:
        rows: number of rows, N.
        draws: number of resamples, B.
        seed: seed of the draws.
        groups: (N,) numbers; rows with the same number are drawn together. None draws each row by itself.

    Returns:
        (B, N) int64 weights: as many groups as there are, drawn with replacement.
    """
    numbers = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(numbers.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return drawn[:, numbers]


def wilson(successes: ArrayLike, groups: ArrayLike | None = None) -> tuple[float, float]:
    """95 % score interval (Wilson) of the share of successes.

    Rows of one group tell less than as many rows by themselves. Their number is divided by the design effect: the
    variance between groups over that of independent rows, at most what copies would have. Where all rows are alike the
    variance says nothing, and they are taken for copies.

    Args:
        successes: (N,) true or false.
        groups: (N,) numbers; rows with the same number belong together. None makes each row a group.

    Returns:
        (low, high); (0.0, 1.0) without rows.

    Example:
        >>> low, high = wilson([True] * 20)
        >>> round(low, 3), high
        (0.839, 1.0)
    """
    hits = np.asarray(successes, dtype=np.float64)
    if not hits.size:
        return 0.0, 1.0
    p, n = float(hits.mean()), effective_rows(hits, groups)
    one_sided = (1 + LEVEL) / 2
    low, high = 1 - float(upper_bound(1 - p, n, one_sided)), float(upper_bound(p, n, one_sided))
    return (0.0 if p == 0 else max(low, 0.0)), (1.0 if p == 1 else high)


def effective_rows(successes: ArrayLike, groups: ArrayLike | None = None) -> float:
    """How many independent rows tell as much about the share of successes: N over the design effect; see `wilson`."""
    hits = np.asarray(successes, dtype=np.float64)
    return len(hits) / _design_effect(hits - hits.mean(), groups) if hits.size else 0.0


def upper_bound(shares: ArrayLike, rows: ArrayLike, confidence: float = LEVEL) -> NDArray[np.float64]:
    """One-sided upper bound of shares, from Wilson's score interval; 1.0 without rows.

    Args:
        shares: the measured shares, 0 to 1, of any shape.
        rows: number of independent rows behind each, whole or not, of a shape that goes with it.
        confidence: above .5 and below 1.

    Example:
        >>> round(float(upper_bound(0 / 50, 50)), 3)
        0.051
    """
    p, n = np.broadcast_arrays(np.asarray(shares, dtype=np.float64), np.asarray(rows, dtype=np.float64))
    some, z = np.where(n > 0, n, 1.0), float(norm.ppf(confidence))
    half = z * np.sqrt(p * (1 - p) / some + z**2 / (4 * some**2))
    high = (p + z**2 / (2 * some) + half) / (1 + z**2 / some)
    return np.where(n > 0, np.minimum(high, 1.0), 1.0)


def _design_effect(deviations: NDArray[np.float64], groups: ArrayLike | None) -> float:
    """How many rows of these groups tell as much as one independent row; `deviations` are from the mean, (N,)."""
    if groups is None:
        return 1.0
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(numbers)
    copies = float((sizes**2).sum() / sizes.sum())
    plain = float((deviations**2).sum())
    if plain == 0 or len(sizes) < 2:
        return copies
    between = float((np.bincount(numbers, weights=deviations) ** 2).sum()) * len(sizes) / (len(sizes) - 1)
    return min(max(between / plain, 1.0), copies)


def paired_intervals(
    labels: ArrayLike,
    base: ArrayLike,
    asa: ArrayLike,
    domains: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 42,
    groups: ArrayLike | None = None,
) -> dict[str, Any]:
    """Compares the bare and the steered model on the same rows, with confidence intervals and a test.

    Args:
        labels: (N,) 1 where a tool call is needed.
        base: (N,) true where the bare model began a call.
        asa: (N,) true where the steered model began a call.
        domains: (N,) names; if given, the result has the same comparison for each domain in `by_domain`.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.
        groups: (N,) numbers; rows with the same number belong together. None makes each row a group.

    Returns:
        `intervals`: for "base" and "asa" the 95 % Wilson interval [low, high] of each ratio, and for "gain" (asa minus
        base) the interval that follows from both and from how they vary together (MOVER, with the correlation of a
        paired bootstrap); `only_base_right`, `only_asa_right`: number of rows that only one of the two models decided
        correctly; `mcnemar_p`: two-sided p-value of McNemar's exact test, in which a group counts for the model that
        decided more of its rows correctly; `groups`: their number.
    """
    needed = np.asarray(labels, dtype=bool)
    called = np.stack([np.asarray(base, dtype=bool), np.asarray(asa, dtype=bool)])
    numbers = np.unique(np.arange(len(needed)) if groups is None else np.asarray(groups), return_inverse=True)[1]
    right = (called == needed).astype(np.int64)
    result: dict[str, Any] = {
        "intervals": _intervals(needed, called, numbers, draws, seed),
        "only_base_right": int((right[0] > right[1]).sum()),
        "only_asa_right": int((right[1] > right[0]).sum()),
        "mcnemar_p": _mcnemar(right[1] - right[0], numbers),
        "groups": int(numbers.max()) + 1,
    }
    if domains is not None:
        names = np.asarray(domains)
        result["by_domain"] = {
            str(name): paired_intervals(needed[own], called[0, own], called[1, own], None, draws, seed, numbers[own])
            for name, own in ((name, names == name) for name in sorted(set(domains)))
        }
    return result


def _intervals(
    needed: NDArray[np.bool_], called: NDArray[np.bool_], groups: NDArray[np.int64], draws: int, seed: int
) -> dict[str, dict[str, list[float]]]:
    """The intervals of each ratio, of both models and of the gain, as `paired_intervals` returns them."""
    drawn = ConfusionCounts.of(needed, called, resamples(len(needed), draws, seed, groups)).ratios()
    exact = {name: value.tolist() for name, value in ConfusionCounts.of(needed, called).ratios().items()}
    found: dict[str, dict[str, list[float]]] = {"base": {}, "asa": {}, "gain": {}}
    for name in _CELLS:
        base, asa = (_ratio_interval(name, needed, row, groups) for row in called)
        found["base"][name], found["asa"][name] = list(base), list(asa)
        found["gain"][name] = _difference(exact[name], (base, asa), _correlation(*drawn[name]))
    return found


def _ratio_interval(
    name: str, needed: NDArray[np.bool_], called: NDArray[np.bool_], groups: NDArray[np.int64]
) -> tuple[float, float]:
    """Wilson's interval of one ratio of one model."""
    cells = {"tp": called & needed, "fp": called & ~needed, "fn": ~called & needed, "tn": ~called & ~needed}
    hits, misses = (np.any([cells[cell] for cell in part], axis=0) for part in _CELLS[name])
    counting = hits | misses
    low, high = wilson(hits[counting], groups[counting])
    return (2 * low / (1 + low), 2 * high / (1 + high)) if name == "f1" else (low, high)


def _correlation(base: NDArray[np.float64], asa: NDArray[np.float64]) -> float:
    """Correlation of two (B,) resampled ratios, for the interval of their difference; 0 where one does not vary."""
    return float(np.corrcoef(base, asa)[0, 1]) if base.std() > 0 and asa.std() > 0 else 0.0


def _difference(values: Sequence[float], intervals: Sequence[tuple[float, float]], correlation: float) -> list[float]:
    """Interval of the second value minus the first, from the interval of each (MOVER; Zou and Donner 2008)."""
    (base, asa), ((base_low, base_high), (asa_low, asa_high)) = values, intervals

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    gain = asa - base
    low, high = gain - reach(asa - asa_low, base_high - base), gain + reach(asa_high - asa, base - base_low)
    return [max(low, -1.0), min(high, 1.0)]


def _mcnemar(gains: NDArray[np.int64], groups: NDArray[np.int64]) -> float:
    """p-value of the sign test on groups; `gains` (N,) is 1 where only the second model is right, -1 the first."""
    of_groups = np.bincount(groups, weights=gains)
    better, worse = int((of_groups > 0).sum()), int((of_groups < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
