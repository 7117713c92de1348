"""The weak spots of an adapter, in plain words, found in the numbers of its report."""

from collections.abc import Iterator, Mapping
from typing import Any

from scipy.stats import binomtest

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.report import Comparison, Report
from asa_adapter.report_schema import VARIATIONS
from asa_adapter.summary.markdown import escaped
from asa_adapter.summary.verdict_in_words import ONE_ANSWER
from asa_adapter.tool_calls.outcomes import MANY_CUT, WHAT_CUT_COUNTS_AS

# Below these, a ratio moves by several points with each prompt.
_FEW_PROMPTS = 200
_FEW_IN_DOMAIN = 40
_WEAK_AUC = 0.8
_ODD_CONTROL = 0.1
_GOOD_CALLS = 0.9
_FITTING = 0.98  # share of the needed calls that succeed, from which on the precision of calls tells it all
_SAME_TOOLS = 0.95
_HARDLY_ANY = 0.1
_AS_GOOD = 0.03  # of AUC
_SETTLED = 0.5
# Chance that so many more rows are lost than won by other lists of tools, below which it is no luck.
_LUCK = 0.05

_LISTS = {
    "shuffled": "tools in another order",
    "thinned": "two tools only, or hardly more,",
    "wrapped": "tools that are wrapped otherwise (such as servers render them)",
}


def weaknesses(config: ASAConfig, report: Report) -> list[str]:
    """One sentence or two for each weak spot, as Markdown; the most telling first."""
    acts = not config.abstains
    measured = [one for one in report.evaluations.items() if one[0] == "test" or "test" not in report.evaluations]
    varied = [one for one in report.variations.items() if one[0] == "test" or not report.variations.get("test")]
    found = [spot for split, one in measured for spot in (*_cut_weaknesses(one, split), *_losses(one, split))]
    if acts:
        for split, one in measured:
            found += [*_one_answer(one, split), *_call_weaknesses(one, split), *_changed_tools(one, split)]
        found += _unsettled_choice(report)
        found += [spot for split, lists in varied for spot in _tool_weaknesses(lists, split)]
    found += _weakness_beside_words(report)
    found += [spot for split, one in measured for spot in (*_overall_doubts(one, split), *_domain_doubts(one, split))]
    return [*found, *_reading_weaknesses(config, report), *_data_weaknesses(report)]


def _losses(comparison: Comparison, split: str) -> Iterator[str]:
    """Where it does worse than the model alone, on a split as a whole and in single domains."""
    base, asa, name = comparison.base, comparison.asa, escaped(split).upper()
    if asa["f1"] < base["f1"]:
        yield f"On {name} it does worse than the model alone: F1 {asa['f1']:.3f} against {base['f1']:.3f}."
    if asa["recall"] < base["recall"]:
        yield (
            f"It misses more calls that are needed than the model alone: recall {asa['recall']:.3f} against "
            f"{base['recall']:.3f} on {name}."
        )
    for domain, (before, after) in _by_domain(comparison).items():
        if after["f1"] < before["f1"]:
            yield (
                f"In the domain {escaped(domain)} it does worse than the model alone: F1 {after['f1']:.3f} against "
                f"{before['f1']:.3f}."
            )


def _by_domain(comparison: Comparison) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """The metrics of the bare and of the steered model in each domain that both have."""
    base, asa = comparison.base["per_domain"], comparison.asa["per_domain"]
    return {domain: (base[domain], asa[domain]) for domain in asa if domain in base}


def _overall_doubts(comparison: Comparison, split: str) -> Iterator[str]:
    """What a split's numbers leave open."""
    asa, name = comparison.asa, escaped(split).upper()
    without_need = asa["fp"] + asa["tn"]
    if without_need:
        below = binomtest(asa["fp"], without_need, alternative="less")
        bound = below.proportion_ci(0.95, method="wilson").high
        yield (
            f"{asa['fp']} of the {without_need} {name} prompts that need no tool still got a call; with so many "
            f"prompts, the true rate is below {bound:.3f} with 95 % confidence."
        )
    if asa["n"] < _FEW_PROMPTS:
        yield f"{name} has {asa['n']} prompts only: expect its numbers to be some points off."


def _domain_doubts(comparison: Comparison, split: str) -> Iterator[str]:
    """The weakest of the domains, and those with few prompts."""
    asa = {domain: after for domain, (_, after) in _by_domain(comparison).items()}
    if len(asa) > 1:
        weakest = min(asa, key=lambda domain: asa[domain]["f1"])
        yield f"Its weakest domain is {escaped(weakest)}, with F1 {asa[weakest]['f1']:.3f}."
    few = [f"{escaped(domain)} ({asa[domain]['n']})" for domain in asa if asa[domain]["n"] < _FEW_IN_DOMAIN]
    if few and len(asa) > 1:
        yield f"Few {escaped(split).upper()} prompts stand behind the numbers of these domains: {', '.join(few)}."


def _call_weaknesses(comparison: Comparison, split: str) -> Iterator[str]:
    """Weak spots of the calls themselves."""
    validity = comparison.asa["validity"]
    if validity and validity["success_precision"] < _HARDLY_ANY:
        yield (
            f"Hardly any of its calls can be used: {validity['success_precision']:.3f} of those on "
            f"{escaped(split).upper()} were needed, could be read, named an offered tool and fitted its schema "
            f"({comparison.base['validity'].get('success_precision', 0.0):.3f} of the model's alone). Look at what it "
            "calls before you use it."
        )
    elif validity and validity["success_precision"] < min(_GOOD_CALLS, _FITTING * comparison.asa["precision"]):
        yield (
            f"A call that begins is not yet a good call: {validity['success_precision']:.3f} of those on "
            f"{escaped(split).upper()} were needed, could be read, named an offered tool and fitted its schema."
        )


def _changed_tools(comparison: Comparison, split: str) -> Iterator[str]:
    """Calls that both models make, of which the steered ones name other tools."""
    same = comparison.asa["validity"].get("same_tool", 1.0)
    if same < _SAME_TOOLS:
        yield (
            f"The push changes more than whether a call begins: of the {escaped(split).upper()} prompts that get a "
            f"call without it too, {100 * (1 - same):.0f} % get one of another tool. Compare some before you use it."
        )


def _one_answer(comparison: Comparison, split: str) -> Iterator[str]:
    """Words in place of calls that are the same for many prompts."""
    share = comparison.asa["validity"].get("one_answer", 0.0)
    if share >= ONE_ANSWER:
        yield (
            f"A call that is gone is not yet a good answer: {100 * share:.0f} % of the {escaped(split).upper()} "
            "prompts whose call is gone get one and the same answer, which may be a refusal."
        )


def _cut_weaknesses(comparison: Comparison, split: str) -> Iterator[str]:
    """Answers that were cut, which is a weak spot of the numbers."""
    share = max(part.get("cut_share", 0.0) for part in (comparison.base, comparison.asa))
    if share > MANY_CUT:
        yield (
            f"Up to {100 * share:.0f} % of the answers on {escaped(split).upper()} ran out of tokens "
            f"(`max_new_tokens`) before a call was complete. {WHAT_CUT_COUNTS_AS}"
        )


def _tool_weaknesses(varied: Mapping[str, Mapping[str, Any]], split: str) -> Iterator[str]:
    """Lists of tools by which the gate loses more rows than by chance."""
    for name, found in ((name, varied[name]) for name in VARIATIONS if name in varied):
        lost, won = int(found["lost"]), int(found["won"])
        if lost <= won or binomtest(lost, lost + won, alternative="greater").pvalue >= _LUCK:
            continue
        prompts = f"{found['rows']} {escaped(split).upper()} prompts"
        if name == "without":
            yield (
                f"It looks little at which tools are there: without the tool that is needed its gate is still +1 on "
                f"{found['called']:.3f} of {prompts} ({found['given_called']:.3f} with it)."
            )
        else:
            yield (
                f"With {_LISTS[name]} its gate is right on {found['right']:.3f} of {prompts}, against "
                f"{found['given_right']:.3f} with the tools as they were given."
            )


def _weakness_beside_words(report: Report) -> Iterator[str]:
    """Where the words of a prompt tell as much as the state."""
    for split, found in report.controls.items():
        words, state = found.get("bag_of_words", {}).get("auc"), found.get("probe_auc")
        if words is not None and state is not None and words > max(state - _AS_GOOD, _WEAK_AUC):
            yield (
                f"Words alone tell the need nearly as well as the model's state: on {escaped(split).upper()} a bag of "
                f"words has an AUC of {words:.3f}, the probe {state:.3f}. The labels may follow the wording, and a "
                "simpler rule may do."
            )


def _unsettled_choice(report: Report) -> Iterator[str]:
    """Where other rows of the same kind would have led to another choice."""
    if report.chosen_again is not None and report.chosen_again < _SETTLED:
        yield (
            f"Its setting is not settled: it is chosen again in {100 * report.chosen_again:.0f} % of resamples, "
            "so that other rows, or another seed, may choose another one."
        )


def _reading_weaknesses(config: ASAConfig, report: Report) -> Iterator[str]:
    """Weak spots in how the need can be read at the steered layer."""
    if report.router_left_out:
        yield f"It tells no domains apart: {escaped(report.router_left_out)}."
    layer = report.layers.get(config.layer, {})
    auc, control = layer.get("probe_auc"), layer.get("shuffled_auc")
    if auc is not None and auc < _WEAK_AUC:
        yield f"The need for a tool is hard to read at its layer: the probe's AUC on VALID is {auc:.3f}."
    if control is not None and abs(control - 0.5) > _ODD_CONTROL:
        yield f"A probe for shuffled labels has an AUC of {control:.3f} there, which should be 0.5: the data is small."


def _data_weaknesses(report: Report) -> Iterator[str]:
    """What is weak in the data that router and probes were fitted on."""
    # Reports that tell of varied tools are of fits on CAL and TRAIN; before them there were some on TRAIN alone.
    names = ("cal", "train", "valid") if report.refit else ("cal", "train") if report.vary_tools else ("train",)
    known = [report.splits[name] for name in names if name in report.splits]
    rows = f"{sum(split['rows'] for split in known)} labelled prompts" if known else "labelled prompts"
    labels = report.metadata.get("labels")
    by = f"labelled by {escaped(labels).rstrip('.')}" if labels else "by whom they were labelled is not recorded"
    yield f"Router and probes are fitted on {rows} ({by}); a wrong label there is a wrong decision here."
    licence = report.metadata.get("data_license")
    if licence:
        yield f"The data's licence: {escaped(licence).rstrip('.')}."
    else:
        yield "The licence of the data is not recorded: ask before you use the adapter where that matters."
