"""Everything that is fitted at one layer, from labelled residual states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.classifiers import Probes, Router
from asa_adapter.metrics import auc
from asa_adapter.vectors import SteeringVectors

_SHUFFLES = 10


@dataclass(frozen=True)
class LabelledStates:
    """One split at one layer: states (N, D), labels (N,) of 0 and 1, and N domain names."""

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    domains: list[str]


@dataclass(frozen=True)
class LayerFit:
    """What a layer offers.

    Attributes:
        vectors: directions from CAL.
        router: fitted on TRAIN.
        probes: fitted on TRAIN.
        residual_norm: mean norm of the states on CAL.
        facts: how well domain and need can be read there, on VALID, for the report.
    """

    vectors: SteeringVectors
    router: Router
    probes: Probes
    residual_norm: float
    facts: dict[str, Any]


def fit_layer(
    cal: LabelledStates,
    train: LabelledStates,
    valid: LabelledStates,
    names: Sequence[str],
    Cs: Sequence[float],
    seed: int,
) -> LayerFit:
    """Fits directions on CAL, and router and probes on TRAIN with the regularisation whose probe reads VALID best."""
    read = {C: _pooled_auc(train, train.labels, valid, C, seed) for C in Cs}
    best = min(read, key=lambda C: (-round(read[C], 6), C))
    shuffled = [
        _pooled_auc(train, shuffled_within(train.labels, train.domains, seed + i), valid, best, seed)
        for i in range(_SHUFFLES)
    ]
    router = Router.fit(train.states, train.domains, best, seed)
    routed = np.array(router.domains)[router.predict_proba(valid.states).argmax(axis=1)]
    residual_norm = float(np.linalg.norm(cal.states, axis=1).mean())
    facts = {
        "probe_auc": read[best],
        "shuffled_auc": float(np.mean(shuffled)),
        "router_accuracy": float((routed == np.array(valid.domains)).mean()),
        "residual_norm": residual_norm,
        "C": best,
    }
    return LayerFit(
        SteeringVectors.fit(cal.states, cal.labels.tolist(), cal.domains, names),
        router,
        Probes.fit(train.states, train.labels, train.domains, best, seed),
        residual_norm,
        facts,
    )


def shuffled_within(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(N,) control labels, random but half 0 and half 1 within each true label and domain.

    Plainly permuted labels keep a small chance correlation with the true ones, and a strongly regularised probe
    follows it: its AUC is then far from 0.5 on either side.
    """
    generator = np.random.default_rng(seed)
    pairs = list(zip(labels.tolist(), domains, strict=True))
    shuffled = np.zeros_like(labels)
    for group in sorted(set(pairs)):
        rows = np.flatnonzero([pair == group for pair in pairs])
        shuffled[rows] = generator.permutation(np.arange(len(rows)) % 2)
    return shuffled


def _pooled_auc(train: LabelledStates, labels: NDArray[np.int64], valid: LabelledStates, C: float, seed: int) -> float:
    """AUC on VALID of a pooled probe that was fitted to some labels of TRAIN."""
    probes = Probes.fit(train.states, labels, ["all"] * len(labels), C, seed)
    return auc(valid.labels, probes.p_tool(valid.states))
