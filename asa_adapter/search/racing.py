"""`Race`: ranks settings on growing parts of TRAIN, and drops the worse ones before the whole of it is run.

A row is pushed only to the side that its own gate asks for. A push is a layer, a share of the global direction and a
step; tau and the kind of probe choose among results that are there already, and cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import (
    Reader,
    Scored,
    Setting,
    gated_triggers,
    setting_grid,
    share_left_alone,
    shortlisted_settings,
)
from asa_adapter.choice.sure_departures import without_unsure_departures
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.first_tokens import Push, Screened
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import LayerPrediction
from asa_adapter.policy.controller import ternary_gate

# Shares of the rows that the rounds have run by their end, and the share of the pushes that each round leaves.
_PARTS = (0.15, 0.375, 1.0)
_LEFT = 1 / 3
# A first part with fewer rows of TRAIN tells settings apart by luck.
_FEWEST_ROWS = 32
# Pushes that stay in the race for each finalist.
_PUSHES_PER_FINALIST = 4
# Up to this mean change of the probability that a call opens, a push moves nothing.
_STILL = 0.01


class PushKey(NamedTuple):
    """A push towards a call; its opposite leads away from one."""

    layer: int
    beta: float
    alpha: float


class Race:
    """One race.

    Args:
        args: which settings take part.
        objective: what they are ranked by.
        labels: (N,) 1 where a tool is needed.
        groups: (N,) numbers; rows with the same number belong together.
        domains: (N,) domain of each row.
        predictions: out-of-fold predictions for the rows, by where they are read.
        push: makes the push of a key, for all N rows.
        measure: first tokens of the given rows, by the bare model and under each push.
        calls: whether the bare model is known to call, whatever its first tokens say.

    Attributes:
        base: (N,) triggers of the bare model, once all rows are run.
        margin: (N,) its margins (see `Screened`), likewise.
        rows: sorted indices of the rows that are run.
        moved: the greatest mean change, 0 to 1 and of either sign, of the probability that a call opens, by any push
            of the first round.
        changes: for each key of the first round and both signs, the mean change of the start marker's probability on
            the rows of that round. Only for the step nearest to 1.
    """

    def __init__(
        self,
        args: ASATrainingArguments,
        objective: Objective,
        labels: NDArray[np.int64],
        groups: NDArray[np.int64],
        domains: Sequence[str],
        predictions: dict[Reader, LayerPrediction],
        push: Callable[[PushKey], Push],
        measure: Callable[[NDArray[np.int64], Sequence[Push]], Screened],
        calls: bool = True,
    ) -> None:
        self._args, self._objective, self._predictions = args, objective, predictions
        self._labels, self._groups = labels, groups
        self._push, self._measure = push, measure
        self._order = spread_for_rounds(labels, domains, args.seed)
        self._called: dict[tuple[PushKey, int], NDArray[np.bool_]] = {}
        self._margins: dict[tuple[PushKey, int], NDArray[np.float32]] = {}
        self.base = np.zeros(len(labels), dtype=bool)
        self.margin = np.zeros(len(labels), dtype=np.float32)
        self.rows = self._order[:0]
        self.changes: dict[tuple[PushKey, int], float] = {}
        self.moved = 0.0
        self._calls, self._turned = calls, False

    @property
    def hopeless(self) -> bool:
        """Whether no push of the first round changed a decision, and none moved anything or there never was a call."""
        still = self.moved <= _STILL or not (self._calls or self.base.any())
        return still and not self._turned and not self._args.exhaustive

    def run(self) -> list[Scored]:
        """The settings that were measured on all rows, with their results; all settings on a few where `hopeless`."""
        keys = sorted({_push_key(setting) for setting in setting_grid(self._args, list(self._predictions))})
        begin, scored = 0, list[Scored]()
        for end in _ends_of_rounds(self._args, len(self._order), len(keys)):
            self._run(keys, self._order[begin:end], first=begin == 0)
            self.rows = np.sort(self._order[:end])
            scored = self._scored(keys, self.rows)
            if self.hopeless:
                break
            if end < len(self._order):
                labels, groups = self._labels[self.rows], self._groups[self.rows]
                told = without_unsure_departures(self._args, self._objective, labels, scored, groups)
                keys = surviving_pushes(told, _pushes_left(self._args, len(keys)))
            begin = end
        return scored

    def called(self, key: PushKey, sign: int) -> NDArray[np.bool_]:
        """(N,) triggers with a key's step towards a call (+1), or away from one (-1), where a gate asks for it."""
        return self._called[key, sign]

    def margins(self, setting: Setting) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N,) margins with the setting's step towards a call, and away from one, where a gate asks for it."""
        key = _push_key(setting)
        return self._margins[key, 1], self._margins[key, -1]

    def _run(self, keys: Sequence[PushKey], rows: NDArray[np.int64], first: bool) -> None:
        """Measures the pushes on some rows, each to the side that the row's gate asks for, or to both."""
        nearest = min((key.alpha for key in keys), key=lambda alpha: (abs(alpha - 1), alpha))
        pushes, whole = list[Push](), list[tuple[PushKey, bool, NDArray[np.int64]]]()
        for key in keys:
            up, down = self._asked(key.layer)
            shown = first and key.alpha == nearest
            push = self._push(key)
            lead = np.where(down & ~up, -1, 1)
            pushes.append(_signed_push(push, lead))
            other = np.ones(len(up), dtype=bool) if shown else up & down
            pushes.append(replace(_signed_push(push, -lead), rows=torch.from_numpy(other)))
            whole.append((key, shown, lead[rows]))
        found = self._measure(rows, pushes)
        self.base[rows], self.margin[rows] = found.triggered[0], found.margin[0]
        if first:
            self._notice(found, pushes, rows)
        for i, (key, shown, leads) in enumerate(whole):
            results = {leading: found.triggered[1 + 2 * i + leading] for leading in (0, 1)}
            for sign in (1, -1):
                called = self._called.setdefault((key, sign), np.zeros(len(self.base), dtype=bool))
                called[rows] = np.where(leads == sign, results[0], results[1])
                margins = self._margins.setdefault((key, sign), np.zeros(len(self.base), dtype=np.float32))
                margins[rows] = np.where(leads == sign, *found.margin[1 + 2 * i : 3 + 2 * i])
                if shown:
                    p = np.where(leads == sign, *found.probability[1 + 2 * i : 3 + 2 * i])
                    self.changes[key, sign] = float((p - found.probability[0]).mean(dtype=np.float64))

    def _notice(self, found: Screened, pushes: Sequence[Push], rows: NDArray[np.int64]) -> None:
        """Keeps what the pushes changed at all."""
        for i, push in enumerate(pushes, start=1):
            asked = np.ones(len(rows), dtype=bool) if push.rows is None else push.rows.numpy()[rows]
            if asked.any():
                changes = np.abs(found.probability[i] - found.probability[0])[asked]
                self.moved = max(self.moved, float(changes.mean(dtype=np.float64)))
                self._turned |= bool((found.triggered[i] != found.triggered[0])[asked].any())

    def _asked(self, layer: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(N,) whether the gate of any probe opens up, and down, at the lowest tau."""
        read = [prediction for place, prediction in self._predictions.items() if place.layer == layer]
        p_tool = [prediction.p_tool(kind) for prediction in read for kind in self._args.probes]
        gates = np.stack([ternary_gate(torch.from_numpy(p), min(self._args.taus)).numpy() for p in p_tool])
        return np.any(gates > 0, axis=0), np.any(gates < 0, axis=0)

    def _scored(self, keys: Sequence[PushKey], rows: NDArray[np.int64]) -> list[Scored]:
        """All settings of the pushes with their results on some rows."""
        taking_part = set(keys)
        scored, read = list[Scored](), dict[tuple[Reader, str], NDArray[np.float32]]()
        for place, prediction in self._predictions.items():
            read |= {(place, kind): prediction.p_tool(kind)[rows] for kind in self._args.probes}
        for setting in setting_grid(self._args, list(self._predictions)):
            if (key := _push_key(setting)) in taking_part:
                p_tool = read[setting.reader, setting.probe]
                up, down = (self._called[key, sign][rows] for sign in (1, -1))
                triggered = gated_triggers(p_tool, setting.tau, self.base[rows], up, down)
                score = float(self._objective.rank(ConfusionCounts.of(self._labels[rows], triggered)))
                scored.append(Scored(setting, score, triggered, alone=share_left_alone(p_tool, setting.tau)))
        return scored


def spread_for_rounds(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> NDArray[np.int64]:
    """(N,) indices of the rows in an order whose every beginning has about the same mix of labels and domains."""
    generator = np.random.default_rng(seed)
    kinds = np.array([f"{label} {domain}" for label, domain in zip(labels, domains, strict=True)])
    place = np.empty(len(labels))
    for kind in sorted(set(kinds.tolist())):
        rows = generator.permutation(np.flatnonzero(kinds == kind))
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.lexsort((np.arange(len(labels)), place))


def surviving_pushes(scored: Sequence[Scored], count: int) -> list[PushKey]:
    """The pushes that stay in a race, sorted: the best of the best layers, the best of all, and the leader's steps.

    Args:
        scored: settings with their results.
        count: number of pushes; the other steps of the leader's direction come on top.
    """
    ranked = list(dict.fromkeys(_push_key(s.setting) for s in sorted(scored, key=Scored.rank)))
    of_layers = [_push_key(s.setting) for s in shortlisted_settings(scored, len({key.layer for key in ranked}))]
    kept = list(dict.fromkeys([*of_layers[: count // 2], *ranked]))[:count]
    steps = [key for key in ranked if key[:2] == ranked[0][:2]]
    return sorted({*kept, *steps})


def pushes_run(args: ASATrainingArguments, layers: int, rows: int) -> float:
    """About how often rows are pushed in a race: once by each push, and to both sides by a step of the first round.

    Args:
        args: which settings take part.
        layers: number of layers.
        rows: number of rows.
    """
    steps = sum(1 for alpha in args.alphas if alpha)
    keys = layers * len(args.betas) * steps
    begin, pushes = 0, 0.0
    for end in _ends_of_rounds(args, rows, keys):
        pushes += keys * (end - begin) * (1 if begin else 1 + 1 / steps)
        begin, keys = end, _pushes_left(args, keys)
    return pushes


def _pushes_left(args: ASATrainingArguments, keys: int) -> int:
    """How many of the pushes a round leaves."""
    return max(_PUSHES_PER_FINALIST * args.finalists, round(keys * _LEFT))


def _ends_of_rounds(args: ASATrainingArguments, rows: int, keys: int) -> list[int]:
    """How many rows are run by the end of each round."""
    if args.exhaustive or keys <= _PUSHES_PER_FINALIST * args.finalists:
        return [rows]
    return sorted({min(rows, max(_FEWEST_ROWS, round(part * rows))) for part in _PARTS})


def _push_key(setting: Setting) -> PushKey:
    return PushKey(setting.layer, setting.beta, setting.alpha)


def _signed_push(push: Push, signs: NDArray[np.int64]) -> Push:
    """The push with each row's own sign."""
    domain = push.domain + len(push.steps) * torch.from_numpy(signs < 0)
    return Push(push.layer, torch.cat([push.steps, -push.steps]), domain)
