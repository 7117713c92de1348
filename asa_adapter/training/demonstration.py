"""What a model card shows first: a sample prompt, answered by the model alone and with the adapter."""

from collections.abc import Sequence
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.measurement.measurements import Measurements
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
    called = {name: measured.triggered(_NAME, texts) for name, texts in answers.items()}
    changed = [i for i in range(len(asked)) if called["base"][i] != called["asa"][i]]
    if not asked:
        return {}
    first = changed[0] if changed else 0
    shown = {name: str(texts[first]) for name, texts in answers.items()}
    return {
        "asked": len(asked),
        "changed": len(changed),
        "shown": {"prompt": str(asked[first]["messages"][-1].get("content") or "(no text)"), **shown},
        **({} if list(samples) == neutral_samples() else {"own": True}),
    }
