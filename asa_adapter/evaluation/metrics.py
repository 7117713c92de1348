"""Trigger metrics: how often tools are called when they are needed, and when they are not."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def trigger_metrics(
    labels: ArrayLike,
    triggered: ArrayLike,
    domains: Sequence[str] | None = None,
    checks: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Trigger metrics (arXiv 2602.04935): a model's tool calls against the rows that need one.

    Args:
        labels: (N,) 1 where a tool call is needed.
        triggered: (N,) true where the model began a tool call.
        domains: (N,) names; if given, the result has the same numbers for each domain in `per_domain`.
        checks: (N,) results of `ToolCallParser.check`; if given, the result has `validity`: the shares of the
            triggered rows whose call can be parsed ("format"), names an offered tool ("tool_name") and fits its schema
            ("arguments"), and precision and recall of calls that do all three.

    Returns:
        n, tp, fp, fn, tn (counts), precision, recall, f1, accuracy, fpr (ratios), and `per_domain` and `validity` if
        asked for. A ratio with denominator 0 is 0.0.

    Raises:
        ValueError: the sequences differ in length, or a label is neither 0 nor 1.

    Example:
        >>> trigger_metrics([1, 1, 0, 0], [True, False, True, False])["f1"]
        0.5
    """
    needed = np.asarray(labels)
    called = np.asarray(triggered, dtype=bool)
    sizes = {len(part) for part in (needed, called, domains, checks) if part is not None}
    if len(sizes) != 1:
        raise ValueError(f"labels, triggers, domains and checks have lengths {sorted(sizes)}; expected one length")
    if not np.isin(needed, (0, 1)).all():
        raise ValueError("labels hold other values than 0 and 1")
    metrics = _counts_and_ratios(needed.astype(bool), called)
    if domains is not None:
        names = np.asarray(domains)
        metrics["per_domain"] = {
            str(name): _counts_and_ratios(needed.astype(bool)[names == name], called[names == name])
            for name in sorted(set(domains))
        }
    if checks is not None:
        metrics["validity"] = _validity(needed.astype(bool), called, checks)
    return metrics


class ConfusionCounts(NamedTuple):
    """Confusion counts: float64 arrays of one shape, with an entry for each model, setting or resample counted.

    Attributes:
        tp: rows that need a tool call and got one.
        fp: rows that need none and got one.
        fn: rows that need one and got none.
        tn: rows that need none and got none.
    """

    tp: NDArray[np.float64]
    fp: NDArray[np.float64]
    fn: NDArray[np.float64]
    tn: NDArray[np.float64]

    @classmethod
    def of(cls, labels: ArrayLike, triggered: ArrayLike, weights: ArrayLike | None = None) -> "ConfusionCounts":
        """Counts rows.

        Args:
            labels: (N,) 1 where a tool call is needed.
            triggered: (..., N) true where a call began.
            weights: (B, N) how often each row counts in each of B resamples; None counts each row once.

        Returns:
            ConfusionCounts of shape (..., B), or (...) if `weights` is None.
        """
        needed, called = np.asarray(labels, dtype=bool), np.asarray(triggered, dtype=bool)
        times = np.ones((1, len(needed))) if weights is None else np.asarray(weights, dtype=np.float64)
        parts = [
            (d & n) @ times.T for d, n in ((called, needed), (called, ~needed), (~called, needed), (~called, ~needed))
        ]
        return cls(*(part[..., 0] if weights is None else part for part in parts))

    def ratios(self) -> dict[str, NDArray[np.float64]]:
        """precision, recall, f1, accuracy and fpr, each of the counts' shape; 0 where a denominator is 0."""
        tp, fp, fn, tn = self
        return {
            "precision": _ratios_of_counts(tp, tp + fp),
            "recall": _ratios_of_counts(tp, tp + fn),
            "f1": _ratios_of_counts(2 * tp, 2 * tp + fp + fn),
            "accuracy": _ratios_of_counts(tp + tn, tp + fp + fn + tn),
            "fpr": _ratios_of_counts(fp, fp + tn),
        }


def _ratios_of_counts(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratios of counts; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _counts_and_ratios(needed: np.ndarray, called: np.ndarray) -> dict[str, Any]:
    """The counts of a metrics dict, and their ratios."""
    counts = ConfusionCounts.of(needed, called)
    whole = {name: int(count) for name, count in counts._asdict().items()}
    return {"n": len(needed), **whole, **{name: float(value) for name, value in counts.ratios().items()}}


def _validity(needed: np.ndarray, called: np.ndarray, checks: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The `validity` of `trigger_metrics`."""
    parses, names, fits = (
        np.asarray([bool(check[key]) for check in checks], dtype=bool) & called
        for key in ("format", "tool_name", "arguments")
    )
    success = int((parses & names & fits & needed).sum())
    return {
        "format": ratio(int(parses.sum()), int(called.sum())),
        "tool_name": ratio(int(names.sum()), int(called.sum())),
        "arguments": ratio(int(fits.sum()), int(called.sum())),
        "success_precision": ratio(success, int(called.sum())),
        "success_recall": ratio(success, int(needed.sum())),
    }


def gold_metrics(matches: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """How often the calls of an answer are exactly the row's gold calls.

    Args:
        matches: for each row with gold calls, whether its calls match in any order, and in the same order.

    Returns:
        `n`: number of rows; `match`, `in_order`: shares of them that match in any order and in the same order.

    Example:
        >>> gold_metrics([(True, True), (True, False)])
        {'n': 2, 'match': 1.0, 'in_order': 0.5}
    """
    anyhow, ordered = (sum(column) for column in zip(*matches, strict=True)) if matches else (0, 0)
    return {"n": len(matches), "match": ratio(anyhow, len(matches)), "in_order": ratio(ordered, len(matches))}


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator; 0.0 where the denominator is 0."""
    return numerator / denominator if denominator else 0.0


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; ties count half. With one label only it is 0.5.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) higher where label 1 is more likely.

    Raises:
        ValueError: a score is NaN.

    Example:
        >>> auc([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])
        0.75
    """
    needed, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    positives, negatives = int(needed.sum()), int((~needed).sum())
    if not positives or not negatives:
        return 0.5
    if np.isnan(values).any():
        raise ValueError("a score is NaN; expected numbers that can be ranked")
    rank_sum = rankdata(values)[needed].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def success_f1(
    labels: NDArray[np.int64],
    triggered: NDArray[np.bool_],
    fits: NDArray[np.bool_],
    weights: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """F1 of the calls that are needed and fit an offered tool: their number against all calls and all needs.

    Args:
        labels: (N,) 1 where a tool is needed.
        triggered: (..., N) whether a call began.
        fits: (..., N) whether all calls of the answer fit an offered tool.
        weights: (B, N) how often each row counts in each of B resamples; None counts each row once.

    Returns:
        (..., B), or (...) if `weights` is None; 0 where nothing is called and nothing needed.
    """
    times = np.ones(len(labels)) if weights is None else weights.T.astype(np.float64)
    needed = labels == 1
    successes, calls, needs = (triggered & fits & needed) @ times, triggered @ times, needed @ times
    return np.divide(2 * successes, calls + needs, out=np.zeros_like(successes), where=calls + needs > 0)
