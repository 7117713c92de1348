"""What model card, plots and inspection read of report.json: every key they know, in one place.

A report may come from a stranger's repository. Whatever in it is missing, or not of the expected kind, is left out.

What a trainer writes into report.json, version 1. `*` is any key, `[]` each entry of a list; every number is finite.
Names in capitals are groups of keys, listed at the end.

report_version                       | int     | 1
arguments.*                          | any     | the ASATrainingArguments
tool_call_format                     | text    | name of the format of the model's tool calls
habit.answers                        | int     | answers of the bare model that were read with every format
habit.calls                          | int     | how many of them call a tool
habit.shares.*                       | number  | by format, the share of these calls that came in it
habit.shown                          | text    | the format that template or vocabulary show, or that was named by hand
habit.differs                        | bool    | whether hardly any call came in that
splits.*.ROWS                        |         | how many rows cal, train, valid and test have
states.fitted[]                      | text    | kinds of state that it was fitted on, told by the prompts' ends
states.rows.*.*                      | int     | by split and kind of state, the rows that end so
domains[]                            | text    | names, in the order of the directions
leaks[][]                            | text    | kind, first and second row of the first 1,000 pairs in two splits
router_left_out                      | text    | only where the router is no better than chance, and so left out
vary_tools.fitted                    | bool    | whether router and probes are fitted on rows with other tools too
vary_tools.why                       | text    | why, or why not
vary_tools.losses.*                  | number  | by variation, the balanced accuracy that probes lose by it on VALID
vary_tools.*                         | int     | rows: those with other tools; taken_away: without the needed one
refit.rows                           | int     | CAL, TRAIN, VALID and rows with other tools: fitted on at last
refit.judged                         | text    | digest of the fit on CAL and TRAIN, which was judged on VALID
variations.*.*.GATES                 |         | by split, and by how its lists of tools were varied
blind_layers[]                       | int     | layers whose state is the same for every prompt
layers.*.probe_auc                   | number  | by layer: AUC on VALID of the probe for all domains; 0.5 if blind
layers.*.blind                       | bool    | true; only where the layer is blind
layers.*.left_out                    | text    | why the screen did not try the layer; only where it did not
layers.*.shuffled_auc                | number  | AUC of probes of meaningless labels, which should be 0.5
layers.*.out_of_fold_auc             | number  | AUC on TRAIN, each row read by a probe that was fitted without it
layers.*.C                           | number  | inverse regularisation strength
layers.*.residual_norm               | number  | mean norm of the states on CAL: the unit of alpha
layers.*.router_accuracy             | number  | share of the VALID rows whose domain the router finds
layers.*.states.*.own_probe          | bool    | by kind of state, where several are fitted: whether it has a probe
layers.*.states.*.own_direction      | bool    | and directions of its own; without, it takes those of all rows
layers.*.states.*.out_of_fold_auc    | number  | AUC of its probe on its rows of TRAIN, as above
layers.*.states.*.probe_auc          | number  | AUC of its probe on its rows of VALID
layers.*.effect.*                    | number  | alpha: a step; up, down: what it adds to the start marker's p
screen.split                         | text    | "train": settings are ranked there by the answer's first token
screen.rows                          | int     | rows of TRAIN that were run: all, but where no push moved anything
screen.settings                      | int     | how many settings were ranked on all of them
screen.base.SCORES                   |         | the bare model
screen.best_of_each_layer[].SETTING  |         | the best setting of each layer, best first
screen.best_of_each_layer[].SCORES   |         | what it reached
screen.front[].SETTING               |         | settings with more recall than any with a lower FPR
screen.front[].recall                | number  | its recall
screen.front[].fpr                   | number  | its FPR
screen.alpha_tau[].alpha             | number  | the best setting with another alpha
screen.alpha_tau[].tau               | number  | and another tau
screen.alpha_tau[].score             | number  | its score
actions.train.*.SETTING              |         | by action (steer; force: a bias without limit; bias; both): its best
actions.train.*.SCORES               |         | what it reaches there, by first tokens
actions.valid.*.SETTING              |         | the same settings but for steer
actions.valid.*.SCORES               |         | what they reach on VALID, by first tokens
policies.*.SETTING                   |         | by policy (gate, readiness), where both were tried: its best on TRAIN
policies.*.SCORES                    |         | what it reaches there, by first tokens
valid.base.SCORES                    |         | the bare model, by real generation on VALID (no `valid` if none moved)
valid.base.success_f1                | number  | F1 of its successful calls
valid.base.cut_share                 | number  | share of its answers that max_new_tokens cut
valid.finalists[].SETTING            |         | the settings that generated on VALID
valid.finalists[].SCORES             |         | what each reached
valid.finalists[].success_f1         | number  | F1 of its successful calls
valid.finalists[].cut_share          | number  | share of the answers that max_new_tokens cut
valid.finalists[].screen_score       | number  | its score in the screen
valid.finalists[].screen_agreement   | number  | share of VALID rows on which first token and generation agree
valid.finalists[].standard_error     | number  | of the difference between its score and the best
valid.screen_note                    | text    | only where they agree on too few, so that more settings generated
valid.gain.GAIN                      |         | of the choice over the bare model
valid.success.base                   | number  | F1 of successful calls: needed, of an offered tool, fitting its schema
valid.success.chosen                 | number  | the same with the choice
valid.success.lower_bound            | number  | one-sided 95 % bound of the gain, whichever was chosen
valid.success.upper_bound            | number  | the same from above
valid.chosen_again                   | number  | share of resamples in which the same setting is chosen
valid.train_rows                     | int     | rows of TRAIN, by first tokens, that counted in the choice; 0 for none
valid.success_note                   | text    | only where the triggers' gain is sure, and none in successful calls is
chosen.SETTING                       |         | the choice; alpha 0 where it abstains
chosen.absolute_step                 | number  | length of the step in the model's own units
chosen.abstains                      | bool    | whether no gain was sure, so that the adapter does nothing
chosen.why                           | text    | how it was chosen
chosen.valid.SCORES                  |         | what it reached on VALID
chosen.valid.success_f1              | number  | F1 of its successful calls
chosen.valid.cut_share               | number  | share of the answers that max_new_tokens cut
diagnostics.layer                    | int     | where this was measured
diagnostics.beta                     | number  | with which share of the global direction
diagnostics.domain_cosines[][]       | number  | cosines between the domains' directions
diagnostics.marker_probability.alphas[]  | number | lengths of the steps
diagnostics.marker_probability.base      | number | mean probability of the start marker on VALID, without a step
diagnostics.marker_probability.along[]   | number | with a step along the direction, for each alpha
diagnostics.marker_probability.against[] | number | against it
diagnostics.marker_probability.random[]  | number | along a random one
evaluations.*.base.METRICS           |         | by split: the bare model, by real generation
evaluations.*.asa.METRICS            |         | with the adapter
evaluations.*.SURE                   |         | how sure the difference is
evaluations.*.by_domain.*.SURE       |         | the same in each domain
conversations.*.*                    | int     | by split: gold conversations run again, the user's turns, needed calls
conversations.*.base.*               | number  | the bare model: shares of right first calls and sequences, of missing
conversations.*.asa.*                | number  | calls, of turns with needless and repeated ones; with the adapter
conversations.*.intervals.*.*[]      | number  | 95 % intervals of "base", "asa" and "gain", whole conversations drawn
gates.*.needed[]                     | int     | by split: rows that need a tool, by p(tool) in twenty equal parts
gates.*.not_needed[]                 | int     | the same of rows that need none
demonstration.own                    | bool    | only where true: the user named them (`sample_rows`)
demonstration.*                      | int     | asked: sample prompts; changed: of these get a call by one model alone
demonstration.shown.*                | text    | the first of those: prompt, and the answers base and asa
controls.*.bag_of_words.COUNTED      |         | by split: a classifier that sees only the words
controls.*.bag_of_words.auc          | number  | its AUC
controls.*.probe_auc                 | number  | AUC of the probe at the chosen layer
controls.*.shuffled_auc              | number  | of probes of meaningless labels
controls.*.router_accuracy           | number  | share of the rows whose domain the router finds
ablations.*.METRICS                  |         | by variant of the adapter, the bare model being "base"
ablations.*.against_full.SURE        |         | how sure its difference from the adapter is; "asa" is the variant
rules.rows.*.metrics.METRICS         |         | by simpler rule on TEST, beside "base" and "steering"
rules.rows.*.valid                   | number  | its score on VALID, where all of it was chosen
rules.rows.*.choice                  | text    | what was chosen; "" where nothing was
rules.rows.*.cost.*                  | number  | of a request: tokens read and written, milliseconds by itself
rules.rows.*.against_base.SURE       |         | how sure its difference from the bare model is; "asa" is the rule
rules.left_out.*                     | text    | by rule: why it could not be tried
rules.best                           | text    | the rule that is best on VALID
rules.steering_against_best.SURE     |         | how sure the difference is: "base" is that rule, "asa" steering
rules.success_gain[]                 | number  | 95 % interval of the same difference in F1 of successful calls
samples.*                            | text    | what answered them: engine, device, dtype, quantised (or "")
samples.rows[].chat                  | text    | JSON of the chat's turns; neutral ones, unless the user named others
samples.rows[].tools                 | text    | JSON of the tools that it offers, where not those of the config
samples.rows[].prompt                | text    | first 16 digits of the SHA-256 of the prompt's token ids
samples.rows[].p_tool                | number  | the probability that a tool is needed
samples.rows[].gate                  | int     | the gate: -1, 0 or 1
samples.rows[].steered[]             | int     | the answer's first token ids with the adapter, greedily
samples.rows[].bare[]                | int     | and without it
samples.rows[].*                     | text    | domain, state in which the prompt ends, and reason if left alone
versions.*                           | text    | of Python and packages
seconds.*                            | number  | by stage

SETTING  layer (int), alpha, tau, beta (numbers), probe (text), read_layers[] (int; empty: the layer itself); where the
         action is not "steer", action (text) and bias (number, or the text "inf"); where kinds of state have rules of
         their own, by_state.*.* (numbers)
SCORES   score, f1, recall, fpr, fpr_upper_bound_95 (numbers)
GATES    rows, left_out, lost, won (int), right, given_right, called, given_called (numbers): the adapter's gates
         beside those of the same rows as given; see `training.robustness.compared`
ROWS     rows, tool_needed (label 1), groups (of rows that belong together) (int)
GAIN     mean, lower_bound, balanced_accuracy_bound, apparent (numbers), groups (int): see `choice.gain.Gain`
COUNTED  n, tp, fp, fn, tn (int), precision, recall, f1, accuracy, fpr (numbers)
METRICS  COUNTED, and per_domain.*.COUNTED, validity.* (also those of `paired_validity`), gold.* (numbers),
         cut (int: answers that max_new_tokens cut before a call was complete), cut_share (number)
SURE     intervals.*.*[] (95 %, of "base", "asa" and "gain" by ratio), mcnemar_p (numbers), only_base_right,
         only_asa_right, groups (int)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asa_adapter.report_schema import SCHEMA, SERIES, Effect, Point
from asa_adapter.strict_json import sound

Metrics = Mapping[str, Any]
Interval = tuple[float, float]
Intervals = Mapping[str, Mapping[str, Interval]]


class Cell(NamedTuple):
    """What the screen gave one pair of alpha and tau, all else being as in the best setting."""

    alpha: float
    tau: float
    score: float


@dataclass(frozen=True)
class Comparison:
    """The bare model and the steered one on one split.

    Attributes:
        base: metrics as `trigger_metrics` gives them, with `per_domain`, `validity` and `gold`, empty if unknown.
        asa: the same, steered.
        intervals: 95 % intervals by "base", "asa" and "gain" (asa minus base), then by ratio.
        mcnemar_p: p value of the exact McNemar test on which prompts were decided correctly.
        by_domain: such intervals for each domain.
    """

    base: Metrics
    asa: Metrics
    intervals: Intervals = field(default_factory=dict)
    mcnemar_p: float | None = None
    by_domain: Mapping[str, Intervals] = field(default_factory=dict)


@dataclass(frozen=True)
class Trials:
    """What was tried on one split: the screen on TRAIN, or the finalists on VALID.

    Attributes:
        base: the bare model.
        choice: the chosen setting, or the bare model if the adapter abstains; None if unknown.
        points: the front of the screen, by rising FPR, or the finalists.
        alpha_tau: scores of the screen by alpha and tau.
        best: numbers of the screen's best setting.
    """

    base: Point | None = None
    choice: Point | None = None
    points: tuple[Point, ...] = ()
    alpha_tau: tuple[Cell, ...] = ()
    best: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Marker:
    """Mean probability of the start marker on VALID, for the bare model and under steps of each length.

    Attributes:
        base: of the bare model.
        alphas: lengths of the steps, rising.
        series: for "along", "against" and "random", one probability for each length.
    """

    base: float
    alphas: tuple[float, ...]
    series: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Report:
    """The sound part of a report: what it holds under the names of the attributes, where nothing else is said.

    Attributes:
        rules: simpler rules beside steering; intervals as lists.
        layers: numbers by layer, of those that have a `probe_auc`.
        effects: `effect` by layer.
        chosen: the numbers of `chosen`: `layer`, `alpha`, `tau`, `beta`.
        domains: names in the order of `cosines`.
        cosines: `diagnostics.domain_cosines`, a row for each domain.
        marker: `diagnostics.marker_probability`.
        why: `chosen.why`.
        router_left_out: why there is no router.
        success_note: `valid.success_note`.
        chosen_again: `valid.chosen_again`; None if unknown.
        controls: by split, `probe_auc` and `bag_of_words`, of which the `auc` is read.
        habit: `calls`, `shares`, and `shown` and `differs` where they are known; empty where no call was read.
        samples: `samples`; `verification.sample_record.Record` reads it.
        metadata: what only the person who fitted it knows: `license` of the adapter, `datasets` (Hub ids), `language`
            codes, and in words `data_license` and `labels` (who or what labelled the data).
    """

    evaluations: Mapping[str, Comparison] = field(default_factory=dict)
    ablations: Mapping[str, Metrics] = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    conversations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    vary_tools: Mapping[str, Any] = field(default_factory=dict)
    refit: Mapping[str, Any] = field(default_factory=dict)
    variations: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    layers: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    effects: Mapping[int, Effect] = field(default_factory=dict)
    screen: Trials = field(default_factory=Trials)
    valid: Trials = field(default_factory=Trials)
    chosen: Mapping[str, float] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    cosines: tuple[tuple[float, ...], ...] = ()
    marker: Marker | None = None
    why: str | None = None
    router_left_out: str | None = None
    success_note: str | None = None
    chosen_again: float | None = None
    controls: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[str, Mapping[str, list[int]]] = field(default_factory=dict)
    demonstration: Mapping[str, Any] = field(default_factory=dict)
    habit: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, report: Mapping[str, Any] | None) -> "Report":
        """The sound part of a report; an empty `Report` for an empty one, or none."""
        found = next(sound(report, SCHEMA))
        chosen, diagnostics = found["chosen"], found["diagnostics"]
        cosines = diagnostics["domain_cosines"]
        layers = {int(name): layer for name, layer in found["layers"].items() if _INDEX.fullmatch(name)}
        return cls(
            evaluations={split: _read_comparison(part) for split, part in found["evaluations"].items()},
            layers={layer: _read_numbers(part) for layer, part in layers.items() if "probe_auc" in part},
            effects={layer: Effect(**part["effect"]) for layer, part in layers.items() if "effect" in part},
            screen=_read_trials(found["screen"], chosen),
            valid=_read_trials(found["valid"], chosen),
            chosen=_read_numbers(chosen),
            domains=tuple(name for name in found["domains"] if isinstance(name, str)),
            cosines=tuple(map(tuple, cosines)) if all(len(row) == len(cosines) for row in cosines) else (),
            marker=_read_marker(diagnostics["marker_probability"]) if "marker_probability" in diagnostics else None,
            why=chosen.get("why"),
            router_left_out=found.get("router_left_out"),
            **{name: found["valid"].get(name) for name in ("success_note", "chosen_again")},
            habit=found["habit"] if found["habit"].get("calls") and found["habit"].get("shares") else {},
            **{name: found[name] for name in _WHOLE},
        )


_WHOLE = (
    *("ablations", "controls", "conversations", "demonstration", "gates", "rules", "splits"),
    *("vary_tools", "refit", "variations", "arguments", "versions", "seconds", "samples", "metadata"),
)
_INDEX = re.compile("[0-9]{1,5}")


def _read_numbers(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if type(value) is float}


def _read_comparison(found: Mapping[str, Any]) -> Comparison:
    by_domain = {name: _read_intervals(part) for name, part in found["by_domain"].items()}
    return Comparison(found["base"], found["asa"], _read_intervals(found), found.get("mcnemar_p"), by_domain)


def _read_intervals(found: Mapping[str, Any]) -> Intervals:
    return {
        name: {ratio: (low, high) for ratio, (low, high) in part.items() if low <= high}
        for name, part in found["intervals"].items()
        if name in ("base", "asa", "gain")
    }


def _read_trials(found: Mapping[str, Any], chosen: Mapping[str, Any]) -> Trials:
    base = found.get("base")
    leaders, front, finalists = (found.get(name, []) for name in ("best_of_each_layer", "front", "finalists"))
    names = {"layer", "alpha", "tau", "beta", "probe", "read_layers", "action", "bias", "by_state"}
    setting = {name: value for name, value in chosen.items() if name in names}
    own = (p for p in (*leaders, *front, *finalists) if {n: v for n, v in p.items() if n in names} == setting)
    return Trials(
        base=_read_point(base),
        choice=_read_point(base if chosen.get("abstains") is True else next(own, None)),
        points=tuple(filter(None, [*sorted(filter(None, map(_read_point, front))), *map(_read_point, finalists)])),
        alpha_tau=tuple(Cell(**cell) for cell in found.get("alpha_tau", []) if len(cell) == len(Cell._fields)),
        best=_read_numbers(leaders[0]) if leaders else {},
    )


def _read_point(found: Mapping[str, Any] | None) -> Point | None:
    return Point(found["fpr"], found["recall"]) if found and found.keys() >= set(Point._fields) else None


def _read_marker(found: Mapping[str, Any]) -> Marker:
    names = [name for name in SERIES if len(found[name]) == len(found["alphas"])]
    rows = sorted(zip(found["alphas"], *(found[name] for name in names), strict=True), key=lambda row: row[0])
    alphas, *series = zip(*rows, strict=True)
    return Marker(found["base"], alphas, dict(zip(names, series, strict=True)))
