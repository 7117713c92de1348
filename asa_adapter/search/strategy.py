"""`Search`: fits every layer, ranks settings on TRAIN, and lets VALID decide among the best few.

Settings race on TRAIN by the first token of the answer. The best few generate on VALID, which decides among them
and makes the adapter abstain unless a gain over the bare model is certain. Where no push moves anything, nothing is
generated.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.gain import Gain, sure_gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting, choose, gated, layer_effects, screen_facts, shortlist
from asa_adapter.choice.success import Success, success_gain
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.prompts import DEFAULT_DOMAIN
from asa_adapter.evaluation.first_tokens import Push
from asa_adapter.modeling.processes import progress_bar
from asa_adapter.search.fitting import LayerFit, Prediction, fit_layer
from asa_adapter.search.measurements import Measurements
from asa_adapter.search.racing import Race
from asa_adapter.search.verdict import (
    cut_on_valid,
    disagreement,
    outcome_facts,
    reason_to_abstain,
    router_note,
    success_note,
)
from asa_adapter.tool_calls.outcomes import Outcome

# Share of the best layer's AUC beyond chance from which the screen tries a layer.
_READS_ENOUGH = 0.75


class Search:
    """One search for the best setting.

    Args:
        measured: runs the model.
        args: which settings to try, and the objective.
        domains: names of the domains, sorted; there is one where the router was left out.
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

    def fit(self, layers: Sequence[int]) -> list[int]:
        """Fits every layer whose state depends on the prompt, and reports the quality of its classifiers.

        Where the router of the layer that reads the need best is no better than chance on VALID, it is left out: from
        then on there is one domain, with the pooled probe.

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
        self._fit(seeing)
        best = self._reads_best(seeing)
        found = [self.domains[i] for i in self._predicted("valid", best).domain]
        why = router_note(found, self.measured.domains("valid"), self.measured.groups("valid"), best)
        if why and len(self.domains) > 1:
            self._leave_router_out(seeing, why)
        return seeing

    def _fit(self, layers: Sequence[int]) -> None:
        with progress_bar(len(layers), "fits", self.args.progress) as bar:
            for layer in layers:
                cal, train, valid = (self.measured.labelled(name, layer) for name in ("cal", "train", "valid"))
                self.fits[layer] = fit_layer(cal, train, valid, self.domains, self.args.Cs, self.args.seed)
                self.report["layers"][str(layer)] = self.fits[layer].facts
                bar.update()

    def _leave_router_out(self, layers: Sequence[int], why: str) -> None:
        """Fits the layers again with one domain and its pooled probe; reports and warns why."""
        accuracies = {layer: self.fits[layer].facts["router_accuracy"] for layer in layers}
        self.domains, self.args = (DEFAULT_DOMAIN,), replace(self.args, probes=("pooled",))
        self.measured.fit_one_domain(DEFAULT_DOMAIN)
        self._fit(layers)
        for layer, accuracy in accuracies.items():  # that of the router which is left out
            self.fits[layer].facts["router_accuracy"] = accuracy
        self.report |= {"router_left_out": why, "domains": [DEFAULT_DOMAIN]}
        warnings.warn(why, stacklevel=4)

    def _reads_best(self, layers: Sequence[int]) -> int:
        """The layer whose probe has the best AUC on TRAIN, out of fold."""
        return max(layers, key=lambda layer: self.fits[layer].facts["out_of_fold_auc"])

    def screen(self, layers: Sequence[int]) -> list[Scored]:
        """Ranks settings of the layers on TRAIN by the first token, with out-of-fold router and probes.

        Returns:
            The best settings, at most twice `finalists` of them: the second half is for `decide` to fall back on.
            Where no push of the race's first round moves anything, one of the layer that reads best, and a warning.
        """
        read = self._readable(layers)
        predictions = {layer: self.fits[layer].out_of_fold for layer in read}
        labels, groups = self.measured.labels("train"), self.measured.groups("train")
        objective = self.objective.screening(self.measured.labels("valid"))
        race = Race(
            self.args,
            objective,
            labels,
            self.measured.domains("train"),
            predictions,
            lambda key: self._push(predictions[key.layer], *key),
            lambda rows, pushes: self.measured.first_tokens("train", pushes, rows),
            calls=self.report.get("habit", {}).get("calls") != 0,
        )
        scored, ran = race.run(), race.rows
        self.report["screen"] = {
            "rows": len(ran),
            **screen_facts(objective, labels[ran], race.base[ran], scored, groups[ran]),
        }
        for layer, effect in layer_effects(race.changes).items():
            self.report["layers"][str(layer)]["effect"] = effect
        if not race.hopeless:
            return shortlist(scored, 2 * self.args.finalists)
        self._hopeless = self._despair(race, len(read))
        warnings.warn(self._hopeless, stacklevel=3)
        best = self._reads_best(read)
        return [min((s for s in scored if s.setting.layer == best), key=Scored.rank)]

    def _despair(self, race: Race, layers: int) -> str:
        """Why no setting can help, and what could."""
        habit = self.report.get("habit", {})
        if calls := habit.get("calls"):
            shares = ", ".join(f"{name} {round(100 * share)} %" for name, share in habit["shares"].items())
            written = f"its calls come as {shares} of {calls}"
        else:
            written = f"it called nothing in {habit.get('answers', 0)} answers"
        return (
            f"no push at any of {layers} layers changed a decision on {len(race.rows)} rows of TRAIN, or moved the "
            f"probability of a call's opening by more than {race.moved:.2g} in the mean; the bare model begins "
            f"{int(race.base.sum())} of their answers with a call, and {written} (read as "
            f"{self.report.get('tool_call_format')}); the adapter abstains. What could help: the tool_call_format of "
            "its calls, if they come in another one; a chat template that shows it the tools; an action on the logits "
            "in place of the states"
        )

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
        return self._build_adapter(setting, self.fits[setting.layer])

    def _predicted(self, split: str, layer: int) -> Prediction:
        return self.fits[layer].predict(self.measured.labelled(split, layer).states)

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
        if self._hopeless:
            return self._record(candidates[0].setting._replace(alpha=0.0), self._hopeless)
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        outcomes, finalists = self._generated(candidates[: self.args.finalists])
        agreements = self._agreements(finalists)
        note = disagreement(agreements, len(candidates) - len(finalists))
        if note and candidates[len(finalists) :]:
            found, more = self._generated(candidates[len(finalists) :])
            outcomes, finalists = [*outcomes, *found[1:]], [*finalists, *more]
            agreements += self._agreements(more)
        chosen, errors = choose(self.args, labels, finalists, groups)
        gain = sure_gain(self.args, labels, outcomes[0].triggered, finalists, chosen, groups)
        success = success_gain(self.args, labels, outcomes[0], finalists, chosen, groups)
        screened = [
            {"screen_score": candidate.score, "screen_agreement": agreement, "standard_error": error}
            for candidate, agreement, error in zip(candidates, agreements, errors, strict=False)
        ]
        self.report["valid"] = {
            "base": outcome_facts(self.objective, labels, outcomes[0], groups),
            "finalists": [
                {**candidate.setting._asdict(), **outcome_facts(self.objective, labels, outcome, groups), **numbers}
                for candidate, outcome, numbers in zip(candidates, outcomes[1:], screened, strict=False)
            ],
            "gain": gain._asdict(),
            "success": success._asdict(),
        }
        if note:
            self.report["valid"]["screen_note"] = note
            warnings.warn(note, stacklevel=3)
        if cut := cut_on_valid(outcomes, self.args.max_new_tokens):
            warnings.warn(cut, stacklevel=3)
        reached = next(o for o, finalist in zip(outcomes[1:], finalists, strict=True) if finalist is chosen)
        return self._settle(chosen, gain, success, outcomes[0], reached)

    def _generated(self, candidates: Sequence[Scored]) -> tuple[list[Outcome], list[Scored]]:
        """What came of VALID by the bare model and by each candidate, and the candidates with their results there."""
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        variants = {f"finalist {i}": self._build(candidate.setting) for i, candidate in enumerate(candidates)}
        outcomes = list(self.measured.outcomes("valid", {"base": None, **variants}).values())
        return outcomes, [
            Scored(candidate.setting, self.objective.score(labels, one.triggered, groups), one.triggered, one.fits)
            for candidate, one in zip(candidates, outcomes[1:], strict=True)
        ]

    def _agreements(self, finalists: Sequence[Scored]) -> list[float]:
        """For each finalist, the share of VALID rows whose first token correctly predicts whether a tool is called."""
        predictions = [self._predicted("valid", f.setting.layer) for f in finalists]
        pushes = [
            self._push(prediction, f.setting.layer, f.setting.beta, sign * f.setting.alpha)
            for f, prediction in zip(finalists, predictions, strict=True)
            for sign in (1, -1)
        ]
        base, *pushed = self.measured.first_tokens("valid", pushes).triggered
        agreements = []
        for f, prediction, up, down in zip(finalists, predictions, pushed[::2], pushed[1::2], strict=True):
            screened = gated(prediction.p_tool[f.setting.probe], f.setting.tau, base, up, down)
            agreements.append(float((screened == f.triggered).mean()))
        return agreements

    def _settle(self, chosen: Scored, gain: Gain, success: Success, base: Outcome, reached: Outcome) -> ASAAdapter:
        """The chosen adapter, or one that abstains; records the choice and its reason in the report.

        `base` and `reached` came of VALID by the bare model and by the chosen setting.
        """
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        valid = self.report["valid"]
        why = reason_to_abstain(self.args, self.objective, chosen, gain, success)
        abstains = bool(why)
        if not abstains:
            why = (
                f"the gentlest of {len(valid['finalists'])} finalists within one standard error of the best on VALID, "
                f"ranked by {self.objective} of real generation; the gain over the bare model, freed of the luck of "
                f"being chosen, is {gain.mean:+.3f}, at least {gain.lower_bound:+.3f} with 95 % confidence "
                f"({self.objective.gain_name})"
            )
            if note := success_note(success):
                valid["success_note"] = note
                warnings.warn(note, stacklevel=4)
        setting = chosen.setting._replace(alpha=0.0) if abstains else chosen.setting
        adapter = self._record(setting, why)
        self.report["chosen"]["valid"] = outcome_facts(self.objective, labels, base if abstains else reached, groups)
        return adapter

    def _record(self, setting: Setting, why: str) -> ASAAdapter:
        """The adapter of the choice, which the report then names with its reason."""
        adapter = self._build(setting)
        self.report["chosen"] = {
            **setting._asdict(),
            "absolute_step": adapter.config.step,
            "abstains": setting.alpha == 0,
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
        prediction = self._predicted("valid", layer)
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
