"""Fits directions, router and probes at one layer, from labelled residual states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from asa_adapter.choice.settings import Reader
from asa_adapter.config.value_checks import STATES
from asa_adapter.evaluation.metrics import auc
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.parts.classifiers import Probes, Router, enough_rows
from asa_adapter.parts.vectors import SteeringVectors

_SHUFFLES = 10
_FOLDS = 5


@dataclass(frozen=True)
class LayerPrediction:
    """Predictions of router and probes for N rows.

    Attributes:
        domain: (N,) int64, index of the domain that the router chooses.
        log_odds: (N, K + 1) float32 log odds that a tool is needed, by the probe of each of K domains, then by the
            pooled one.
        rule: (N,) int64 kind of each row's state, an index into `STATES`, whose probes these are; None where one rule
            is for all.
        sure: (N,) float32, the router's confidence in that domain; None if it is not known.
    """

    domain: NDArray[np.int64]
    log_odds: NDArray[np.float32]
    rule: NDArray[np.int64] | None = None
    sure: NDArray[np.float32] | None = None

    def p_tool(self, probe: str) -> NDArray[np.float32]:
        """(N,) probabilities that a tool is needed, by the chosen domain's probe ("domain") or the "pooled" one."""
        asked = self.domain if probe == "domain" else np.full(len(self.domain), self.log_odds.shape[1] - 1)
        odds = self.log_odds[np.arange(len(asked)), asked]
        return torch.sigmoid(torch.from_numpy(odds)).numpy()

    def reading(self, others: Sequence["LayerPrediction"]) -> "LayerPrediction":
        """With the mean log odds of other layers' probes; the domain is this layer's."""
        odds = np.stack([other.log_odds for other in others]).mean(axis=0, dtype=np.float32)
        return replace(self, log_odds=np.asarray(odds))


@dataclass(frozen=True)
class LayerFit:
    """Everything that is fitted at one layer.

    Attributes:
        vectors: directions, fitted on CAL (with `refitted` on VALID and TRAIN, too).
        router: fitted on CAL and TRAIN (and VALID).
        probes: fitted on CAL and TRAIN (and VALID).
        residual_norm: mean norm of the states of CAL.
        out_of_fold: cross-validated predictions on TRAIN: each row's are from a router and probes fitted without its
            fold.
        facts: what the report says of the layer: out_of_fold_auc, C, residual_norm and the keys of `probe_quality`.
    """

    vectors: SteeringVectors
    router: Router
    probes: Probes
    residual_norm: float
    out_of_fold: LayerPrediction
    facts: dict[str, Any]

    def reading(self, others: Sequence["LayerFit"]) -> "LayerFit":
        """The same with probes that read the layers of others, side by side."""
        return replace(self, probes=Probes.averaged([other.probes for other in others]))

    def predict(self, states: NDArray[np.float32], kinds: Sequence[str] | None = None) -> LayerPrediction:
        """Predictions for (N, D) states of rows on which router and probes were not fitted.

        Args:
            states: the states.
            kinds: (N,) kinds of state; None where one rule is for all.
        """
        return _predicted_at_layer(self.router, self.probes, states, self.router.domains, kinds)


def fit_layer(
    cal: LabelledStates,
    train: LabelledStates,
    valid: LabelledStates,
    names: Sequence[str],
    Cs: Sequence[float],
    seed: int,
    also: Sequence[LabelledStates] = (),
    shift: float = 0.0,
) -> LayerFit:
    """Fits directions on CAL, and router and probes on CAL and TRAIN.

    The method fits router and probes on TRAIN alone (arXiv 2602.04935); with the rows of CAL they have twice as many,
    and read other rows better. Settings are judged out of fold on TRAIN, so that no row is judged by a probe that
    knows it. The regularisation is the one whose probes, of the domains and pooled, have the least log loss on TRAIN,
    out of fold: it tells strengths apart by every row's p, where an AUC jumps with single rows, so that other rows
    choose much the same. VALID is only reported on: it decides among the settings later, so nothing fitted may depend
    on it.

    Args:
        cal: the CAL split.
        train: the TRAIN split.
        valid: the VALID split.
        names: (K,) domain names, in the order of the config.
        Cs: inverse L2 regularisation strengths to try.
        seed: seed of solvers, folds and shuffles.
        also: further rows that router and probes are fitted on, such as those of CAL and TRAIN with other tools. A
            fold leaves out those in one group with a row that it predicts. Rows that were made from others do not
            change how often the probes call (see `Probes.fit`).
        shift: what is added to the log odds of all probes (see `Objective.shift`).

    Raises:
        ValueError: a split has one label only, or its states give no direction.
    """
    folds = _folds(train, seed)
    known, others = train.behind(cal), cal.joined(also)
    odds = _odds_out_of_fold(others, train, folds, names, Cs, seed)
    best = min(Cs, key=lambda C: (round(_mean_log_loss(odds[C], train, names), 6), C))
    whole = train.behind(others)
    fit = LayerFit(
        fitted_vectors(cal, names),
        Router.fit(whole.states, whole.domains, best, seed),
        fitted_probes(whole, best, seed, shift),
        float(np.linalg.norm(cal.states, axis=1).mean()),
        _routed_out_of_fold(others, train, folds, names, best, seed, odds[best] + np.float32(shift)),
        facts={"out_of_fold_auc": auc(train.labels, odds[best][:, -1]), "C": best},
    )
    fit.facts.update(residual_norm=fit.residual_norm, **probe_quality(fit, known, valid, names, seed))
    if train.kinds is not None:
        fit.facts["states"] = _quality_by_kind(fit, train, valid)
    return fit


def fitted_vectors(cal: LabelledStates, names: Sequence[str]) -> SteeringVectors:
    """Directions of all rows, and of each kind of state that has enough rows of both labels."""
    whole = SteeringVectors.fit(cal.states, cal.labels.tolist(), cal.domains, names)
    own = {kind: cal.of_kind(kind) for kind in enough_rows(cal.kinds or (), cal.labels)} if cal.kinds else {}
    return replace(whole, by_state={kind: fitted_vectors(some, names) for kind, some in own.items()})


def fitted_probes(known: LabelledStates, C: float, seed: int, shift: float = 0.0) -> Probes:
    """Probes on the states of a layer, with those of each kind of state where rows have kinds."""
    if known.kinds is None:
        probes = Probes.fit(known.states, known.labels, known.domains, C, seed, known.given)
    else:
        rows = (known.states, known.labels, known.domains, known.kinds)
        probes = Probes.fit_states(*rows, C, seed, known.given)
    return probes.shifted(shift) if shift else probes


def _quality_by_kind(fit: LayerFit, train: LabelledStates, valid: LabelledStates) -> dict[str, dict[str, Any]]:
    """By kind of state, how well its probe reads TRAIN out of fold and VALID, and which parts are its own."""
    judged = fit.predict(valid.states, valid.kinds)
    odds = {"out_of_fold_auc": (train, fit.out_of_fold), "probe_auc": (valid, judged)}
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(set(train.kinds or ()), key=STATES.index):
        found[kind] = {"own_probe": kind in fit.probes.by_state_, "own_direction": kind in fit.vectors.by_state}
        for name, (split, prediction) in odds.items():
            rows = np.array([other == kind for other in split.kinds or ()])
            if len(set(split.labels[rows].tolist())) == 2:
                found[kind][name] = auc(split.labels[rows], prediction.log_odds[rows, -1])
    return found


def probe_quality(
    fit: LayerFit, known: LabelledStates, judged: LabelledStates, names: Sequence[str], seed: int
) -> dict[str, float]:
    """Quality of a layer's classifiers on rows that they were not fitted on, and of a control.

    Args:
        fit: what was fitted at the layer.
        known: the states on which the probes of shuffled labels are fitted: those of the splits that `fit` knows.
        judged: the states to predict.
        names: (K,) domain names, in the order of the config.
        seed: seed of the shuffles and solvers.

    Returns:
        `probe_auc`: AUC of the pooled probe; `shuffled_auc`: mean AUC of such probes fitted to shuffled labels, which
        should be near 0.5; `router_accuracy`: share of rows whose domain is predicted correctly.
    """
    prediction = fit.predict(judged.states, judged.kinds)
    shuffled = [
        _pooled_auc(known, shuffled_labels(known.labels, known.domains, seed + i), judged, fit.facts["C"], seed)
        for i in range(_SHUFFLES)
    ]
    return {
        "probe_auc": auc(judged.labels, prediction.log_odds[:, -1]),
        "shuffled_auc": float(np.mean(shuffled)),
        "router_accuracy": float((np.array(names)[prediction.domain] == np.array(judged.domains)).mean()),
    }


def shuffled_labels(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Random control labels, half 0 and half 1 within each true label and domain.

    A plain permutation correlates with the true labels a little by chance, which a strongly regularised probe picks
    up: its AUC is then far above or below 0.5.

    Args:
        labels: (N,) true labels, 0 or 1.
        domains: (N,) domain names.
        seed: seed of the shuffle.

    Returns:
        (N,) int64 labels, at least one of each.
    """
    generator = np.random.default_rng(seed)
    pairs = list(zip(labels.tolist(), domains, strict=True))
    shuffled = np.zeros_like(labels)
    for group in sorted(set(pairs)):
        rows = np.flatnonzero([pair == group for pair in pairs])
        shuffled[rows] = generator.permutation((np.arange(len(rows)) + generator.integers(2)) % 2)
    if len(np.unique(shuffled)) < 2:  # groups of one row each that all got the same label
        shuffled = generator.permutation(np.arange(len(labels)) % 2)
    return shuffled


def _folds(train: LabelledStates, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of indices (to fit on, to predict) of five cross-validation folds, or as many as the rarest label allows.

    Near-duplicates are kept in one fold: a duplicate that is fitted on makes the prediction of the other row better if
    it has the same label, and worse if not.
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
            break  # else one group holds all rows of a label, and has to be divided
    return folds


def _odds_out_of_fold(
    others: LabelledStates,
    train: LabelledStates,
    folds: Sequence[Any],
    names: Sequence[str],
    Cs: Sequence[float],
    seed: int,
) -> dict[float, NDArray[np.float32]]:
    """By strength, (N, K + 1) out-of-fold log odds on TRAIN, by the probe of each of `names`, then by the pooled one.

    The other rows are fitted on in each fold, but for those in one group with a row that it predicts.
    """
    odds = {C: np.empty((len(train.labels), len(names) + 1), dtype=np.float32) for C in Cs}
    for fitted_on, predicted in folds:
        known = train.behind(others, fitted_on)
        kinds = train.kinds and [train.kinds[i] for i in predicted]
        for C, found in odds.items():
            found[predicted] = _odds_at_layer(fitted_probes(known, C, seed), train.states[predicted], names, kinds)
    return odds


def _mean_log_loss(odds: NDArray[np.float32], train: LabelledStates, names: Sequence[str]) -> float:
    """Mean log loss of (N, K + 1) log odds on N rows, by the probe of each row's own domain and by the pooled one."""
    own = odds[np.arange(len(odds)), [list(names).index(name) for name in train.domains]]
    signs = np.where(train.labels == 1, -1.0, 1.0)
    return float(np.logaddexp(0.0, signs * np.stack([own, odds[:, -1]])).mean())


def _routed_out_of_fold(
    others: LabelledStates,
    train: LabelledStates,
    folds: Sequence[Any],
    names: Sequence[str],
    C: float,
    seed: int,
    odds: NDArray[np.float32],
) -> LayerPrediction:
    """Out-of-fold predictions of the router on TRAIN, beside (N, K + 1) log odds; domains are indices into `names`."""
    domain, sure = np.zeros(len(odds), dtype=np.int64), np.zeros(len(odds), dtype=np.float32)
    for fitted_on, predicted in folds:
        known = train.behind(others, fitted_on)
        router = Router.fit(known.states, known.domains, C, seed)
        domain[predicted], sure[predicted] = _routed(router, train.states[predicted], names)
    return LayerPrediction(domain, odds, None if train.kinds is None else _rules_of_kinds(train.kinds), sure)


def _predicted_at_layer(
    router: Router,
    probes: Probes,
    states: NDArray[np.float32],
    names: Sequence[str],
    kinds: Sequence[str] | None = None,
) -> LayerPrediction:
    """Predictions with domains as indices into `names`."""
    domain, sure = _routed(router, states, names)
    rule = None if kinds is None else _rules_of_kinds(kinds)
    return LayerPrediction(domain, _odds_at_layer(probes, states, names, kinds), rule, sure)


def _routed(
    router: Router, states: NDArray[np.float32], names: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N,) indices into `names` of the likeliest domains, and how likely; a fold's router may know fewer domains."""
    routed = router.predict_proba(states)
    chosen = [router.domains[i] for i in routed.argmax(axis=1)]
    return np.array([list(names).index(name) for name in chosen], dtype=np.int64), routed.max(axis=1)


def _odds_at_layer(
    probes: Probes, states: NDArray[np.float32], names: Sequence[str], kinds: Sequence[str] | None
) -> NDArray[np.float32]:
    """(N, K + 1) log odds by the probe of each of `names` and by the pooled one, of each row's kind of state."""
    tensor = torch.from_numpy(states)

    def odds(own: Probes) -> NDArray[np.float32]:
        both = [own.linear(names, "domain")(tensor), own.linear(names[:1], "pooled")(tensor)]
        return np.asarray(torch.cat(both, dim=1).numpy())

    if kinds is None:
        return odds(probes)
    return np.asarray(
        np.stack([odds(probes.of(state)) for state in STATES])[_rules_of_kinds(kinds), np.arange(len(states))]
    )


def _rules_of_kinds(kinds: Sequence[str]) -> NDArray[np.int64]:
    """(N,) the index of each row's kind of state in `STATES`, by which a layer's classifiers predict."""
    return np.array([STATES.index(kind) for kind in kinds], dtype=np.int64)


def _pooled_auc(known: LabelledStates, labels: NDArray[np.int64], valid: LabelledStates, C: float, seed: int) -> float:
    """AUC on `valid` of a pooled probe that was fitted on `known` with other labels."""
    probes = Probes.fit(known.states, labels, ["all"] * len(labels), C, seed)
    return auc(valid.labels, probes.p_tool(valid.states))


def read_at(place: Reader, by_layer: Mapping[int, LayerPrediction]) -> LayerPrediction:
    """What router and probes say where they read, from what those of each layer say."""
    own = by_layer[place.layer]
    return own.reading([by_layer[layer] for layer in place.read_layers]) if place.read_layers else own
