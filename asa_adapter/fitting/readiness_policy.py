"""The policy "readiness" as a candidate: what it makes of a setting's gate, and its best thresholds by TRAIN."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.config.value_checks import STATES
from asa_adapter.evaluation.first_tokens import Push
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import LayerFit, LayerPrediction
from asa_adapter.measurement.labelled_states import LabelledStates
from asa_adapter.parts.classifiers import fit_readiness
from asa_adapter.parts.linear import Linear
from asa_adapter.policy.controller import ternary_gate

_BELOW, _ABOVE, _ROUTES = (1.0, 0.9, 0.7, 0.5, 0.3), (0.0, 0.1, 0.3, 0.5), (0.0, 0.5, 0.8)


class Policy(NamedTuple):
    """The thresholds and the step of one policy; see `asa_adapter.config.state_rules.Rule`."""

    ready_below: float = 1.0
    ready_above: float = 0.0
    domain_alpha: float = 0.0
    route: float = 0.0


@dataclass(frozen=True)
class PolicyGrounds:
    """What a policy decides N rows by.

    Attributes:
        gate: (N,) int64 plain gates.
        ready: (N,) readiness, 0 to 1.
        sure: (N,) the router's confidence.
        has_own: (N,) bool, whether the domain has a direction of its own.
    """

    gate: NDArray[np.int64]
    ready: NDArray[np.float32]
    sure: NDArray[np.float32]
    has_own: NDArray[np.bool_]

    def of(self, rows: NDArray[np.int64]) -> "PolicyGrounds":
        """The same for some of the rows."""
        return PolicyGrounds(self.gate[rows], self.ready[rows], self.sure[rows], self.has_own[rows])

    def triggers(
        self, policy: Policy, base: NDArray[np.bool_], pushed: NDArray[np.bool_], own: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """(N,) triggers under a policy, by those of the bare model, of the plain gate and of the domain's own step."""
        ripe = (self.gate > 0) & (self.ready >= policy.ready_below) & (policy.ready_below < 1)
        rash = (self.gate < 0) & (self.ready <= policy.ready_above) & (policy.ready_above > 0)
        along = ripe & (self.sure > policy.route) & self.has_own & (policy.domain_alpha > 0)
        return np.where(along, own, np.where(ripe | rash, base, pushed))


def readiness_maps(fit: LayerFit, train: LabelledStates, valid: LabelledStates) -> dict[str, LogisticRegression]:
    """The readiness at a layer for all rows (""), and for each kind of state that has probes of its own."""
    maps = {"": fit_readiness(fit.vectors.v_global, train.states, valid.states, valid.labels)}
    for kind in fit.probes.by_state_:
        known, own = train.of_kind(kind), valid.of_kind(kind)
        both = len(known.labels) and len(set(own.labels.tolist())) == 2 and kind in fit.vectors.by_state
        direction = fit.vectors.of(kind).v_global
        maps[kind] = fit_readiness(direction, known.states, own.states, own.labels) if both else maps[""]
    return maps


def policy_grounds(
    fit: LayerFit,
    maps: dict[str, LogisticRegression],
    setting: Setting,
    labelled: LabelledStates,
    prediction: LayerPrediction,
) -> PolicyGrounds:
    """What a policy decides the rows of a split by, at the layer of a setting."""
    p_tool, states = prediction.p_tool(setting.probe), torch.from_numpy(labelled.states)
    rule = prediction.rule
    kinds = list(STATES) if rule is not None else [""]
    gates, ready, own = [], [], []
    for kind in kinds:
        tau = setting.of(kind).tau if kind else setting.tau
        gates.append(ternary_gate(torch.from_numpy(p_tool), tau).numpy())
        ready.append(Linear.of(maps.get(kind, maps[""]))(states)[:, 0].sigmoid().numpy())
        own.append(fit.vectors.of(kind).own().any(dim=1).numpy()[prediction.domain])
    where = np.zeros(len(p_tool), dtype=np.int64) if rule is None else rule
    rows = np.arange(len(where))
    sure = prediction.sure
    if sure is None:
        raise ValueError("the router's confidence is not known; expected a prediction of a fit")
    return PolicyGrounds(np.stack(gates)[where, rows], np.stack(ready)[where, rows], sure, np.stack(own)[where, rows])


def readiness_push(fit: LayerFit, layer: int, alpha: float, prediction: LayerPrediction) -> Push:
    """The step of a length along what is each row's domain's own, as a policy makes it, in the row's kind of state."""
    if prediction.rule is None:
        steps, where = fit.vectors.own(), prediction.domain
    else:
        steps = torch.cat([fit.vectors.of(state).own() for state in STATES])
        where = prediction.domain + prediction.rule * (len(steps) // len(STATES))
    return Push(layer, alpha * fit.residual_norm * steps, torch.from_numpy(where))


def with_policy(setting: Setting, policy: Policy, states: Sequence[str]) -> Setting:
    """A setting with a policy in each kind of state."""
    rules = dict(setting.by_state)
    return setting._replace(
        by_state=tuple((state, (*rules.get(state, ()), *policy._asdict().items())) for state in states)
    )


def best_policy(
    objective: Objective,
    labels: NDArray[np.int64],
    leader: Scored,
    grounds: PolicyGrounds,
    base: NDArray[np.bool_],
    own: Callable[[float], NDArray[np.bool_]],
    alphas: Sequence[float],
    states: Sequence[str],
) -> Scored:
    """The best policy on top of a setting, of equally good ones that with fewer thresholds and smaller steps.

    Args:
        objective: what settings are ranked by.
        labels: (N,) 1 where a tool is needed.
        leader: the setting with its results on these rows.
        grounds: what a policy decides them by.
        base: (N,) triggers of the bare model.
        own: takes a step's length and returns (N,) triggers with it along what is the domains' own.
        alphas: lengths of that step to try.
        states: kinds of state that are fitted.
    """
    found = list[tuple[tuple[float, ...], Policy, NDArray[np.bool_]]]()
    triggers = {alpha: own(alpha) for alpha in alphas if alpha}
    for policy in _policies(list(triggers)):
        called = grounds.triggers(policy, base, leader.triggered, triggers.get(policy.domain_alpha, base))
        score = float(objective.rank(ConfusionCounts.of(labels, called)))
        used = (policy.ready_below < 1) + (policy.ready_above > 0) + (policy.domain_alpha > 0) + (policy.route > 0)
        found.append(((-round(score, 9), used, policy.domain_alpha), policy, called))
    (minus, *_), policy, called = min(found, key=lambda one: one[0])
    return Scored(with_policy(leader.setting, policy, states), -minus, called, alone=leader.alone)


def _policies(alphas: Sequence[float]) -> Iterator[Policy]:
    """All policies but the plain gate."""
    for below, above in itertools.product(_BELOW, _ABOVE):
        if below < 1 or above > 0:
            yield Policy(below, above)
        if below < 1:
            for alpha, route in itertools.product(alphas, _ROUTES):
                yield Policy(below, above, alpha, route)
