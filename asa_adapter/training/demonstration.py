"""What a model card shows first: a sample prompt, answered by the model alone and with the adapter."""

from collections.abc import Sequence
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.data.rows import last_request
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.summary.changed_answers import ChangedAnswer, changed_answers
from asa_adapter.verification.samples import Sample, neutral_samples

_NAME = "demonstration"


def demonstration(measured: Measurements, adapter: ASAAdapter, samples: Sequence[Sample]) -> dict[str, Any]:
    """Asks the sample prompts, with their tools or else the adapter's own, bare and steered.

    Args:
        measured: asks the model, and keeps the answers as a stage.
        adapter: the adapter.
        samples: the package's own prompts, or those that the user named.

    Returns:
        What the report says under `demonstration`: how many were asked, for how many the adapter changed whether a
        call begins, and the first of these, else the first of all; and that the user named them, if so. Empty where
        the adapter abstains or there are no tools.
    """
    rows = [
        {"messages": sample.messages, "label": 0, "tools": tools}
        for sample in samples
        if (tools := sample.tools or adapter.config.tools)
    ]
    if adapter.config.abstains or not rows:
        return {}
    measured.add(_NAME, "test", rows, [0] * len(rows))
    asked = measured.rows(_NAME)
    answers = measured.answers(_NAME, {"base": None, "asa": adapter})
    if not asked:
        return {}
    base, asa = answers["base"], answers["asa"]
    called = measured.triggered(_NAME, base), measured.triggered(_NAME, asa)
    changed = changed_answers(asked, (base, asa), called)
    first = changed[0] if changed else ChangedAnswer(last_request(asked[0]), 0, base[0], asa[0], False)
    return {
        "asked": len(asked),
        "changed": len(changed),
        "shown": {"prompt": first.prompt or "(no text)", "base": str(first.base), "asa": str(first.asa)},
        **({} if list(samples) == neutral_samples() else {"own": True}),
    }
