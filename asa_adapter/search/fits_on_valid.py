"""`FitsOnValid`: what was fitted at each layer, and what its settings do on VALID."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.other_actions import opened_by_bias
from asa_adapter.choice.settings import Reader, Scored, Setting, gated_triggers, share_left_alone
from asa_adapter.config.value_checks import STATES
from asa_adapter.evaluation.first_tokens import Push
from asa_adapter.fitting.layer_fit import LayerFit, LayerPrediction, read_at
from asa_adapter.fitting.readiness_policy import Policy, PolicyGrounds, policy_grounds, readiness_maps, readiness_push
from asa_adapter.fitting.refit import refitted
from asa_adapter.fitting.step_effects import step_push
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.tool_calls.outcomes import Outcome


class FitsOnValid:
    """The fits of some layers.

    Args:
        measured: runs the model.
        objective: what settings are chosen by.
        build: makes an adapter of a setting and the fit of its layer.
        states: kinds of state that rows are told apart by.

    Attributes:
        measured, objective, states: the arguments.
        fits: what was fitted, by layer; empty at first.
        again: what was fitted once more with VALID's rows, by layer, for the chosen setting.
    """

    def __init__(
        self,
        measured: Measurements,
        objective: Objective,
        build: Callable[[Setting, LayerFit], ASAAdapter],
        states: Sequence[str] = STATES[:1],
    ) -> None:
        self.measured, self.objective, self.states = measured, objective, tuple(states)
        self.fits: dict[int, LayerFit] = {}
        self.again: dict[int, LayerFit] = {}
        self._build_adapter = build

    def _build(self, setting: Setting, fits: Mapping[int, LayerFit] | None = None) -> ASAAdapter:
        """The adapter of a setting, by `fits` or others of the same layers."""
        fits = self.fits if fits is None else fits
        fit = fits[setting.layer]
        if setting.read_layers:
            fit = fit.reading([fits[layer] for layer in setting.read_layers])
        if any(setting.of(state).policy for state in self.states):
            fit = replace(fit, probes=fit.probes.with_readiness(self._maps(setting.layer)))
        return self._build_adapter(setting, fit)

    def _refitted(self, setting: Setting, names: Sequence[str], also: Sequence[str], seed: int) -> ASAAdapter:
        """The adapter of a setting, fitted once more with VALID's rows.

        Args:
            setting: what was chosen.
            names: (K,) domain names.
            also: splits beside CAL, TRAIN and VALID that router and probes are fitted on.
            seed: seed of the solvers.
        """
        for layer in {setting.layer, *setting.read_layers}:
            given, more = (
                [self.measured.labelled(split, layer) for split in some] for some in (("cal", "train", "valid"), also)
            )
            self.again[layer] = refitted(self.fits[layer], given, names, more, seed=seed, shift=self.objective.shift)
        return self._build(setting, self.again)

    def _predicted(self, split: str, place: Reader) -> LayerPrediction:
        found = {}
        for layer in {place.layer, *place.read_layers}:
            labelled = self.measured.labelled(split, layer)
            kinds = (labelled.kinds,) if len(self.states) > 1 else ()
            found[layer] = self.fits[layer].predict(labelled.states, *kinds)
        return read_at(place, found)

    def _maps(self, layer: int) -> dict[str, LogisticRegression]:
        """The readiness at a layer, by kind of state, fitted on VALID along directions that do not know its rows."""
        train, valid = (self.measured.labelled(split, layer) for split in ("train", "valid"))
        return readiness_maps(self.fits[layer], train, valid)

    def _grounds(self, split: str, setting: Setting, prediction: LayerPrediction) -> PolicyGrounds:
        """What a policy on top of a setting decides the rows of a split by."""
        layer = setting.layer
        return policy_grounds(
            self.fits[layer], self._maps(layer), setting, self.measured.labelled(split, layer), prediction
        )

    def _push(self, prediction: LayerPrediction, layer: int, beta: float, alpha: float) -> Push:
        """The step of a setting for every row; a negative alpha steps away from a call."""
        return step_push(self.fits[layer], prediction.domain, layer, beta, alpha, prediction.rule)

    def _generated(self, candidates: Sequence[Scored]) -> tuple[list[Outcome], list[Scored]]:
        """What came of VALID by the bare model and by each candidate, and the candidates with their results there."""
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        variants = {f"finalist {i}": self._build(candidate.setting) for i, candidate in enumerate(candidates)}
        outcomes = list(self.measured.outcomes("valid", {"base": None, **variants}).values())
        found = []
        for (setting, *_), one in zip(candidates, outcomes[1:], strict=True):
            score = self.objective.score(labels, one.triggered, groups)
            found.append(Scored(setting, score, one.triggered, one.fits, self._alone(setting)))
        return outcomes, found

    def _alone(self, setting: Setting) -> float:
        """Share of the VALID rows whose gate is 0."""
        read = self._predicted("valid", setting.reader)
        p_tool = read.p_tool(setting.probe)
        if not setting.by_state or read.rule is None:
            return share_left_alone(p_tool, setting.tau)
        rules = [read.rule == index for index in range(len(STATES))]
        shares = [
            share_left_alone(p_tool[rows], setting.of(state).tau) * rows.mean()
            for state, rows in zip(STATES, rules, strict=True)
            if rows.any()
        ]
        return float(sum(shares))

    def _told(self, settings: Sequence[Setting]) -> list[NDArray[np.bool_]]:
        """For each setting, whether the first token of the answer to each VALID row opens a call."""
        parts = {s: [s.of(state) for state in self.states] if s.by_state else [s] for s in settings}
        single = list(dict.fromkeys(part for some in parts.values() for part in some))
        told = dict(zip(single, self._told_of_one(single), strict=True))
        found = []
        for setting in settings:
            some = [told[part] for part in parts[setting]]
            rule = self._predicted("valid", setting.reader).rule if len(some) > 1 else None
            found.append(some[0] if rule is None else np.stack(some)[rule, np.arange(len(rule))])
        return found

    def _told_of_one(self, settings: Sequence[Setting]) -> list[NDArray[np.bool_]]:
        """The same for settings with one rule for all rows."""
        read = {place: self._predicted("valid", place) for place in {setting.reader for setting in settings}}
        pushing = dict.fromkeys(setting for setting in settings if setting.action != "bias")
        pairs = {setting: (2 * i + 1, 2 * i + 2) for i, setting in enumerate(pushing)}
        pushes = [
            self._push(read[s.reader], s.layer, s.beta, alpha)
            for s in pairs
            for alpha in (s.alpha, -(s.alpha if s.down is None else s.down))
        ]
        owns = {s: len(pushes) + 1 + i for i, s in enumerate(s for s in pushing if s.policy)}
        pushes += [
            readiness_push(self.fits[s.layer], s.layer, dict(s.policy)["domain_alpha"], read[s.reader]) for s in owns
        ]
        found = self.measured.first_tokens("valid", pushes)
        told = []
        for setting in settings:
            up, down = pairs.get(setting, (0, 0))
            p_tool, base = read[setting.reader].p_tool(setting.probe), found.triggered[0]
            if setting.action == "steer":
                called = gated_triggers(p_tool, setting.tau, base, found.triggered[up], found.triggered[down])
                if setting in owns:
                    grounds = self._grounds("valid", setting, read[setting.reader])
                    own = found.triggered[owns[setting]]
                    called = grounds.triggers(Policy(**dict(setting.policy)), base, called, own)
                told.append(called)
            else:
                told.append(opened_by_bias(setting, p_tool, base, found.margin[up], found.margin[down]))
        return told
