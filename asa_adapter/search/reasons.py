"""What the report says of the settings that generated on VALID, and what is wrong with how they did."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.choice.gain import Gain
from asa_adapter.choice.intervals import effective_rows, upper_bound
from asa_adapter.choice.objective import Objective
from asa_adapter.choice.settings import Scored, Setting
from asa_adapter.choice.success_gain import Success
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.rows import DEFAULT_DOMAIN
from asa_adapter.tool_calls.outcomes import Outcome, cut_note

# Share of VALID rows on which first token and generation must agree, or the screen has ranked something else.
_AGREES = 0.95
# Share of the best layer's AUC beyond chance from which the screen tries a layer.
_READS_ENOUGH = 0.75


def router_note(predicted: Sequence[str], domains: Sequence[str], groups: NDArray[np.int64], layer: int) -> str:
    """Why a router is left out: it is no better than naming the largest domain every time; "" where it is better.

    Args:
        predicted: (N,) the domains that the router chose on VALID.
        domains: (N,) the domains of these rows.
        groups: (N,) numbers; rows with the same number belong together.
        layer: the layer of the router.
    """
    hits = np.asarray(predicted) == np.asarray(domains)
    largest, count = Counter(domains).most_common(1)[0]
    share = count / len(domains)
    lower = 1 - float(upper_bound(1 - hits.mean(), effective_rows(hits, groups)))
    if lower > share:
        return ""
    return (
        f"the router is no better than chance: at layer {layer}, which reads the need best, it finds the domain of "
        f"{hits.mean():.3f} of the VALID rows (at least {lower:.3f} with 95 % confidence), and {share:.3f} of them "
        f"are of the domain {largest!r}. It is left out: all rows are fitted as one domain, {DEFAULT_DOMAIN!r}, with "
        "one probe"
    )


def success_note(success: Success) -> str:
    """What to say first of an adapter whose triggers surely gain: "" where successful calls do too."""
    if success.sure:
        return ""
    return (
        f"With this adapter the model calls tools better, but no gain in calls that succeed is sure: {success}. Read "
        "some of its calls before you use it (asa-adapter generate --compare); more rows may make it sure"
    )


def reason_to_abstain(
    args: ASATrainingArguments, objective: Objective, chosen: Scored, gain: Gain, success: Success
) -> str:
    """Why the chosen setting does not ship; "" where it does."""
    if objective.max_fpr is not None and chosen.score < 0:
        return f"no setting tried had {objective.limit} on VALID; the adapter abstains"
    if not gain.sure:
        doubt, rows = gain.doubt(objective.gain_name), len(chosen.triggered)
        if needed := gain.rows_needed(rows):
            doubt += (
                f"; {gain.apparent:+.3f} was measured on the {rows} rows of VALID, and would be sure on about "
                f"{needed}: give VALID that many in a file of its own, valid.jsonl"
            )
        return f"no gain over the bare model on VALID is sure: {doubt}; the adapter abstains"
    if success.falls:
        return f"its triggers gain, and its calls lose: {success}; the adapter abstains"
    if args.success_required and not success.sure:
        return (
            f"its triggers gain, but no gain in calls that succeed is sure, and success_required is set: {success}; "
            "the adapter abstains"
        )
    return ""


def rejected_in_words(base: Mapping[str, Any], reached: Mapping[str, Any]) -> str:
    """What the setting that does not ship did on VALID, by the metrics there of the bare model and of itself."""
    words = {"recall": "recall", "fpr": "FPR"}
    changes = [f"{word} {base[name]:.3f} -> {reached[name]:.3f}" for name, word in words.items()]
    return f"On VALID it would have meant {', '.join(changes)}"


def reason_to_choose(setting: Setting, tried: int, train_rows: int, objective: Objective, gain: Gain) -> str:
    """Why a setting was chosen among as many as were tried, and how much it gains.

    Args:
        setting: the setting.
        tried: number of finalists.
        train_rows: number of rows of TRAIN that counted in the choice; 0 where VALID alone did.
        objective: what they were ranked by.
        gain: over the bare model, on VALID.
    """
    least = f"at least {gain.lower_bound:+.3f} with 95 % confidence ({objective.gain_name})"
    told = f"{gain.mean:+.3f}, {least}"
    if gain.mean <= gain.lower_bound:  # the estimate ends at the bound, which a reader would take for the gain
        told = f"{least} (measured: {gain.apparent:+.3f}; so few rows do not tell how much of it is luck)"
    where = "of real generation on VALID"
    if train_rows:
        where += f" and of first tokens on {train_rows} rows of TRAIN"
    return (
        f"{_how_it_acts(setting)}the gentlest of {tried} finalists within one standard error of the best, ranked by "
        f"{objective} {where}; the gain over the bare model on VALID, freed of the luck of being chosen, is {told}"
    )


def _how_it_acts(setting: Setting) -> str:
    """How a setting acts, to begin a sentence with; "" where it just steers."""
    if setting.action == "steer":
        return ""
    step = "a step and " if setting.action == "both" else ""
    return f"{step}a bias of {setting.bias:g} on the logits with which calls begin: "


def why_cut_on_valid(outcomes: Sequence[Outcome], max_new_tokens: int) -> str:
    """What to say of answers that were cut, those of the bare model first; "" where they are few."""
    names = ["the bare model", *(f"finalist {i}" for i in range(1, len(outcomes)))]
    shares = {f"{name} on VALID": float(one.cut.mean()) for name, one in zip(names, outcomes, strict=True)}
    return cut_note(shares, max_new_tokens)


def why_screen_is_unsure(agreements: Sequence[float], others: int) -> str:
    """What to say where first tokens told too little of what was generated; "" where they told enough."""
    if min(agreements) >= _AGREES:
        return ""
    found = (
        f"the first token of the answer tells on only {min(agreements):.0%} of the VALID rows whether the model calls "
        f"a tool (expected {_AGREES:.0%}): the screen's ranking, which is by first tokens, is unsure. "
    )
    return found + (
        f"{others} further settings generate on VALID"
        if others
        else "No further setting is there to generate with; try more layers or alphas"
    )


def why_unreadable(aucs: Mapping[int, float]) -> dict[int, str]:
    """Why the screen leaves layers out, by layer: those whose AUC beyond chance is below 3/4 of the best layer's.

    Args:
        aucs: AUC of each layer's probe on TRAIN, out of fold.
    """
    least = max(0.0, (max(aucs.values()) - 0.5) * _READS_ENOUGH)
    poor = {layer: found for layer, found in aucs.items() if found - 0.5 < least}
    if len(poor) == len(aucs):  # no layer is better than chance, so none is worse than the others
        return {}
    return {
        layer: f"its probe's AUC on TRAIN is {found:.3f}, out of fold; the screen tries layers from "
        f"{0.5 + least:.3f} on"
        for layer, found in poor.items()
    }
