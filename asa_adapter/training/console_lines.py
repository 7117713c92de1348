"""What a training says on stderr: what it understood before the work, and a line for each stage when it is done."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import readers_to_try, setting_grid
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.rows import Row, row_domain, row_tools
from asa_adapter.modeling.progress import time_in_words
from asa_adapter.notations.tool_schemas import Tools, tool_names
from asa_adapter.report_schema import VARIATIONS
from asa_adapter.summary.markdown import VARIED
from asa_adapter.summary.setting_in_words import setting_words

_MOST_NAMES = 8


def lines_before_training(
    splits: Mapping[str, Sequence[Row]],
    notes: Mapping[str, str],
    tools: Tools | None,
    args: ASATrainingArguments,
    layers: Sequence[int],
    seconds: float,
) -> list[str]:
    """What a run was given and will do, a line each.

    Args:
        splits: rows by name of the split.
        notes: how the splits were made ("splits") and where tools are from ("tools"), where that is known.
        tools: those for rows that have none.
        args: the training arguments.
        layers: indices of the decoder blocks to try.
        seconds: how long it is likely to take.
    """
    rows = [row for part in splits.values() for row in part]
    parts = ", ".join(f"{name} {len(part)} ({_rows_in_need(part)})" for name, part in splits.items())
    domains = Counter(row_domain(row) for row in rows)
    settings = sum(1 for _ in setting_grid(args, readers_to_try(args, layers)))
    facts = {
        "rows": f"{len(rows)}, of which {_rows_in_need(rows)} need a tool: {parts}",
        "splits": notes.get("splits", "as given"),
        "domains": f"{len(domains)}: {_first_names([f'{name} {count}' for name, count in domains.most_common()])}",
        "tools": _tools_told(rows, tools, notes.get("tools")),
        "settings": (
            f"{settings} at {len(layers)} layers, ranked by {Objective.of(args)} of first tokens on TRAIN; the best "
            f"{args.finalists} answer VALID, which decides, with up to {args.max_new_tokens} tokens"
        ),
        "time": (
            f"{time_in_words(seconds)} to {time_in_words(2 * seconds)} if little else runs here; TEST comes on "
            "top (a rough estimate)"
        ),
    }
    return [f"{name:<8}  {text}" for name, text in facts.items()]


def _rows_in_need(rows: Sequence[Row]) -> int:
    return sum(int(row["label"]) for row in rows)


def _first_names(names: Sequence[str]) -> str:
    """The first of some names for a line, and how many more there are."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _tools_told(rows: Sequence[Row], tools: Tools | None, note: str | None) -> str:
    """What a line tells of the offered tools: their names, the most frequent first, and where they came from."""
    offered = [row_tools(row, tools) or [] for row in rows]
    names = Counter(name for some in offered for name in tool_names(some))
    own = sum(row.get("tools") is not None for row in rows)
    sources = []
    if note or own:
        sources.append(note or f"{own} rows have their own")
    if tools and own < len(rows):
        sources.append(f"{len(rows) - own} rows take those that were given")
    if without := sum(not some for some in offered):
        sources.append(f"{without} rows offer none")
    return f"{_first_names([name for name, _ in names.most_common()]) or 'none'} ({'; '.join(sources)})"


def _habit_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "habit" tells."""
    habit = report["habit"]
    return f"{habit['calls']} of {habit['answers']} answers are calls, as {report['tool_call_format']}"


def _states_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "states" tells."""
    rows = sum(report["splits"][name]["rows"] for name in ("cal", "train", "valid"))
    return f"{rows} prompts read"


def _variations_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "variations" tells."""
    told = report["vary_tools"]
    fitted = f"{told['rows']} rows with other lists are fitted on too" if told["fitted"] else "no such rows are added"
    return f"{fitted} ({told['why']})"


def _fit_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "fit" tells."""
    aucs = {layer: facts["out_of_fold_auc"] for layer, facts in report["layers"].items() if "out_of_fold_auc" in facts}
    best = max(aucs, key=lambda layer: aucs[layer])
    found = f"layer {best} reads the need best (AUC {aucs[best]:.3f}; 0.5 is chance)"
    if report.get("router_left_out"):
        return f"{found}; domains cannot be told apart, so there is one"
    if len(report["domains"]) > 1:
        found += f"; of {len(report['domains'])} domains the right one for "
        found += f"{100 * report['layers'][best]['router_accuracy']:.0f} % of VALID"
        found += f" ({100 / len(report['domains']):.0f} % by chance)"
    return found


def _screen_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "screen" tells."""
    screen = report["screen"]
    best = screen["best_of_each_layer"][0]
    return (
        f"those that fell behind were dropped, {screen['settings']} ran on all of TRAIN; the best reaches F1 "
        f"{best['f1']:.3f} by first tokens, the model alone {screen['base']['f1']:.3f}"
    )


def _generation_line(report: Mapping[str, Any]) -> str:
    """What the line of the stage "generation" tells."""
    chosen, valid = report["chosen"], report["valid"]
    words = setting_words(chosen)
    if not valid:
        return f"none were needed: {words}"
    best = max(one["f1"] for one in valid["finalists"])
    reached = f"the best of {len(valid['finalists'])} settings reached F1 {best:.3f}"
    found = reached if chosen["abstains"] else f"F1 {chosen['valid']['f1']:.3f}"
    again = "; then fitted once more with VALID's rows" if report.get("refit") and not chosen["abstains"] else ""
    return f"{words}; {found}, the model alone {valid['base']['f1']:.3f}{again}"


# The stages in their order: what each is called, and what came out of it.
_STAGES: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "habit": ("how the model writes calls", _habit_line),
    "states": ("hidden states", _states_line),
    "variations": ("other lists of tools", _variations_line),
    "fit": ("router and probes", _fit_line),
    "screen": ("settings ranked on TRAIN", _screen_line),
    "generation": ("whole answers on VALID", _generation_line),
    "diagnostics": (
        "what each length of push does",
        lambda report: f"at layer {report['diagnostics']['layer']}",
    ),
}


_LATER = re.compile(
    r"(evaluation|conversations|ablations|variations) \((\w+)\)"
)  # those behind the training, on one split


def _later_stage_in_words(stage: re.Match[str]) -> str:
    """The name of a stage behind the training, for its line."""
    what = {
        "evaluation": "whole answers",
        "conversations": "whole conversations",
        "ablations": "the adapter without its parts, and simpler rules",
        "variations": "the gate beside other lists of tools",
    }
    return f"{what[stage[1]]} on {stage[2].upper()}"


def evaluation_line(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the line of an evaluation tells: the bare model's metrics, then the steered one's."""
    base, asa = results["base"], results["asa"]
    return (
        f"F1 {base['f1']:.3f} alone, {asa['f1']:.3f} with the adapter; of the prompts without need "
        f"{100 * base['fpr']:.0f} % get a call alone, {100 * asa['fpr']:.0f} % with it"
    )


def robustness_line(found: Mapping[str, Mapping[str, float]]) -> str:
    """How often a gate is right with other lists of tools, in words; `found` is what `Robustness.measure` gives."""
    if not found:
        return "no list of tools could be varied"
    worst = min(found, key=lambda name: found[name]["right"] - found[name]["given_right"])
    how = dict(zip(VARIATIONS, VARIED, strict=True))[worst]
    return (
        f"right on {100 * found[worst]['right']:.0f} % with tools {how}, where it loses most; on "
        f"{100 * found[worst]['given_right']:.0f} % of these as given"
    )


def stage_line(stage: str, report: Mapping[str, Any], seconds: float, told: Sequence[str] = ()) -> str:
    """One line about a stage that is done: its number, its name, what came out, and how long it took.

    Args:
        stage: its name, with the split for one behind the training.
        report: the report so far.
        seconds: how long it took.
        told: what came out, for a stage behind the training.
    """
    if stage not in _STAGES:
        return f"{': '.join([_LATER.sub(_later_stage_in_words, stage), *told])}; {seconds:.1f} s"
    name, result = _STAGES[stage]
    return f"{list(_STAGES).index(stage) + 1} of {len(_STAGES)}, {name}: {result(report)}; {seconds:.1f} s"
