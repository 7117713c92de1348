"""Whether to use an adapter: the one sentence that most readers want, for terminal and model card."""

from collections.abc import Mapping
from typing import Any

from asa_adapter.report import Comparison, Report
from asa_adapter.summary.comparison_in_words import success_f1

# Share of the prompts whose call is gone, from which on it is told that they get one and the same answer.
ONE_ANSWER = 0.2
_ABSTAINS = "Nothing to use yet: it abstains, and leaves the model as it is, since no gain on VALID was sure."


def verdict_in_words(report: Report, abstains: bool) -> str | None:
    """Whether an adapter is worth using, by TEST, and what it changes there; None where TEST was not measured.

    A gain is sure where the 95 % interval of F1's, or of accuracy's, lies above 0: an adapter that was chosen for few
    needless calls may gain in the latter alone. Calls are to be looked at first where VALID left in doubt that more of
    them succeed, and TEST does not say so either.
    """
    if abstains:
        return _ABSTAINS
    test = report.evaluations.get("test")
    if test is None:
        return None
    lead, sure = _lead_and_gain(test, bool(report.success_note) and not _success_rises(test))
    told = f"{lead}: {_calls_told(test.base, test.asa)}; F1 {test.base['f1']:.3f} -> {test.asa['f1']:.3f}{sure}."
    return told + _success_told(test.base, test.asa) + _sameness_told(test.asa["validity"])


def _success_rises(test: Comparison) -> bool:
    """Whether more of the needed calls succeed on TEST, or fewer of the others are made."""
    return bool(test.base["validity"] and test.asa["validity"]) and success_f1(test.asa) > success_f1(test.base)


def _lead_and_gain(test: Comparison, no_success: bool) -> tuple[str, str]:
    """What to do, in two or three words, and the interval that says so."""
    gains = {name: test.intervals.get("gain", {}).get(name) for name in ("f1", "accuracy")}
    known = {name: tuple(gain) for name, gain in gains.items() if gain is not None}
    above = [name for name, (low, _) in known.items() if low > 0]
    below = bool(known) and all(high < 0 for _, high in known.values())
    name = next(iter([*above, *known]), None)
    told = ""
    if name is not None:
        low, high = known[name]
        told = f", a gain of {low:+.3f} to {high:+.3f}" if name == "f1" else f", in accuracy {low:+.3f} to {high:+.3f}"
        told += " with 95 % confidence"
    if below:
        return "Better without it", told
    if no_success:
        return "Look at its calls first", told
    if above:
        return "Worth using", told
    return "Not sure yet", f"{told}, which chance alone may explain" if told else ", whose intervals were not measured"


def _calls_told(base: Mapping[str, Any], asa: Mapping[str, Any]) -> str:
    """How many of the prompts with and without need get a call, and how many without the adapter."""
    needed, others = (asa["tp"] + asa["fn"]), (asa["fp"] + asa["tn"])
    return (
        f"of {needed} TEST prompts that need a tool {asa['tp']} get a call ({base['tp']} without it), of {others} "
        f"others {asa['fp']} ({base['fp']})"
    )


def _success_told(base: Mapping[str, Any], asa: Mapping[str, Any]) -> str:
    """How many of the needed calls succeed, and how many without the adapter; "" where the answers were not kept."""
    if not base["validity"] or not asa["validity"]:
        return ""
    now, before = (round(one["validity"]["success_recall"] * (one["tp"] + one["fn"])) for one in (asa, base))
    return f" {now} of those that need a tool get a call of an offered one that fits its schema ({before} without it)."


def _sameness_told(validity: Mapping[str, Any]) -> str:
    """That many prompts get one answer in place of a call, which may be a refusal."""
    share = validity.get("one_answer", 0.0)
    if share < ONE_ANSWER:
        return ""
    return f" {100 * share:.0f} % of the prompts whose call is gone get one and the same answer: read it."
