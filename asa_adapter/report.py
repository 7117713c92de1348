"""What model card, plots and inspection read of report.json: every key they know, in one place.

A report may come from a stranger's repository. Whatever in it is missing, or not of the expected kind, is left out.

What a trainer writes into report.json, version 1. `*` is any key, `[]` each entry of a list; every number is finite.
Names in capitals are groups of keys, listed at the end.

report_version                       | int     | 1
arguments.*                          | any     | the ASATrainingArguments
tool_call_format                     | text    | name of the format of the model's tool calls
splits.*.rows                        | int     | rows of cal, train, valid and test
splits.*.tool_needed                 | int     | how many of them have label 1
domains[]                            | text    | names, in the order of the directions
leaks[][]                            | text    | kind, first and second row of each pair that stands in two splits
blind_layers[]                       | int     | layers whose state is the same for every prompt
layers.*.probe_auc                   | number  | by layer: AUC on VALID of the probe for all domains; 0.5 if blind
layers.*.blind                       | bool    | there where the layer is blind
layers.*.shuffled_auc                | number  | AUC of probes of meaningless labels, which should be 0.5
layers.*.out_of_fold_auc             | number  | AUC on TRAIN, each row read by a probe that was fitted without it
layers.*.C                           | number  | inverse regularisation strength
layers.*.residual_norm               | number  | mean norm of the states on CAL: the unit of alpha
layers.*.router_accuracy             | number  | share of the VALID rows whose domain the router finds
layers.*.effect.alpha                | number  | length of the step that was tried
layers.*.effect.up                   | number  | change on TRAIN of the start marker's probability by a step up
layers.*.effect.down                 | number  | the same by a step down
screen.split                         | text    | "train": settings are ranked there by the answer's first token
screen.settings                      | int     | how many settings were ranked
screen.base.SCORES                   |         | the bare model
screen.best_of_each_layer[].SETTING  |         | the best setting of each layer, best first
screen.best_of_each_layer[].SCORES   |         | what it reached
screen.front[].SETTING               |         | settings with more recall than any with a lower FPR
screen.front[].recall                | number  | its recall
screen.front[].fpr                   | number  | its FPR
screen.alpha_tau[].alpha             | number  | the best setting with another alpha
screen.alpha_tau[].tau               | number  | and another tau
screen.alpha_tau[].score             | number  | its score
valid.base.SCORES                    |         | the bare model, by real generation on VALID
valid.finalists[].SETTING            |         | the settings that generated on VALID
valid.finalists[].SCORES             |         | what each reached
valid.finalists[].screen_score       | number  | its score in the screen
valid.finalists[].screen_agreement   | number  | share of VALID rows on which first token and generation agree
valid.finalists[].standard_error     | number  | of the difference between its score and the best
valid.gain.mean                      | number  | gain of the choice over the bare model, on rows that did not choose
valid.gain.lower_bound               | number  | its one-sided lower 95 % bound
chosen.SETTING                       |         | the choice; alpha 0 where it abstains
chosen.absolute_step                 | number  | length of the step in the model's own units
chosen.abstains                      | bool    | whether no gain was sure, so that the adapter does nothing
chosen.why                           | text    | how it was chosen
chosen.valid.SCORES                  |         | what it reached on VALID
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
controls.*.bag_of_words.COUNTED      |         | by split: a classifier that sees the words alone
controls.*.bag_of_words.auc          | number  | its AUC
controls.*.probe_auc                 | number  | AUC of the probe at the chosen layer
controls.*.shuffled_auc              | number  | of probes of meaningless labels
controls.*.router_accuracy           | number  | share of the rows whose domain the router finds
ablations.*.METRICS                  |         | by variant of the adapter, the bare model being "base"
versions.*                           | text    | of Python and packages
seconds.*                            | number  | by stage

SETTING  layer (int), alpha, tau, beta (numbers), probe (text)
SCORES   score, f1, recall, fpr, fpr_upper_bound_95 (numbers)
COUNTED  n, tp, fp, fn, tn (int), precision, recall, f1, accuracy, fpr (numbers)
METRICS  COUNTED, and per_domain.*.COUNTED, validity.*, gold.* (numbers)
SURE     intervals.*.*[] (95 %, of "base", "asa" and "gain" by ratio), mcnemar_p (numbers), only_base_right,
         only_asa_right (int)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asa_adapter.untrusted import as_dict, as_list, interval_of, is_count, is_index, is_within, numbers_of

COUNTS = ("n", "tp", "fp", "fn", "tn")
RATIOS = ("precision", "recall", "f1", "accuracy", "fpr")
GOLD = ("n", "match", "in_order")
VALIDITY = ("format", "tool_name", "arguments", "success_precision", "success_recall")

Metrics = Mapping[str, Any]
Interval = tuple[float, float]
Intervals = Mapping[str, Mapping[str, Interval]]


class Point(NamedTuple):
    """Where a setting, or the bare model, stands between calls without need and calls that were needed."""

    fpr: float
    recall: float


class Cell(NamedTuple):
    """What the screen gave one pair of alpha and tau, all else being as in the best setting."""

    alpha: float
    tau: float
    score: float


class Effect(NamedTuple):
    """Change of the start marker's probability, -1 to 1, by a step of length `alpha` up and down."""

    alpha: float
    up: float
    down: float


@dataclass(frozen=True)
class Comparison:
    """The bare model and the steered one on one split.

    Attributes:
        base: metrics as `trigger_metrics` gives them, with `per_domain`, `validity` and `gold` where they are there.
        asa: the same, steered.
        intervals: 95 % intervals by "base", "asa" and "gain" (asa minus base), then by ratio.
        mcnemar_p: p value of the exact McNemar test on which prompts were decided rightly.
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
        choice: the chosen setting, where its point is there; the bare model's where the adapter abstains.
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
    """The sound part of a report.

    Attributes:
        evaluations: `evaluations[split]` with `base`, `asa`, and optionally `intervals` and `mcnemar_p`.
        ablations: `ablations[name]`, metrics on TEST of variants of the adapter.
        splits: `splits[name]` with `rows` and `tool_needed`.
        layers: `layers[number]` with `probe_auc` and `shuffled_auc`.
        effects: `layers[number].effect`.
        screen: `screen`: `base`, `front`, `alpha_tau`, and the first of `best_of_each_layer`.
        valid: `valid`: `base` and `finalists`.
        chosen: the numbers of `chosen`: `layer`, `alpha`, `tau`, `beta`.
        domains: `domains`, their names in the order of `cosines`.
        cosines: `diagnostics.domain_cosines`, a row for each domain.
        marker: `diagnostics.marker_probability`.
        why: `chosen.why`, how the settings were chosen.
        arguments: `arguments`, the fields of the ASATrainingArguments.
        versions: `versions` by package.
        seconds: `seconds` by stage.
        metadata: `metadata`, what only the person who fitted it knows: `license` of the adapter, `datasets` (Hub ids),
            `language` codes, and in words `data_license` and `labels` (who or what labelled the data).
    """

    evaluations: Mapping[str, Comparison] = field(default_factory=dict)
    ablations: Mapping[str, Metrics] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    layers: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    effects: Mapping[int, Effect] = field(default_factory=dict)
    screen: Trials = field(default_factory=Trials)
    valid: Trials = field(default_factory=Trials)
    chosen: Mapping[str, float] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    cosines: tuple[tuple[float, ...], ...] = ()
    marker: Marker | None = None
    why: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, report: Mapping[str, Any] | None) -> "Report":
        """Reads a report; an empty one, or none, gives empty findings."""
        found = as_dict(report)
        comparisons = {split: _comparison(value) for split, value in as_dict(found.get("evaluations")).items()}
        ablations = {name: _metrics(value) for name, value in as_dict(found.get("ablations")).items()}
        splits = {name: as_dict(value) for name, value in as_dict(found.get("splits")).items()}
        layers = {int(name): as_dict(value) for name, value in as_dict(found.get("layers")).items() if is_index(name)}
        effects = {layer: _effect(value.get("effect")) for layer, value in layers.items()}
        chosen, diagnostics = as_dict(found.get("chosen")), as_dict(found.get("diagnostics"))
        domains, why = found.get("domains"), chosen.get("why")
        return cls(
            evaluations={split: value for split, value in comparisons.items() if value is not None},
            ablations={name: value for name, value in ablations.items() if value is not None},
            splits={n: v for n, v in splits.items() if is_count(v.get("rows")) and is_count(v.get("tool_needed"))},
            layers={layer: numbers_of(value) for layer, value in layers.items() if "probe_auc" in numbers_of(value)},
            effects={layer: effect for layer, effect in effects.items() if effect is not None},
            screen=_screen(as_dict(found.get("screen")), chosen),
            valid=_valid(as_dict(found.get("valid")), chosen),
            chosen=numbers_of(chosen),
            domains=tuple(name for name in as_list(domains) if isinstance(name, str)),
            cosines=_square(diagnostics.get("domain_cosines")),
            marker=_marker(as_dict(diagnostics.get("marker_probability"))),
            why=why if isinstance(why, str) else None,
            arguments=as_dict(found.get("arguments")),
            versions={name: v for name, v in as_dict(found.get("versions")).items() if isinstance(v, str)},
            seconds=numbers_of(found.get("seconds")),
            metadata=_metadata(as_dict(found.get("metadata"))),
        )


def _metrics(value: Any) -> Metrics | None:
    """Trigger metrics whose counts and ratios are all there; None for anything else."""
    value = as_dict(value)
    whole = _counts_and_ratios(value)
    if whole is None:
        return None
    per_domain = {name: _counts_and_ratios(as_dict(part)) for name, part in as_dict(value.get("per_domain")).items()}
    validity, gold = numbers_of(value.get("validity")), numbers_of(value.get("gold"))
    return {
        **whole,
        "per_domain": {name: part for name, part in per_domain.items() if part is not None},
        "validity": validity if set(VALIDITY) <= validity.keys() else {},
        "gold": gold if set(GOLD) <= gold.keys() else {},
    }


def _counts_and_ratios(value: Mapping[str, Any]) -> Metrics | None:
    counted = all(is_count(value.get(key)) for key in COUNTS)
    if not counted or not all(is_within(value.get(key), 0, 1) for key in RATIOS):
        return None
    return {key: value[key] for key in (*COUNTS, *RATIOS)}


def _comparison(value: Any) -> Comparison | None:
    value = as_dict(value)
    base, asa = _metrics(value.get("base")), _metrics(value.get("asa"))
    if base is None or asa is None:
        return None
    p = value.get("mcnemar_p")
    by_domain = {name: _intervals(as_dict(part)) for name, part in as_dict(value.get("by_domain")).items()}
    return Comparison(base, asa, _intervals(value), float(p) if is_within(p, 0, 1) else None, by_domain)


def _intervals(value: Mapping[str, Any]) -> Intervals:
    return {
        name: {ratio: found for ratio in RATIOS if (found := interval_of(as_dict(part).get(ratio))) is not None}
        for name, part in as_dict(value.get("intervals")).items()
        if name in ("base", "asa", "gain")
    }


def _screen(value: Mapping[str, Any], chosen: Mapping[str, Any]) -> Trials:
    leaders, front = as_list(value.get("best_of_each_layer")), as_list(value.get("front"))
    cells = [cell for part in as_list(value.get("alpha_tau")) if (cell := _cell(part)) is not None]
    return Trials(
        base=_point(value.get("base")),
        choice=_choice([*leaders, *front], value.get("base"), chosen),
        points=tuple(sorted(point for part in front if (point := _point(part)) is not None)),
        alpha_tau=tuple(cells),
        best=numbers_of(leaders[0]) if leaders else {},
    )


def _valid(value: Mapping[str, Any], chosen: Mapping[str, Any]) -> Trials:
    finalists = as_list(value.get("finalists"))
    return Trials(
        base=_point(value.get("base")),
        choice=_choice(finalists, value.get("base"), chosen),
        points=tuple(point for part in finalists if (point := _point(part)) is not None),
    )


def _choice(tried: Sequence[Any], base: Any, chosen: Mapping[str, Any]) -> Point | None:
    """Where the chosen setting stands among those tried; with an adapter that abstains, the bare model."""
    if chosen.get("abstains") is True:
        return _point(base)
    names = ("layer", "alpha", "tau", "beta", "probe")
    own = (part for part in map(as_dict, tried) if all(n in part and part[n] == chosen.get(n) for n in names))
    return next(map(_point, own), None)


def _point(value: Any) -> Point | None:
    numbers = _numbers_within(value, {"fpr": (0, 1), "recall": (0, 1)})
    return None if numbers is None else Point(*numbers)


def _cell(value: Any) -> Cell | None:
    numbers = _numbers_within(value, {"alpha": (0, 1000), "tau": (0, 1), "score": (-1, 1)})
    return None if numbers is None else Cell(*numbers)


def _effect(value: Any) -> Effect | None:
    numbers = _numbers_within(value, {"alpha": (0, 1000), "up": (-1, 1), "down": (-1, 1)})
    return None if numbers is None else Effect(*numbers)


def _numbers_within(value: Any, ranges: Mapping[str, tuple[float, float]]) -> list[float] | None:
    """The numbers under some keys; None where one is missing or out of its range."""
    found = as_dict(value)
    sound = all(is_within(found.get(name), low, high) for name, (low, high) in ranges.items())
    return [float(found[name]) for name in ranges] if sound else None


def _square(value: Any) -> tuple[tuple[float, ...], ...]:
    """A square matrix of cosines, which rounding may have made a little larger than 1; empty for anything else."""
    rows = [as_list(row) for row in as_list(value)]
    if not all(len(row) == len(rows) and all(is_within(number, -1.001, 1.001) for number in row) for row in rows):
        return ()
    return tuple(tuple(float(number) for number in row) for row in rows)


def _marker(value: Mapping[str, Any]) -> Marker | None:
    alphas, base = as_list(value.get("alphas")), _numbers_within(value, {"base": (0, 1)})
    if not alphas or not all(is_within(alpha, 0, 1000) for alpha in alphas) or base is None:
        return None
    order = sorted(range(len(alphas)), key=lambda i: alphas[i])
    series = {name: as_list(value.get(name)) for name in ("along", "against", "random")}
    return Marker(
        base[0],
        tuple(float(alphas[i]) for i in order),
        {
            name: tuple(float(numbers[i]) for i in order)
            for name, numbers in series.items()
            if len(numbers) == len(alphas) and all(is_within(number, 0, 1) for number in numbers)
        },
    )


def _metadata(value: Mapping[str, Any]) -> dict[str, Any]:
    """Texts under their keys, lists of texts under theirs."""
    texts = {key: value.get(key) for key in ("license", "data_license", "labels")}
    lists = {key: value.get(key) for key in ("datasets", "language")}
    lists = {key: [part] if isinstance(part, str) else part for key, part in lists.items()}
    return {
        **{key: text for key, text in texts.items() if isinstance(text, str) and text},
        **{
            key: part
            for key, part in lists.items()
            if isinstance(part, list) and part and all(isinstance(item, str) and item for item in part)
        },
    }
