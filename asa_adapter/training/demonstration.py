"""What a model card shows first: a prompt of the package's own, answered by the model alone and with the adapter."""

from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.measurement.measurements import Measurements

_NAME = "demonstration"


def demonstration(measured: Measurements, adapter: ASAAdapter) -> dict[str, Any]:
    """Asks the package's sample prompts, with the adapter's own tools, bare and steered.

    Args:
        measured: asks the model, and keeps the answers as a stage.
        adapter: the adapter.

    Returns:
        What the report says under `demonstration`: how many were asked, for how many the adapter changed whether a
        call begins, and the first of these, else the first of all. Empty where the adapter abstains or has no tools.
    """
    tools = adapter.config.tools
    if adapter.config.abstains or not tools:
        return {}
    rows = [{"instruction": prompt, "label": 0, "tools": tools} for prompt in SAMPLE_PROMPTS]
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
        "shown": {"prompt": asked[first]["instruction"], **shown},
    }
