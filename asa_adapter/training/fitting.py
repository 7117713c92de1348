"""Everything that is fitted at one layer, from labelled residual states."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from asa_adapter.config.fields import PROBE_KINDS
from asa_adapter.evaluation.metrics import auc
from asa_adapter.steering.classifiers import Probes, Router
from asa_adapter.steering.vectors import SteeringVectors
from asa_adapter.training.baselines import shuffled_within

_SHUFFLES = 10
_FOLDS = 5


@dataclass(frozen=True)
class LabelledStates:
    """One split at one layer.

    Attributes:
        states: (N, D) residual states.
        labels: (N,) 0 or 1.
        domains: N names.
        groups: (N,) int64; rows of one group say nearly the same. None: each row is a group of its own.
    """

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    domains: list[str]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Prediction:
    """What router and probes say about N rows.

    Attributes:
        domain: (N,) int64, index of the domain that the router chooses.
        p_tool: by kind of probe ("domain", "pooled"), (N,) probabilities that a tool is needed.
    """

    domain: NDArray[np.int64]
    p_tool: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class LayerFit:
    """What a layer offers.

    Attributes:
        vectors: directions from CAL.
        router: fitted on TRAIN.
        probes: fitted on TRAIN.
        residual_norm: mean norm of the states on CAL.
        out_of_fold: predictions on TRAIN, each row's by a router and probes that were fitted without its fold.
        facts: how well domain and need can be read there, for the report.
    """

    vectors: SteeringVectors
    router: Router
    probes: Probes
    residual_norm: float
    out_of_fold: Prediction
    facts: dict[str, Any]

    def predict(self, states: NDArray[np.float32]) -> Prediction:
        """What the fitted router and probes say about (N, D) states of rows that they were not fitted on."""
        return _predicted(self.router, self.probes, states, self.router.domains)


def fit_layer(
    cal: LabelledStates,
    train: LabelledStates,
    valid: LabelledStates,
    names: Sequence[str],
    Cs: Sequence[float],
    seed: int,
) -> LayerFit:
    """Fits directions on CAL, and router and probes on TRAIN.

    The regularisation is the one whose pooled probe reads the rows of TRAIN best that it was not fitted on. VALID is
    only reported on: the settings that it judges later must not depend on it.
    """
    folds = _folds(train, seed)
    read = {C: auc(train.labels, _pooled_out_of_fold(train, folds, C, seed)) for C in Cs}
    best = min(read, key=lambda C: (-round(read[C], 6), C))
    fit = LayerFit(
        SteeringVectors.fit(cal.states, cal.labels.tolist(), cal.domains, names),
        Router.fit(train.states, train.domains, best, seed),
        Probes.fit(train.states, train.labels, train.domains, best, seed),
        float(np.linalg.norm(cal.states, axis=1).mean()),
        _out_of_fold(train, folds, names, best, seed),
        facts={"out_of_fold_auc": read[best], "C": best},
    )
    fit.facts.update(residual_norm=fit.residual_norm, **probe_quality(fit, train, valid, names, seed))
    return fit


def probe_quality(
    fit: LayerFit, train: LabelledStates, judged: LabelledStates, names: Sequence[str], seed: int
) -> dict[str, float]:
    """How well a layer's classifiers read rows that they were not fitted on, and how well a control does.

    Returns:
        `probe_auc` of the pooled probe, `shuffled_auc` of probes fitted like it to meaningless labels (it must be near
        0.5, or the reading is luck), and `router_accuracy`.
    """
    prediction = fit.predict(judged.states)
    shuffled = [
        _pooled_auc(train, shuffled_within(train.labels, train.domains, seed + i), judged, fit.facts["C"], seed)
        for i in range(_SHUFFLES)
    ]
    return {
        "probe_auc": auc(judged.labels, prediction.p_tool["pooled"]),
        "shuffled_auc": float(np.mean(shuffled)),
        "router_accuracy": float((np.array(names)[prediction.domain] == np.array(judged.domains)).mean()),
    }


def _folds(train: LabelledStates, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to fit on and rows to predict, five times or as often as the rarest label allows.

    Rows that say nearly the same are predicted together: a row's twin with the other label would mislead the probe
    about it, and one with the same label would flatter it.
    """
    both = [f"{domain} {label}" for domain, label in zip(train.domains, train.labels, strict=True)]
    rarest = min(both.count(kind) for kind in set(both))
    kinds: Any = both if rarest >= 2 else train.labels
    smallest = rarest if rarest >= 2 else int(min((train.labels == label).sum() for label in (0, 1)))
    alone = np.arange(len(train.labels))
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for groups in (alone if train.groups is None else train.groups, alone):
        times = max(2, min(_FOLDS, smallest, len(np.unique(groups))))
        if times <= len(np.unique(groups)):
            splitter = StratifiedGroupKFold(times, shuffle=True, random_state=seed)
            folds = [(fit, predicted) for fit, predicted in splitter.split(alone, kinds, groups) if len(predicted)]
        if folds and all(len(np.unique(train.labels[fit])) == 2 for fit, _ in folds):
            break  # else one group holds a whole label, and cannot be kept together
    return folds


def _pooled_out_of_fold(train: LabelledStates, folds: Sequence[Any], C: float, seed: int) -> NDArray[np.float32]:
    p_tool = np.empty(len(train.labels), dtype=np.float32)
    for fitted_on, predicted in folds:
        probes = Probes.fit(train.states[fitted_on], train.labels[fitted_on], ["all"] * len(fitted_on), C, seed)
        p_tool[predicted] = probes.p_tool(train.states[predicted])
    return p_tool


def _out_of_fold(train: LabelledStates, folds: Sequence[Any], names: Sequence[str], C: float, seed: int) -> Prediction:
    n = len(train.labels)
    whole = Prediction(np.zeros(n, dtype=np.int64), {kind: np.empty(n, dtype=np.float32) for kind in PROBE_KINDS})
    for fitted_on, predicted in folds:
        states, domains = train.states[fitted_on], [train.domains[i] for i in fitted_on]
        router = Router.fit(states, domains, C, seed)
        probes = Probes.fit(states, train.labels[fitted_on], domains, C, seed)
        part = _predicted(router, probes, train.states[predicted], names)
        whole.domain[predicted] = part.domain
        for kind, p_tool in part.p_tool.items():
            whole.p_tool[kind][predicted] = p_tool
    return whole


def _predicted(router: Router, probes: Probes, states: NDArray[np.float32], names: Sequence[str]) -> Prediction:
    """Predictions with domains counted as in `names`, of which the router may know fewer."""
    chosen = [router.domains[i] for i in router.predict_proba(states).argmax(axis=1)]
    asked = {name: probes.p_tool(states, name) for name in set(chosen)}
    own = np.array([asked[name][i] for i, name in enumerate(chosen)], dtype=np.float32)
    domain = np.array([list(names).index(name) for name in chosen], dtype=np.int64)
    return Prediction(domain, {"domain": own, "pooled": probes.p_tool(states)})


def _pooled_auc(train: LabelledStates, labels: NDArray[np.int64], valid: LabelledStates, C: float, seed: int) -> float:
    """AUC on VALID of a pooled probe that was fitted to some labels of TRAIN."""
    probes = Probes.fit(train.states, labels, ["all"] * len(labels), C, seed)
    return auc(valid.labels, probes.p_tool(valid.states))
