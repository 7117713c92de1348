"""The table: an adapter, what is left of it without one of its parts, and the simpler rules, on the same rows."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.choice.intervals import paired_intervals, resamples
from asa_adapter.choice.objective import Objective
from asa_adapter.comparison.ablation import ablations
from asa_adapter.comparison.costs import Times, cost
from asa_adapter.comparison.simpler_rules import RULES, Candidate, NotApplicableError, RuleSetup, Treatment
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.evaluation.metrics import success_f1
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.tool_calls.outcomes import Answer

Results = dict[str, Mapping[str, Any]]


def ablated_metrics(measured: Measurements, adapter: ASAAdapter, split: str, args: ASATrainingArguments) -> Results:
    """Metrics of the bare model ("base") and of the `ablations` of an adapter, by name.

    All but the adapter itself ("full") have the `paired_intervals` of it with them, under "against_full".

    Raises:
        ValueError: the adapter abstains.
    """
    answers = measured.answers(split, {"base": None, **ablations(adapter.for_split(split))})
    compared = _RulePairs(measured, args, split, {name: measured.triggered(split, a) for name, a in answers.items()})
    return {
        name: measured.metrics(split, found) | ({} if name == "full" else {"against_full": compared.of("full", name)})
        for name, found in answers.items()
    }


class Chosen(NamedTuple):
    """A rule after VALID.

    Attributes:
        candidate: the best of its candidates there.
        score: what it reached there, by `Objective.rank`.
    """

    candidate: Candidate
    score: float


def rules_table(measured: Measurements, adapter: ASAAdapter, args: ASATrainingArguments, split: str) -> dict[str, Any]:
    """The bare model, each simpler rule and steering on one split, everything chosen on VALID.

    Args:
        measured: what the model does on the rows.
        adapter: the adapter.
        args: of these, objective, max_fpr, resamples and seed are used.
        split: name of the split.

    Returns:
        `rows`: by name ("base", the names of `RULES`, "steering") the `metrics`, `valid` (the score on VALID),
        `choice` (in words), `cost` (see `Cost`) and, but for "base", `against_base`: the `paired_intervals` of the
        bare model with the rule ("asa"); `left_out`: why a rule could not be tried, by its name; `best`: the rule that
        is best on VALID; `steering_against_best`: the `paired_intervals` of that rule ("base") with steering ("asa");
        `success_gain`: the 95 % interval of steering's gain over it in the F1 of successful calls.
    """
    setup = RuleSetup(measured, adapter, Objective.of(args), split, args.seed)
    return _measured_table(setup, args, *_chosen_rules(setup))


def ablated_with_rules(
    measured: Measurements, adapter: ASAAdapter, split: str, args: ASATrainingArguments
) -> tuple[Results, dict[str, Any]]:
    """What `ablated_metrics` and `rules_table` return; their answers are made together, equal ones once.

    Raises:
        ValueError: the adapter abstains, or a row cannot be scored.
    """
    variants = ablations(adapter.for_split(split))
    measured.metrics(split, [""] * len(measured.rows(split)))  # refuses rows before anything is generated
    setup = RuleSetup(measured, adapter, Objective.of(args), split, args.seed)
    chosen, left_out = _chosen_rules(setup)
    together = {name: Treatment(measured, variant) for name, variant in variants.items()}
    _table_answers(together | {f"rule {name}": one.candidate.treat(split) for name, one in chosen.items()}, split)
    return ablated_metrics(measured, adapter, split, args), _measured_table(setup, args, chosen, left_out)


def _measured_table(
    setup: RuleSetup, args: ASATrainingArguments, chosen: Mapping[str, Chosen], left_out: Mapping[str, str]
) -> dict[str, Any]:
    """The rows of the table of rules, measured on its split, and what was left out."""
    measured, split = setup.measured, setup.split
    treatments = {name: one.candidate.treat(split) for name, one in chosen.items()}
    answers = _table_answers(treatments, split)
    triggered = {name: measured.triggered(split, found) for name, found in answers.items()}
    compared = _RulePairs(measured, args, split, triggered)
    rules, times = [name for name in chosen if name in RULES], Times()
    best = max(rules, key=lambda name: round(chosen[name].score, 9))
    rows = {
        name: {
            "metrics": measured.metrics(split, found),
            "valid": chosen[name].score,
            "choice": chosen[name].candidate.choice,
            "cost": cost(treatments[name], split, found, times)._asdict(),
            **({} if name == "base" else {"against_base": compared.of("base", name)}),
        }
        for name, found in answers.items()
    }
    return {
        "rows": rows,
        "left_out": dict(left_out),
        "best": best,
        "steering_against_best": compared.of(best, "steering"),
        "success_gain": _success_interval_of_rules(
            measured, args, split, [answers[name] for name in (best, "steering")]
        ),
    }


def _success_interval_of_rules(
    measured: Measurements, args: ASATrainingArguments, split: str, answers: Sequence[Sequence[str]]
) -> list[float]:
    """95 % interval of the second answers' gain over the first in the F1 of successful calls (paired bootstrap)."""
    outcomes = [measured.evaluation.outcome(measured.rows(split), texts) for texts in answers]
    called, fits = (np.stack(part) for part in list(zip(*outcomes, strict=True))[:2])
    labels, groups = measured.labels(split), measured.groups(split)
    drawn = success_f1(labels, called, fits, resamples(len(labels), args.resamples, args.seed, groups))
    low, high = np.percentile(drawn[1] - drawn[0], [2.5, 97.5])
    return [float(low), float(high)]


def metrics_of_rules(table: Mapping[str, Any]) -> Results:
    """The metrics of each rule of a `rules_table`, by name."""
    return {name: row["metrics"] for name, row in table["rows"].items() if name in RULES}


class _RulePairs(NamedTuple):
    """Comparisons of two ways to answer the rows of a split."""

    measured: Measurements
    args: ASATrainingArguments
    split: str
    triggered: Mapping[str, NDArray[np.bool_]]

    def of(self, first: str, second: str) -> dict[str, Any]:
        return paired_intervals(
            self.measured.labels(self.split),
            self.triggered[first],
            self.triggered[second],
            draws=self.args.resamples,
            seed=self.args.seed,
            groups=self.measured.groups(self.split),
        )


def _chosen_rules(setup: RuleSetup) -> tuple[dict[str, Chosen], dict[str, str]]:
    """The rules in the table with what VALID chose, and why others were left out."""
    found = {"base": [Candidate("", lambda _: Treatment(setup.measured))]}
    left_out = {}
    for name, rule in RULES.items():
        try:
            found[name] = rule(setup)
        except NotApplicableError as error:
            left_out[name] = str(error)
    found["steering"] = [Candidate("", lambda split: Treatment(setup.measured, setup.adapter.for_split(split)))]
    names = {f"{name} {i}": (name, one) for name, some in found.items() for i, one in enumerate(some)}
    scores = _table_scores(setup, {key: one.treat("valid") for key, (_, one) in names.items()})
    chosen: dict[str, Chosen] = {}
    for key, (name, one) in names.items():  # of equally good ones the first
        if name not in chosen or scores[key] > chosen[name].score + 1e-9:
            chosen[name] = Chosen(one, scores[key])
    return chosen, left_out


def _table_scores(setup: RuleSetup, treatments: Mapping[str, Treatment]) -> dict[str, float]:
    """`Objective.rank` on VALID of each treatment, by generation until a call begins."""
    labels, groups = setup.measured.labels("valid"), setup.measured.groups("valid")
    answers = _table_answers(treatments, "valid", until_call=True)
    triggered = {name: setup.measured.triggered("valid", found) for name, found in answers.items()}
    return {name: setup.objective.score(labels, called, groups) for name, called in triggered.items()}


def _table_answers(
    treatments: Mapping[str, Treatment], split: str, until_call: bool = False
) -> dict[str, list[Answer]]:
    """The answers of each treatment; those that ask the same prompts are answered together."""
    together: dict[int, list[str]] = {}
    for name, treatment in treatments.items():
        together.setdefault(id(treatment.measured), []).append(name)
    found: dict[str, list[Answer]] = {}
    for names in together.values():
        variants = {name: treatments[name].variant for name in names}
        found |= treatments[names[0]].measured.answers(split, variants, until_call=until_call)
    return {name: found[name] for name in treatments}
