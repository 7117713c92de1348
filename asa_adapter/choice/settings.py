"""Settings, the grid of them, what each reaches on some rows, and which are tried on VALID.

Everything here is arithmetic on arrays of triggers; no model is needed.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.choice.intervals import upper_bound
from asa_adapter.choice.objective import Objective, independent_negatives
from asa_adapter.config.state_rules import Rule
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.config.value_checks import ACTIONS
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.policy.controller import ternary_gate


class Reader(NamedTuple):
    """Where a step's decision is read: the router at the steered layer, the probes at `read_layers`, () for there."""

    layer: int
    read_layers: tuple[int, ...] = ()


POLICY = ("ready_below", "ready_above", "domain_alpha", "route")
# By kind of state what differs there from a setting's own alpha, tau and beta: a hashable `ASAConfig.by_state`.
Rules = tuple[tuple[str, tuple[tuple[str, float], ...]], ...]


class Setting(NamedTuple):
    """One point of the grid: the fields of ASAConfig that are chosen. See there for what they mean.

    `down` is a step away from a call that differs from alpha, and `policy` the thresholds of readiness; only a setting
    for one kind of state (see `of`) has them.
    """

    layer: int
    alpha: float
    tau: float
    beta: float
    probe: str
    read_layers: tuple[int, ...] = ()
    action: str = "steer"
    bias: float = 0.0
    by_state: Rules = ()
    down: float | None = None
    policy: tuple[tuple[str, float], ...] = ()

    def of(self, state: str) -> "Setting":
        """The setting for rows of one kind of state alone."""
        own: dict[str, Any] = dict(dict(self.by_state).get(state, ()))
        down = own.pop("alpha_down", None)
        policy = tuple((name, own.pop(name)) for name in POLICY if name in own)
        return self._replace(by_state=(), down=down, policy=policy, **own)

    @property
    def reader(self) -> "Reader":
        """Where its router and its probes read."""
        return Reader(self.layer, self.read_layers)

    def gentleness(self, alone: float = 0.0) -> tuple[float, ...]:
        """Sort key: few rules and limits of readiness first, then the push, small steps, rows alone, higher tau.

        Which layer is pushed and how many are read makes no setting gentler: among such the better one is taken.

        Args:
            alone: share of the rows at hand whose gate is 0, so that they are left as they are.
        """
        limits = sum(v != Rule._field_defaults[n] for _, r in self.by_state for n, v in r if n in POLICY[:-1])
        how = (len(self.by_state), limits, ACTIONS.index(self.action), self.alpha, self.bias)
        return (*how, -round(alone, 9), -self.tau)

    def plain(self) -> dict[str, Any]:
        """The fields as JSON types that ASAConfig takes; action and bias only where it does not just steer.

        Likewise `by_state`, where kinds of state have rules of their own.
        """
        fields = self._asdict() | {"read_layers": list(self.read_layers)}
        del fields["down"], fields["by_state"], fields["policy"]
        if self.by_state:
            fields["by_state"] = {state: dict(rule) for state, rule in self.by_state}
        if self.action == "steer":
            del fields["action"], fields["bias"]
        elif math.isinf(self.bias):
            fields["bias"] = "inf"
        return fields


class Scored(NamedTuple):
    """A setting and its result on N rows."""

    setting: Setting
    score: float  # Objective.rank on these rows
    triggered: NDArray[np.bool_]  # (N,) whether each row's answer calls a tool
    fits: NDArray[np.bool_] | None = None  # (N,) whether all of its calls fit an offered tool; None if unknown
    alone: float = 0.0  # share of the rows that its gate leaves as they are; 0 if unknown

    def gentleness(self) -> tuple[float, ...]:
        """Sort key: gentler settings first."""
        return self.setting.gentleness(self.alone)

    def rank(self) -> tuple[float, ...]:
        """Sort key: higher scores first, then gentler settings, then those that read fewer layers."""
        return (-round(self.score, 9), *self.gentleness(), len(self.setting.read_layers))


def setting_facts(
    objective: Objective,
    labels: NDArray[np.int64],
    triggered: NDArray[np.bool_],
    groups: NDArray[np.int64] | None,
) -> dict[str, Any]:
    """Score, F1, recall, FPR and the FPR's upper bound of (N,) triggers of rows in (N,) groups, for the report."""
    ratios = ConfusionCounts.of(labels, triggered).ratios()
    return {
        "score": objective.score(labels, triggered, groups),
        **{name: float(ratios[name]) for name in ("f1", "recall", "fpr")},
        "fpr_upper_bound_95": float(upper_bound(ratios["fpr"], independent_negatives(labels, triggered, groups))),
    }


def gated_triggers(
    p_tool: NDArray[np.float32],
    tau: float,
    base: NDArray[np.bool_],
    up: NDArray[np.bool_],
    down: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether each row calls a tool under a setting's gate, from triggers without and with a step.

    Args:
        p_tool: (N,) float32 probabilities that a tool is needed.
        tau: confidence from which the gate opens.
        base: (N,) triggers of the bare model (gate 0).
        up: (N,) triggers with a step towards a call (gate +1).
        down: (N,) triggers with a step away from a call (gate -1).

    Returns:
        (N,) bool.
    """
    gate = ternary_gate(torch.from_numpy(p_tool), tau).numpy()
    return np.where(gate > 0, up, np.where(gate < 0, down, base))


def readers_to_try(args: ASATrainingArguments, layers: Sequence[int]) -> list[Reader]:
    """Where settings read for a step at each of the layers: there, and at as many up to it as the arguments say."""
    found = []
    for layer in layers:
        below = sorted(other for other in layers if other <= layer)
        read = [tuple(below[-count:]) for count in args.read_layers]
        found += [Reader(layer, some if len(some) > 1 else ()) for some in read]
    return list(dict.fromkeys(found))


def setting_grid(args: ASATrainingArguments, places: Sequence[Reader]) -> Iterator[Setting]:
    """All settings to screen. Alpha 0 is left out: it is the bare model."""
    alphas = [alpha for alpha in args.alphas if alpha]
    for place, alpha, tau, beta, probe in itertools.product(places, alphas, args.taus, args.betas, args.probes):
        yield Setting(place.layer, alpha, tau, beta, probe, place.read_layers)


def shortlisted_settings(scored: Sequence[Scored], finalists: int) -> list[Scored]:
    """At most `finalists` settings to generate with on VALID: the best of each layer first, then the best others."""
    ranked = sorted(scored, key=Scored.rank)
    leaders: dict[int, Scored] = {}
    for candidate in ranked:
        leaders.setdefault(candidate.setting.layer, candidate)
    taken = {candidate.setting for candidate in leaders.values()}
    return [*leaders.values(), *(candidate for candidate in ranked if candidate.setting not in taken)][:finalists]


def share_left_alone(p_tool: NDArray[np.float32], tau: float) -> float:
    """Share of (N,) rows whose gate is 0 under a setting with this tau."""
    return float((ternary_gate(torch.from_numpy(p_tool), tau) == 0).float().mean())
