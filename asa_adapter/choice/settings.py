"""Chooses a setting from measured triggers: which ones are tried on VALID, which one wins, and whether it is a gain.

Everything here is arithmetic on arrays of triggers; no model is needed.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.choice.intervals import resamples, upper_bound
from asa_adapter.choice.objective import Objective, independent_rows
from asa_adapter.config.fields import ACTIONS
from asa_adapter.config.prompt_fields import Rule
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import Counts
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

        Args:
            alone: share of the rows at hand whose gate is 0, so that they are left as they are.
        """
        limits = sum(v != Rule._field_defaults[n] for _, r in self.by_state for n, v in r if n in POLICY[:-1])
        how = (len(self.by_state), limits, ACTIONS.index(self.action), self.alpha, self.bias)
        return (*how, -round(alone, 9), -self.tau, len(self.read_layers))

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
        """Sort key: higher scores first, then gentler settings."""
        return (-round(self.score, 9), *self.gentleness())


def facts(
    objective: Objective,
    labels: NDArray[np.int64],
    triggered: NDArray[np.bool_],
    groups: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """Score, F1, recall, FPR and the FPR's upper bound of (N,) triggers of rows in (N,) groups, for the report."""
    ratios = Counts.of(labels, triggered).ratios()
    return {
        "score": objective.score(labels, triggered, groups),
        **{name: float(ratios[name]) for name in ("f1", "recall", "fpr")},
        "fpr_upper_bound_95": float(upper_bound(ratios["fpr"], independent_rows(labels, triggered, groups))),
    }


def gated(
    p_tool: NDArray[np.float32],
    tau: float,
    base: NDArray[np.bool_],
    up: NDArray[np.bool_],
    down: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether each row calls a tool with its own gate, from triggers without and with a step.

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


def readers(args: ASATrainingArguments, layers: Sequence[int]) -> list[Reader]:
    """Where to read for a step at each of the layers: at that one, and at as many up to it as the arguments say."""
    found = []
    for layer in layers:
        below = sorted(other for other in layers if other <= layer)
        read = [tuple(below[-count:]) for count in args.read_layers]
        found += [Reader(layer, some if len(some) > 1 else ()) for some in read]
    return list(dict.fromkeys(found))


def grid(args: ASATrainingArguments, places: Sequence[Reader]) -> Iterator[Setting]:
    """All settings to screen. Alpha 0 is left out: it is the bare model."""
    alphas = [alpha for alpha in args.alphas if alpha]
    for place, alpha, tau, beta, probe in itertools.product(places, alphas, args.taus, args.betas, args.probes):
        yield Setting(place.layer, alpha, tau, beta, probe, place.read_layers)


def shortlist(scored: Sequence[Scored], finalists: int) -> list[Scored]:
    """At most `finalists` settings to generate with on VALID: the best of each layer first, then the best others."""
    ranked = sorted(scored, key=Scored.rank)
    leaders: dict[int, Scored] = {}
    for candidate in ranked:
        leaders.setdefault(candidate.setting.layer, candidate)
    taken = {candidate.setting for candidate in leaders.values()}
    return [*leaders.values(), *(candidate for candidate in ranked if candidate.setting not in taken)][:finalists]


def choose(
    args: ASATrainingArguments,
    labels: NDArray[np.int64],
    finalists: Sequence[Scored],
    groups: NDArray[np.int64] | None = None,
) -> tuple[Scored, list[float]]:
    """The gentlest finalist within one standard error of the best; one that meets max_fpr, if any does.

    Where it is known which calls fit an offered tool, it is the gentlest of those finalists that are also within one
    standard error of the best of them in the F1 of successful calls.

    Small differences between finalists are mostly noise, and a smaller step is safer. The standard error is that of
    the difference from the best finalist on the same rows, by a paired bootstrap.

    Args:
        args: of these, the objective with its limit, resamples and seed are used.
        labels: (N,) 1 where a tool is needed.
        finalists: F settings with their results on these rows.
        groups: (N,) numbers from 0; rows with the same number are drawn together. None makes each row a group.

    Returns:
        The chosen finalist, and the F standard errors.
    """
    objective = Objective.of(args)
    best = min(range(len(finalists)), key=lambda i: finalists[i].rank())
    called = np.stack([finalist.triggered for finalist in finalists])
    weights = resamples(len(labels), args.resamples, args.seed, groups)
    errors = standard_errors(objective.value(Counts.of(labels, called, weights)))
    plain = objective.value(Counts.of(labels, called))
    keeps = np.array([args.max_fpr is None or finalist.score >= 0 for finalist in finalists])
    success = None
    if (fits := all_fits(finalists)) is not None:
        drawn = success_f1(labels, called, fits, weights)
        success = success_f1(labels, called, fits)[:, None], standard_errors(drawn)
    chosen = gentlest_near_best([f.gentleness() for f in finalists], plain[:, None], errors, keeps[:, None], success)
    return finalists[int(chosen[0])], errors[best].tolist()


def all_fits(finalists: Sequence[Scored]) -> NDArray[np.bool_] | None:
    """(F, N) whether the calls of each finalist fit an offered tool; None if that is unknown of one."""
    fits = [finalist.fits for finalist in finalists if finalist.fits is not None]
    return np.stack(fits) if fits and len(fits) == len(finalists) else None


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


def standard_errors(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F, F) standard errors of the differences between (F, B) resampled scores."""
    return np.stack([(scores - one).std(axis=1) for one in scores])


def left_alone(p_tool: NDArray[np.float32], tau: float) -> float:
    """Share of (N,) rows whose gate is 0 at this tau."""
    return float((ternary_gate(torch.from_numpy(p_tool), tau) == 0).float().mean())


def gentlest_near_best(
    gentleness: Sequence[tuple[float, ...]],
    scores: NDArray[np.float64],
    errors: NDArray[np.float64],
    keeps: NDArray[np.bool_],
    success: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> NDArray[np.int64]:
    """The gentlest setting within one standard error of the best, in each of B trials.

    Args:
        gentleness: sort keys of F settings, the gentlest first.
        scores: (F, B) results, higher is better.
        errors: (F, F) standard errors of their differences.
        keeps: (F, B) whether the limit of the FPR is kept; settings that keep it come first.
        success: (F, B) results and (F, F) standard errors by which the near ones must be near the best of them too.

    Returns:
        (B,) int64 indices.
    """
    first = keeps == keeps.any(axis=0)
    ranked = np.where(first, scores, -np.inf)
    near = first & _near_best(ranked, errors)
    if success is not None:
        near &= _near_best(np.where(near, success[0], -np.inf), success[1])
    # Of equally gentle ones, the one that scores higher.
    ranks = np.unique(np.array(gentleness), axis=0, return_inverse=True)[1].reshape(-1, 1)
    gentlest = near & (ranks == np.where(near, ranks, len(ranks)).min(axis=0))
    return np.where(gentlest, ranked, -np.inf).argmax(axis=0)


def _near_best(ranked: NDArray[np.float64], errors: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F, B) which of the (F, B) results lie within the (F, F) standard errors of the best one's difference."""
    best = ranked.argmax(axis=0)
    return ranked[best, np.arange(ranked.shape[1])] - ranked <= errors[best].T
