"""What model card and inspection read of report.json: every key they know, in one place.

A report may come from a stranger's repository. Whatever in it is missing, or not of the expected kind, is left out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COUNTS = ("n", "tp", "fp", "fn", "tn")
RATIOS = ("precision", "recall", "f1", "accuracy", "fpr")
GOLD = ("n", "match", "in_order")
VALIDITY = ("format", "tool_name", "arguments", "success_precision", "success_recall")

Metrics = Mapping[str, Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """The bare model and the steered one on one split.

    Attributes:
        base: metrics as `trigger_metrics` gives them, with `per_domain`, `validity` and `gold` where they are there.
        asa: the same, steered.
        intervals: 95 % intervals by "base", "asa" and "gain" (asa minus base), then by ratio.
        mcnemar_p: p value of the exact McNemar test on which prompts were decided rightly.
    """

    base: Metrics
    asa: Metrics
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    mcnemar_p: float | None = None


@dataclass(frozen=True)
class Findings:
    """The sound part of a report.

    Attributes:
        evaluations: `evaluations[split]` with `base`, `asa`, and optionally `intervals` and `mcnemar_p`.
        ablations: `ablations[name]`, metrics on TEST of variants of the adapter.
        splits: `splits[name]` with `rows` and `tool_needed`.
        layers: `layers[number]` with `probe_auc` and `shuffled_auc`.
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
    why: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, report: Mapping[str, Any] | None) -> "Findings":
        """Reads a report; an empty one, or none, gives empty findings."""
        found = report or {}
        comparisons = {split: _comparison(value) for split, value in _dict(found.get("evaluations")).items()}
        ablations = {name: _metrics(value) for name, value in _dict(found.get("ablations")).items()}
        splits = {name: _dict(value) for name, value in _dict(found.get("splits")).items()}
        layers = {name: _numbers(value) for name, value in _dict(found.get("layers")).items()}
        why = _dict(found.get("chosen")).get("why")
        return cls(
            evaluations={split: value for split, value in comparisons.items() if value is not None},
            ablations={name: value for name, value in ablations.items() if value is not None},
            splits={n: v for n, v in splits.items() if _is_count(v.get("rows")) and _is_count(v.get("tool_needed"))},
            layers={int(name): value for name, value in layers.items() if _is_index(name) and "probe_auc" in value},
            why=why if isinstance(why, str) else None,
            arguments=_dict(found.get("arguments")),
            versions={name: v for name, v in _dict(found.get("versions")).items() if isinstance(v, str)},
            seconds=_numbers(found.get("seconds")),
            metadata=_metadata(_dict(found.get("metadata"))),
        )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**12


def _is_index(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 6


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _numbers(value: Any) -> dict[str, float]:
    return {name: float(number) for name, number in _dict(value).items() if _is_number(number)}


def _metrics(value: Any) -> Metrics | None:
    """Trigger metrics whose counts and ratios are all there; None for anything else."""
    value = _dict(value)
    if not all(_is_count(value.get(key)) for key in COUNTS):
        return None
    if not all(_is_number(value.get(key)) and 0 <= value[key] <= 1 for key in RATIOS):
        return None
    per_domain = {name: _metrics(part) for name, part in _dict(value.get("per_domain")).items()}
    validity, gold = _numbers(value.get("validity")), _numbers(value.get("gold"))
    return {
        **{key: value[key] for key in (*COUNTS, *RATIOS)},
        "per_domain": {name: part for name, part in per_domain.items() if part is not None},
        "validity": validity if set(VALIDITY) <= validity.keys() else {},
        "gold": gold if set(GOLD) <= gold.keys() else {},
    }


def _comparison(value: Any) -> Comparison | None:
    value = _dict(value)
    base, asa = _metrics(value.get("base")), _metrics(value.get("asa"))
    if base is None or asa is None:
        return None
    p = value.get("mcnemar_p")
    intervals = {
        name: {ratio: found for ratio in RATIOS if (found := _interval(_dict(part).get(ratio))) is not None}
        for name, part in _dict(value.get("intervals")).items()
        if name in ("base", "asa", "gain")
    }
    return Comparison(base, asa, intervals, float(p) if _is_number(p) and 0 <= p <= 1 else None)


def _interval(value: Any) -> Interval | None:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_number, value)):
        return None
    return (float(value[0]), float(value[1])) if value[0] <= value[1] else None


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
