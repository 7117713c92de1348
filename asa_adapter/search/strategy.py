"""`Search`: fits every layer, ranks settings on TRAIN, and lets VALID decide among the best few.

Settings race on TRAIN by the first token of the answer. The best few generate on VALID, which decides among them
and makes the adapter abstain unless a gain over the bare model is certain. Where no push moves anything, nothing is
generated.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.actions import opened
from asa_adapter.choice.gain import Gain, sure_gain
from asa_adapter.choice.settings import (
    Objective,
    Reader,
    Scored,
    Setting,
    choose,
    facts,
    gated,
    layer_effects,
    readers,
    screen_facts,
    shortlist,
)
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.first_tokens import Push
from asa_adapter.evaluation.metrics import Counts
from asa_adapter.modeling.processes import progress_bar
from asa_adapter.search.alternatives import Alternatives, acting, despair, disagreement
from asa_adapter.search.fitting import LayerFit, Prediction, fit_layer
from asa_adapter.search.measurements import Measurements
from asa_adapter.search.racing import Race

# Share of the best layer's AUC beyond chance from which the screen tries a layer.
_READS_ENOUGH = 0.75


class Search:
    """One search for the best setting.

    Args:
        measured: runs the model.
        args: which settings to try, and the objective.
        domains: names of the domains, sorted.
        build: makes an adapter of a setting and the fit of its layer.
        report: the dict to which all results are added.

    Attributes:
        objective: what settings are chosen by.
        fits: what was fitted, by layer; empty before `fit`.
    """

    def __init__(
        self,
        measured: Measurements,
        args: ASATrainingArguments,
        domains: tuple[str, ...],
        build: Callable[[Setting, LayerFit], ASAAdapter],
        report: dict[str, Any],
    ) -> None:
        self.measured = measured
        self.args = args
        self.objective = Objective.of(args)
        self.domains = domains
        self.report = report
        self.fits: dict[int, LayerFit] = {}
        self._build_adapter = build
        self._hopeless = ""  # why, once the screen finds that it is
        self._alternatives: Alternatives | None = None  # other actions, once the screen has looked at them

    def fit(self, layers: Sequence[int]) -> list[int]:
        """Fits every layer whose state depends on the prompt, and reports the quality of its classifiers.

        Args:
            layers: indices of decoder blocks.

        Returns:
            The layers that were fitted.

        Raises:
            ValueError: no layer's state depends on the prompt.
        """
        sees = self.measured.states("train").sees_prompt()
        self.report["blind_layers"] = [layer for layer in layers if not sees[layer]]
        # All prompts have the same state there, so a probe gives them the same score, and its AUC is 0.5.
        self.report["layers"] = {
            str(layer): {"probe_auc": 0.5, "blind": True} for layer in self.report["blind_layers"]
        }
        seeing = [layer for layer in layers if sees[layer]]
        if not seeing:
            raise ValueError(
                f"the state at the last prompt token is the same for every prompt at layers {layers}: these "
                "blocks cannot see the request. Try later layers"
            )
        with progress_bar(len(seeing), "fits", self.args.progress) as bar:
            for layer in seeing:
                cal, train, valid = (self.measured.labelled(name, layer) for name in ("cal", "train", "valid"))
                self.fits[layer] = fit_layer(cal, train, valid, self.domains, self.args.Cs, self.args.seed)
                self.report["layers"][str(layer)] = self.fits[layer].facts
                bar.update()
        return seeing

    def screen(self, layers: Sequence[int]) -> list[Scored]:
        """Ranks settings of the layers on TRAIN by the first token, with out-of-fold router and probes.

        Returns:
            The best settings that steer, at most twice `finalists` of them: the second half is for `decide` to fall
            back on; none if steering is not among the actions. Where no push of the race's first round moves
            anything, one of the layer that reads best, and a warning.
        """
        read = self._readable(layers)
        own = {layer: self.fits[layer].out_of_fold for layer in read}
        predictions = {place: _read_at(place, own) for place in readers(self.args, read)}
        labels = self.measured.labels("train")
        race = Race(
            self.args,
            labels,
            self.measured.domains("train"),
            predictions,
            lambda key: self._push(own[key.layer], *key),
            lambda rows, pushes: self.measured.first_tokens("train", pushes, rows),
            calls=self.report.get("habit", {}).get("calls") != 0,
        )
        scored, ran = race.run(), race.rows
        self.report["screen"] = {"rows": len(ran), **screen_facts(self.args, labels[ran], race.base[ran], scored)}
        for layer, effect in layer_effects(race.changes).items():
            self.report["layers"][str(layer)]["effect"] = effect
        self._alternatives = Alternatives(self.args, labels, predictions, race, scored)
        self.report["actions"] = {"train": self._alternatives.facts()}
        if not race.hopeless:
            return shortlist(scored, 2 * self.args.finalists) if "steer" in self.args.actions else []
        self._hopeless = despair(race, len(read), self.report, self._alternatives)
        warnings.warn(self._hopeless, stacklevel=3)
        best = max(read, key=lambda layer: self.fits[layer].facts["out_of_fold_auc"])
        return [min((s for s in scored if s.setting.layer == best), key=Scored.rank)]

    def _readable(self, layers: Sequence[int]) -> list[int]:
        """The layers whose AUC beyond chance is at least three quarters of the best layer's; all if exhaustive."""
        if self.args.exhaustive:
            return list(layers)
        read = {layer: self.fits[layer].facts["out_of_fold_auc"] - 0.5 for layer in layers}
        least = max(0.0, max(read.values()) * _READS_ENOUGH)
        kept = [layer for layer in layers if read[layer] >= least] or list(layers)
        for layer in set(layers) - set(kept):
            self.report["layers"][str(layer)]["left_out"] = (
                f"its probe's AUC on TRAIN is {0.5 + read[layer]:.3f}, out of fold; the screen tries layers from "
                f"{0.5 + least:.3f} on"
            )
        return kept

    def _build(self, setting: Setting) -> ASAAdapter:
        fit = self.fits[setting.layer]
        if setting.read_layers:
            fit = fit.reading([self.fits[layer] for layer in setting.read_layers])
        return self._build_adapter(setting, fit)

    def _predicted(self, split: str, place: Reader) -> Prediction:
        layers = {place.layer, *place.read_layers}
        return _read_at(
            place, {layer: self.fits[layer].predict(self.measured.labelled(split, layer).states) for layer in layers}
        )

    def _push(self, prediction: Prediction, layer: int, beta: float, alpha: float) -> Push:
        """The step of a setting for every row; a negative alpha steps away from a call."""
        fit = self.fits[layer]
        return Push(layer, alpha * fit.residual_norm * fit.vectors.mixed(beta), torch.from_numpy(prediction.domain))

    def decide(self, candidates: Sequence[Scored]) -> ASAAdapter:
        """Generates on VALID with the first candidates, and chooses one of them.

        Where the first token of the answer tells too little of what the model generates, the screen may have ranked
        the wrong settings first, so twice as many generate.

        Args:
            candidates: what `screen` returned.

        Returns:
            The adapter of the chosen setting; with alpha 0 (it abstains) unless a gain over the bare model is certain.
            Where the screen found no push that moves anything, it abstains without generating.
        """
        others = self._alternatives.asked(bool(self._hopeless)) if self._alternatives else []
        if self._hopeless and not others:
            return self._record(candidates[0].setting._replace(alpha=0.0), self._hopeless)
        pushes = [] if self._hopeless else candidates
        first, more = [*pushes[: self.args.finalists], *others], pushes[self.args.finalists :]
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        base, finalists = self._generated(first)
        agreements = self._agreements(finalists)
        note = disagreement(agreements, len(more))
        if note and more:
            further = self._generated(more)[1]
            finalists, agreements = [*finalists, *further], [*agreements, *self._agreements(further)]
        chosen, errors = choose(self.args, labels, finalists, groups)
        gain = sure_gain(self.args, labels, base, finalists, chosen, groups)
        self.report["valid"] = {
            "base": facts(self.args, labels, base),
            "finalists": [
                {
                    **finalist.setting.plain(),
                    **facts(self.args, labels, finalist.triggered),
                    "screen_score": candidate.score,
                    "screen_agreement": agreement,
                    "standard_error": error,
                }
                for finalist, candidate, agreement, error in zip(
                    finalists, [*first, *more][: len(finalists)], agreements, errors, strict=True
                )
            ],
            "gain": gain._asdict(),
        }
        if note:
            self.report["valid"]["screen_note"] = note
            warnings.warn(note, stacklevel=3)
        return self._settle(chosen, gain, base)

    def _generated(self, candidates: Sequence[Scored]) -> tuple[NDArray[np.bool_], list[Scored]]:
        """(N,) bool, where the bare model calls a tool on VALID, and the candidates with their results there."""
        labels = self.measured.labels("valid")
        variants = {f"finalist {i}": self._build(candidate.setting) for i, candidate in enumerate(candidates)}
        base, *triggers = self.measured.triggers("valid", {"base": None, **variants}).values()
        return base, [
            Scored(candidate.setting, float(self.objective.rank(Counts.of(labels, triggered))), triggered)
            for candidate, triggered in zip(candidates, triggers, strict=True)
        ]

    def _agreements(self, finalists: Sequence[Scored]) -> list[float]:
        """For each finalist, the share of VALID rows whose first token correctly predicts whether a tool is called.

        What the other actions reach there by first tokens is added to the report.
        """
        best = self._alternatives.best if self._alternatives else {}
        told = self._told([f.setting for f in [*finalists, *best.values()]])
        if best:
            labels = self.measured.labels("valid")
            self.report["actions"]["valid"] = {
                name: {**one.setting.plain(), **facts(self.args, labels, called)}
                for (name, one), called in zip(best.items(), told[len(finalists) :], strict=True)
            }
        return [float((told[i] == f.triggered).mean()) for i, f in enumerate(finalists)]

    def _told(self, settings: Sequence[Setting]) -> list[NDArray[np.bool_]]:
        """For each setting, whether the first token of the answer to each VALID row opens a call."""
        predictions = [self._predicted("valid", setting.reader) for setting in settings]
        pushing = dict.fromkeys(setting for setting in settings if setting.action != "bias")
        pairs = {setting: (2 * i + 1, 2 * i + 2) for i, setting in enumerate(pushing)}
        pushes = [
            self._push(self._predicted("valid", s.reader), s.layer, s.beta, sign * s.alpha)
            for s in pairs
            for sign in (1, -1)
        ]
        found = self.measured.first_tokens("valid", pushes)
        told = []
        for setting, prediction in zip(settings, predictions, strict=True):
            up, down = pairs.get(setting, (0, 0))
            p_tool, base = prediction.p_tool(setting.probe), found.triggered[0]
            if setting.action == "steer":
                told.append(gated(p_tool, setting.tau, base, found.triggered[up], found.triggered[down]))
            else:
                told.append(opened(setting, p_tool, base, found.margin[up], found.margin[down]))
        return told

    def _settle(self, chosen: Scored, gain: Gain, base: NDArray[np.bool_]) -> ASAAdapter:
        """The chosen adapter, or one that abstains; records the choice and its reason in the report."""
        labels, args = self.measured.labels("valid"), self.args
        missed = args.max_fpr is not None and chosen.score < 0
        abstains = bool(missed or not gain.sure)
        tried = len(self.report["valid"]["finalists"])
        if missed:
            why = f"no setting tried had an FPR of at most {args.max_fpr:g} on VALID; the adapter abstains"
        elif abstains:
            why = (
                f"no gain over the bare model on VALID is sure: {gain.doubt(self.objective.gain_name)}; the adapter "
                "abstains"
            )
        else:
            why = (
                f"{acting(chosen.setting)}the gentlest of {tried} finalists within one standard error of the best on "
                f"VALID, ranked by {self.objective} of real generation; the gain over the bare model, freed of the "
                f"luck of being chosen, is {gain.mean:+.3f}, at least {gain.lower_bound:+.3f} with 95 % confidence "
                f"({self.objective.gain_name})"
            )
        setting = chosen.setting._replace(alpha=0.0, action="steer", bias=0.0) if abstains else chosen.setting
        adapter = self._record(setting, why)
        self.report["chosen"]["valid"] = facts(args, labels, base if abstains else chosen.triggered)
        return adapter

    def _record(self, setting: Setting, why: str) -> ASAAdapter:
        """The adapter of the choice, which the report then names with its reason."""
        adapter = self._build(setting)
        self.report["chosen"] = {
            **setting.plain(),
            "absolute_step": adapter.config.step,
            "abstains": setting.action == "steer" and setting.alpha == 0,
            "why": why,
        }
        return adapter

    def diagnose(self) -> dict[str, Any]:
        """Diagnostics of the chosen layer and beta, for the report.

        Returns:
            `domain_cosines`: (K, K) cosines of the domains' directions; `marker_probability`: for each alpha, the mean
            probability on VALID of the token that opens a call, with a step along the direction, against it, and in a
            random one; and `layer` and `beta`.
        """
        layer, beta = self.report["chosen"]["layer"], self.report["chosen"]["beta"]
        fit = self.fits[layer]
        prediction = self._predicted("valid", Reader(layer))
        aside = torch.randn(fit.vectors.v_domain.shape, generator=torch.Generator().manual_seed(self.args.seed))
        random = aside / aside.norm(dim=1, keepdim=True) * fit.residual_norm
        alphas = [alpha for alpha in self.args.alphas if alpha]
        pushes = [
            *(self._push(prediction, layer, beta, alpha) for alpha in alphas),
            *(self._push(prediction, layer, beta, -alpha) for alpha in alphas),
            *(Push(layer, alpha * random, torch.from_numpy(prediction.domain)) for alpha in alphas),
        ]
        means = self.measured.first_tokens("valid", pushes).probability.mean(axis=1, dtype=np.float64).tolist()
        n = len(alphas)
        return {
            "layer": layer,
            "beta": beta,
            "domain_cosines": (fit.vectors.v_domain @ fit.vectors.v_domain.T).tolist(),
            "marker_probability": {
                "alphas": alphas,
                "base": means[0],
                "along": means[1 : 1 + n],
                "against": means[1 + n : 1 + 2 * n],
                "random": means[1 + 2 * n :],
            },
        }


def _read_at(place: Reader, by_layer: Mapping[int, Prediction]) -> Prediction:
    """What router and probes say where they read, from what those of each layer say."""
    own = by_layer[place.layer]
    return own.reading([by_layer[layer] for layer in place.read_layers]) if place.read_layers else own
