"""`Search`: fits every layer, ranks settings on TRAIN, and lets VALID decide among the best few.

Settings race on TRAIN by the first token of the answer. The best few generate on VALID, which decides among them
and makes the adapter abstain unless a gain over the bare model is certain. Where no push moves anything, nothing is
generated.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.finalists import ScreenedFinalists, choose
from asa_adapter.choice.gain import Gain, GainRedraw, sure_gain
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import (
    Reader,
    Scored,
    Setting,
    readers_to_try,
    shortlisted_settings,
)
from asa_adapter.choice.success_gain import Success, success_gain
from asa_adapter.choice.sure_departures import without_unsure_departures
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.config.value_checks import STATES
from asa_adapter.data.rows import DEFAULT_DOMAIN
from asa_adapter.fitting.layer_fit import LayerFit, LayerPrediction, fit_layer, read_at
from asa_adapter.fitting.readiness_policy import best_policy, readiness_push
from asa_adapter.fitting.step_effects import step_effects
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.modeling.progress import progress_bar
from asa_adapter.search.alternatives import Alternatives, why_no_push_helps
from asa_adapter.search.fits_on_valid import FitsOnValid
from asa_adapter.search.plain_probe import plain_probe_first
from asa_adapter.search.racing import Race
from asa_adapter.search.reasons import (
    reason_to_abstain,
    reason_to_choose,
    rejected_in_words,
    router_note,
    success_note,
    why_cut_on_valid,
    why_screen_is_unsure,
    why_unreadable,
)
from asa_adapter.search.report_facts import finalist_facts, layer_effects, outcome_facts, scored_facts, screen_facts
from asa_adapter.search.rules_by_kind import plain_and_by_kind, with_rules_by_kind
from asa_adapter.tool_calls.outcomes import Outcome


class Search(FitsOnValid):
    """One search for the best setting.

    Args:
        measured: runs the model.
        args: which settings to try, and the objective.
        domains: names of the domains, sorted; there is one where the router was left out.
        build: makes an adapter of a setting and the fit of its layer.
        report: the dict to which all results are added.
        states: kinds of state in which the prompts end; several are fitted apart.

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
        states: Sequence[str] = STATES[:1],
    ) -> None:
        super().__init__(measured, Objective.of(args), build, states)
        self.args, self.domains, self.report = args, domains, report
        self._hopeless = ""  # why, once the screen finds that it is
        self._ran = np.zeros(0, dtype=np.int64)  # rows of TRAIN, once the screen has run them
        self._alternatives: Alternatives | None = None  # other actions, once the screen has looked at them

    def fit(self, layers: Sequence[int], also: Sequence[str] = ()) -> list[int]:
        """Fits every layer whose state depends on the prompt, and reports the quality of its classifiers.

        Where the router of the layer that reads best is no better than chance on VALID, one domain is left.

        Args:
            layers: indices of decoder blocks; those that were fitted are returned.
            also: splits beside CAL and TRAIN that router and probes are fitted on.

        Raises:
            ValueError: no layer's state depends on the prompt.
        """
        self._also = also
        sees = self.measured.states("train").sees_prompt()
        blind = self.report["blind_layers"] = [layer for layer in layers if not sees[layer]]
        # All prompts have the same state there, so a probe gives them the same score, and its AUC is 0.5.
        self.report["layers"] = {str(layer): {"probe_auc": 0.5, "blind": True} for layer in blind}
        seeing = [layer for layer in layers if sees[layer]]
        if not seeing:
            raise ValueError(
                f"the state at the last prompt token is the same for every prompt at layers {layers}: these "
                "blocks cannot see the request. Try later layers"
            )
        self._fit(seeing)
        best = self._reads_best(seeing)
        found = [self.domains[i] for i in self._predicted("valid", Reader(best)).domain]
        why = router_note(found, self.measured.domains("valid"), self.measured.groups("valid"), best)
        if why and len(self.domains) > 1:
            self._leave_router_out(seeing, why)
        known = [self.measured.labelled(name, best) for name in ("cal", "train")]
        self.args = replace(self.args, probes=plain_probe_first(self.args.probes, known))
        return seeing

    def _fit(self, layers: Sequence[int]) -> None:
        with progress_bar(len(layers), "fits", self.args.progress) as bar:
            for layer in layers:
                names = ("cal", "train", "valid", *self._also)
                cal, train, valid, *more = (self.measured.labelled(name, layer) for name in names)
                Cs, seed, shift = self.args.Cs, self.args.seed, self.objective.shift
                self.fits[layer] = fit_layer(cal, train, valid, self.domains, Cs, seed, more, shift)
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
            The best settings that steer, at most twice `finalists` of them: the second half is for `decide` to fall
            back on; none if steering is not among the actions. Where no push of the race's first round moves
            anything, one of the layer that reads best, and a warning.
        """
        read = self._readable(layers)
        own = {layer: self.fits[layer].out_of_fold for layer in read}
        predictions = {place: read_at(place, own) for place in readers_to_try(self.args, read)}
        labels, groups = self.measured.labels("train"), self.measured.groups("train")
        objective = self.objective.screening(self.measured.labels("valid"))
        race = Race(
            self.args,
            objective,
            labels,
            groups,
            self.measured.domains("train"),
            predictions,
            lambda key: self._push(own[key.layer], *key),
            lambda rows, pushes: self.measured.first_tokens("train", pushes, rows),
            calls=self.report.get("habit", {}).get("calls") != 0,
        )
        whole = race.run()
        ran = self._ran = race.rows
        scored = without_unsure_departures(self.args, objective, labels[ran], whole, groups[ran])
        facts = screen_facts(objective, labels[ran], race.base[ran], whole, groups[ran])
        self.report["screen"] = {"rows": len(ran), **facts}
        for layer, effect in layer_effects(race.changes).items():
            self.report["layers"][str(layer)]["effect"] = effect
        self._alternatives = Alternatives(self.args, objective, labels, groups, predictions, race, scored)
        self.report["actions"] = {"train": self._alternatives.facts()}
        if not race.hopeless:
            if "steer" not in self.args.actions:
                return []
            found = with_rules_by_kind(self.args, objective, labels, groups, predictions, race, scored)
            plain = plain_and_by_kind(shortlisted_settings(scored, 2 * self.args.finalists), found)
            if "readiness" not in self.args.policies:
                return plain
            ready = self._by_readiness(objective, plain[: self.args.finalists], predictions, race)
            return plain_and_by_kind(plain, ready) if "gate" in self.args.policies else ready
        self._hopeless = why_no_push_helps(race, len(read), self.report, self._alternatives)
        warnings.warn(self._hopeless, stacklevel=3)
        best = self._reads_best(read)
        return [min((s for s in scored if s.setting.layer == best), key=Scored.rank)]

    def _by_readiness(
        self,
        objective: Objective,
        leaders: Sequence[Scored],
        predictions: Mapping[Reader, LayerPrediction],
        race: Race,
    ) -> list[Scored]:
        """The best policy "readiness" on top of each of some settings, by the rows of TRAIN that the race has run."""
        rows = race.rows
        labels, groups = self.measured.labels("train")[rows], self.measured.groups("train")[rows]
        base, alphas = race.base[rows], [alpha for alpha in self.args.alphas if alpha]
        found = []
        for leader in leaders:
            read, layer = predictions[leader.setting.reader], leader.setting.layer
            pushes = [readiness_push(self.fits[layer], layer, alpha, read) for alpha in alphas]
            called = self.measured.first_tokens("train", pushes, rows).triggered[1:]
            triggers = dict(zip(alphas, called, strict=True))
            grounds = self._grounds("train", leader.setting, read).of(rows)
            how = (grounds, base, triggers.__getitem__, alphas, self.states)
            found.append(best_policy(objective, labels, leader, *how))
        self.report["policies"] = {
            name: scored_facts(objective, labels, min(some, key=Scored.rank), groups)
            for name, some in (("gate", leaders), ("readiness", found))
        }
        return sorted(found, key=Scored.rank)

    def _readable(self, layers: Sequence[int]) -> list[int]:
        """The layers that read enough of the need; all if exhaustive."""
        if self.args.exhaustive:
            return list(layers)
        poor = why_unreadable({layer: self.fits[layer].facts["out_of_fold_auc"] for layer in layers})
        for layer, why in poor.items():
            self.report["layers"][str(layer)]["left_out"] = why
        return [layer for layer in layers if layer not in poor]

    def decide(self, candidates: Sequence[Scored]) -> ASAAdapter:
        """Generates on VALID with the first candidates, and chooses one of them.

        TRAIN's first tokens count too. Where they tell too little of what the model generates, VALID alone counts, and
        twice as many generate, since the screen may have ranked the wrong settings first.

        Args:
            candidates: what `screen` returned.

        Returns:
            The adapter of the chosen setting; with alpha 0 (it abstains) unless a gain over the bare model is certain,
            and without generating where the screen found no push that moves anything.
        """
        others = self._alternatives.asked(bool(self._hopeless)) if self._alternatives else []
        if self._hopeless and not others:
            return self._record(candidates[0].setting._replace(alpha=0.0), self._hopeless)
        pushes = [] if self._hopeless else candidates
        first, more = [*pushes[: self.args.finalists], *others], pushes[self.args.finalists :]
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        outcomes, finalists = self._generated(first)
        agreements = self._agreements(finalists)
        note = why_screen_is_unsure(agreements, len(more))
        if note and more:
            found, further = self._generated(more)
            outcomes, finalists = [*outcomes, *found[1:]], [*finalists, *further]
            agreements += self._agreements(further)
        train = self.measured.labels("train"), self.measured.groups("train")
        on_train = None if note else ScreenedFinalists.of(first, self._ran, *train)
        chosen, errors = choose(self.args, labels, finalists, groups, on_train)
        redraw = GainRedraw.of(self.args, labels, finalists, chosen, groups, on_train)
        gain, success = sure_gain(redraw, outcomes[0].triggered), success_gain(redraw, outcomes[0])
        scores = [candidate.score for candidate in [*first, *more][: len(finalists)]]
        base, *own = (outcome_facts(self.objective, labels, outcome, groups) for outcome in outcomes)
        self.report["valid"] = {
            "base": base,
            "finalists": finalist_facts(finalists, own, scores, agreements, errors),
            "gain": gain._asdict(),
            "success": success._asdict(),
            "chosen_again": redraw.again,
            "train_rows": 0 if on_train is None else len(on_train.labels),
        }
        if note:
            self.report["valid"]["screen_note"] = note
            warnings.warn(note, stacklevel=3)
        if cut := why_cut_on_valid(outcomes, self.args.max_new_tokens):
            warnings.warn(cut, stacklevel=3)
        reached = next(o for o, finalist in zip(outcomes[1:], finalists, strict=True) if finalist is chosen)
        return self._settle(chosen, gain, success, reached)

    def _agreements(self, finalists: Sequence[Scored]) -> list[float]:
        """For each finalist, the share of VALID rows whose first token correctly predicts whether a tool is called.

        What the other actions reach there by first tokens is added to the report.
        """
        best = self._alternatives.best if self._alternatives else {}
        told = self._told([f.setting for f in [*finalists, *best.values()]])
        if best:
            labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
            self.report["actions"]["valid"] = {
                name: scored_facts(self.objective, labels, one._replace(triggered=called), groups)
                for (name, one), called in zip(best.items(), told[len(finalists) :], strict=True)
            }
        return [float((told[i] == f.triggered).mean()) for i, f in enumerate(finalists)]

    def _settle(self, chosen: Scored, gain: Gain, success: Success, reached: Outcome) -> ASAAdapter:
        """The chosen adapter, or one that abstains; records the choice and its reason in the report.

        `reached` came of VALID by the chosen setting.
        """
        labels, groups = self.measured.labels("valid"), self.measured.groups("valid")
        valid = self.report["valid"]
        why = reason_to_abstain(self.args, self.objective, chosen, gain, success)
        own = outcome_facts(self.objective, labels, reached, groups)
        if abstains := bool(why):
            why = f"{why}. {rejected_in_words(valid['base'], own)}"
        else:
            tried, train_rows = len(valid["finalists"]), valid["train_rows"]
            why = reason_to_choose(chosen.setting, tried, train_rows, self.objective, gain)
            if note := success_note(success):
                valid["success_note"] = note
                warnings.warn(note, stacklevel=4)
        nothing = chosen.setting._replace(alpha=0.0, action="steer", bias=0.0, by_state=())
        setting = nothing if abstains else chosen.setting
        adapter = self._record(setting, why)
        self.report["chosen"]["valid"] = dict(valid["base"]) if abstains else own
        return adapter

    def _record(self, setting: Setting, why: str) -> ASAAdapter:
        """The adapter of the choice, fitted once more if asked for; the report then names it with its reason."""
        adapter = self._build(setting)
        self.report["chosen"] = {
            **setting.plain(),
            "absolute_step": adapter.config.step,
            "abstains": setting.action == "steer" and setting.alpha == 0,
            "why": why,
        }
        if not self.args.refit:
            return adapter
        known = sum(len(self.measured.rows(split)) for split in ("cal", "train", "valid", *self._also))
        self.report["refit"] = {"rows": known, "judged": adapter.digest()}
        shipped = self._refitted(setting, self.domains, self._also, self.args.seed)
        shipped.judged = adapter
        return shipped

    def diagnose(self) -> dict[str, Any]:
        """Diagnostics of the chosen layer and beta, for the report.

        Returns:
            `domain_cosines`: (K, K) cosines of the domains' directions; `marker_probability`: for each alpha, the mean
            probability on VALID of the token that opens a call, with a step along the direction, against it, and in a
            random one; and `layer` and `beta`.
        """
        layer, beta = self.report["chosen"]["layer"], self.report["chosen"]["beta"]
        domain = self._predicted("valid", Reader(layer)).domain
        effects = step_effects(self.measured, self.fits[layer], layer, beta, domain, self.args)
        shipped = self.again.get(layer, self.fits[layer]).vectors.v_domain
        cosines = (shipped @ shipped.T).tolist()
        return {"layer": layer, "beta": beta, "domain_cosines": cosines, "marker_probability": effects}
