"""Uncertainty of metrics: bootstrap intervals over rows, and McNemar's test for two models on the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from asa_adapter.evaluation.metrics import Counts

LEVEL = 0.95


def resamples(rows: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(draws, rows) int64 bootstrap weights: how often each row was drawn, with replacement, in each resample."""
    return np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=draws)


def interval(values: NDArray[np.float64]) -> list[float]:
    """95 % percentile interval [low, high] of (B,) resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


def comparison(
    labels: ArrayLike,
    base: ArrayLike,
    asa: ArrayLike,
    domains: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 42,
) -> dict[str, Any]:
    """Compares the bare and the steered model on the same rows, with confidence intervals and a test.

    Args:
        labels: (N,) 1 where a tool call is needed.
        base: (N,) true where the bare model began a call.
        asa: (N,) true where the steered model began a call.
        domains: (N,) names; if given, the result has the same comparison for each domain in `by_domain`.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.

    Returns:
        `intervals`: for "base", "asa" and "gain" (asa minus base) a 95 % percentile interval [low, high] of each
        ratio, all from the same resamples; `only_base_right`, `only_asa_right`: number of rows that only one of the
        two models decided correctly; `mcnemar_p`: two-sided p-value of McNemar's exact test on these two numbers.
    """
    needed = np.asarray(labels, dtype=bool)
    called = np.stack([np.asarray(base, dtype=bool), np.asarray(asa, dtype=bool)])
    ratios = Counts.of(needed, called, resamples(len(needed), draws, seed)).ratios()
    right = called == needed
    only_base, only_asa = int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum())
    result: dict[str, Any] = {
        "intervals": {
            "base": {name: interval(value[0]) for name, value in ratios.items()},
            "asa": {name: interval(value[1]) for name, value in ratios.items()},
            "gain": {name: interval(value[1] - value[0]) for name, value in ratios.items()},
        },
        "only_base_right": only_base,
        "only_asa_right": only_asa,
        "mcnemar_p": float(binomtest(only_asa, only_base + only_asa).pvalue) if only_base + only_asa else 1.0,
    }
    if domains is not None:
        names = np.asarray(domains)
        result["by_domain"] = {
            str(name): comparison(
                needed[names == name], called[0, names == name], called[1, names == name], None, draws, seed
            )
            for name in sorted(set(domains))
        }
    return result


def upper_confidence_bound(successes: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided upper confidence bound of a proportion, from Wilson's score interval; 1.0 without trials.

    Example:
        >>> round(upper_confidence_bound(0, 50), 3)
        0.051
    """
    if not trials:
        return 1.0
    below = binomtest(successes, trials, alternative="less")
    return float(below.proportion_ci(confidence, method="wilson").high)
