"""Simpler rules beside steering, for model card and terminal: a table, and one sentence on whether it is worth it."""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.report_schema import RATIOS
from asa_adapter.summary.markdown import code, escaped, table

_SHOWN = {"base": "the model alone", "steering": "with ASA"}
_HEAD = ("rule", "F1", "gain (95 %)", "McNemar p", "FPR", "can be read", "offered tool", "success precision",
         "success recall", "the gold calls", "tokens read", "written", "ms")  # fmt: skip


def rules_markdown(rules: Mapping[str, Any]) -> str | None:
    """The table of a report's sound `rules`, and below it what VALID chose; None where there are none."""
    rows = rules.get("rows", {})
    if not rows:
        return None
    told = [f"- {code(name)}: {escaped(row['choice'])}" for name, row in rows.items() if row.get("choice")]
    told += [f"- {code(name)} was left out: {escaped(why)}" for name, why in rules.get("left_out", {}).items()]
    whole = table(_HEAD, [_row_of_rule(name, row) for name, row in rows.items()], numbers=len(_HEAD) - 1)
    return "\n".join([whole, *(["", "What VALID chose:", "", *told] if told else [])])


def ablations_markdown(
    ablations: Mapping[str, Any], names: Sequence[str] = RATIOS, first: str = "", own: str = "asa"
) -> str:
    """The table of a report's sound `ablations`: the adapter, then each variant and what it changes.

    Args:
        ablations: metrics by variant; the adapter itself is "full".
        names: heads of the columns of ratios.
        first: head of the column of variants.
        own: what the adapter itself is called.
    """
    ordered = {name: ablations[name] for name in ("full", *ablations) if name in ablations and name != "base"}
    rows = []
    for name, metrics in ordered.items():
        gain = metrics.get("against_full", {}).get("intervals", {}).get("gain", {}).get("f1")
        change = "" if gain is None else f"{gain[0]:+.3f} to {gain[1]:+.3f}"
        ratios = [f"{metrics[ratio]:.3f}" for ratio in RATIOS]
        rows.append([own if name == "full" else escaped(name), *ratios, change])
    return table([first, *names, "change of F1 (95 %)"], rows, numbers=len(RATIOS) + 1)


def comparison_text(ablations: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    """Both tables for a terminal, and the sentence, of a report's sound `ablations` and `rules`."""
    text = f"ABLATIONS\n{ablations_markdown(ablations)}\n\nSIMPLER RULES\n{rules_markdown(rules)}"
    return f"{text}\n\n{rules_verdict(rules)}"


def _row_of_rule(name: str, row: Mapping[str, Any]) -> list[str]:
    """A row of the table of rules."""
    metrics, sure, cost = row["metrics"], row.get("against_base", {}), row.get("cost", {})
    gain = sure.get("intervals", {}).get("gain", {}).get("f1")
    validity = metrics["validity"]
    worth = ("format", "tool_name", "success_precision", "success_recall")
    return [
        _SHOWN.get(name) or code(name),
        f"{metrics['f1']:.3f}",
        f"{gain[0]:+.3f} to {gain[1]:+.3f}" if gain else "",
        f"{sure['mcnemar_p']:.2g}" if "mcnemar_p" in sure else "",
        f"{metrics['fpr']:.3f}",
        *(f"{validity[key]:.3f}" if validity else "" for key in worth),
        f"{metrics['gold']['match']:.3f}" if metrics["gold"] else "",
        *(f"{cost[key]:.0f}" if key in cost else "" for key in ("read", "written", "milliseconds")),
    ]


def rules_verdict(rules: Mapping[str, Any]) -> str | None:
    """Whether steering is worth it beside the rule that is best on VALID, in one sentence; None if unknown."""
    rows, best = rules.get("rows", {}), str(rules.get("best"))
    gain = rules.get("steering_against_best", {}).get("intervals", {}).get("gain", {}).get("f1")
    if gain is None or best not in rows or "steering" not in rows:
        return None
    rule, steered = (rows[name]["metrics"] for name in (best, "steering"))
    low, high = rules.get("success_gain", (-1.0, 1.0))
    said = "Steering is worth it here" if gain[0] > 0 else "Steering and a simpler rule are not told apart here"
    if gain[1] < 0 or high < 0:
        said = "Steering is not worth it here"
    calls = ""
    if rule["validity"] and steered["validity"]:
        calls = f"; of calls that are needed and fit their schema {success_f1(steered):.3f} and {success_f1(rule):.3f}"
        calls += f", {low:+.3f} to {high:+.3f}" if "success_gain" in rules else ""
    return (
        f"{said}: F1 is {steered['f1']:.3f} with it and {rule['f1']:.3f} with {code(best)}, the simpler rule that is "
        f"best on VALID (difference {steered['f1'] - rule['f1']:+.3f}, 95 % {gain[0]:+.3f} to {gain[1]:+.3f}{calls}; "
        f"FPR {steered['fpr']:.3f} and {rule['fpr']:.3f})."
    )


def success_f1(metrics: Mapping[str, Any]) -> float:
    """F1 of successful calls, of metrics with a `validity`."""
    precision, recall = (metrics["validity"][f"success_{name}"] for name in ("precision", "recall"))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
