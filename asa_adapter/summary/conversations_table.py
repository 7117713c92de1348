"""Ways through whole conversations as a table."""

from collections.abc import Mapping
from typing import Any

from asa_adapter.report_schema import OF_CONVERSATIONS
from asa_adapter.summary.markdown import escaped, table

_HEADS = ("first call right", "whole sequence", "missing calls", "needless calls", "repeated calls", "finished")


def conversations_table(found: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    """What `of_conversations` found, as a Markdown table: a row for each variant, and one for the gain.

    Args:
        found: shares by variant, and `intervals`.
        names: how variants are called, by name; those that are not named keep theirs.
    """
    variants = [name for name, part in found.items() if isinstance(part, Mapping) and name != "intervals"]
    rows = [
        [escaped((names or {}).get(name, name)), *(f"{found[name][measure]:.3f}" for measure in OF_CONVERSATIONS)]
        for name in variants
    ]
    if gain := found.get("intervals", {}).get("gain"):
        spans = [gain.get(measure) for measure in OF_CONVERSATIONS]
        shown = [f"{span[0]:+.3f} to {span[1]:+.3f}" if span else "" for span in spans]
        rows.append(["gain, 95 % interval", *shown])
    return table(["", *_HEADS], rows, numbers=len(_HEADS))


def conversations_section(report: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    """What the card shows of conversations: of TEST, else of the first set that was measured; None for none."""
    if not report:
        return None
    name = "test" if "test" in report else next(iter(report))
    found = report[name]
    counts = {key: found.get(key, 0) for key in ("conversations", "turns", "needed")}
    return {
        "split": escaped(name).upper() if name == "test" else escaped(name),
        "counts": f"{counts['conversations']} conversations with {counts['turns']} turns of the user, which need "
        f"{counts['needed']} calls",
        "table": conversations_table(found, {"base": "the model alone", "asa": "with ASA"}),
    }
