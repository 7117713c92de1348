"""The model card and the report: an adapter's README.md, written from its config and its report.json."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from asa_adapter.config import ASAConfig
from asa_adapter.tools import unwrapped

CARD_NAME = "README.md"
REPORT_NAME = "report.json"
TEMPLATE_NAME = "model_card_template.md"
LIBRARY_NAME = "asa-adapter"
TAGS = ("activation-steering", "tool-calling", "asa")
COLUMNS = ("precision", "recall", "f1", "accuracy", "fpr")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def report_json(report: Mapping[str, Any] | None) -> str:
    """The text of report.json; an empty object where there is no report."""
    return json.dumps(report or {}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def model_card(config: ASAConfig, report: Mapping[str, Any] | None, repo_id: str = "user/adapter") -> str:
    """The text of the model card.

    Args:
        config: the adapter's settings.
        report: what was measured; the card says so where there is none.
        repo_id: the repository that the usage example names.
    """
    found = report or {}
    base_model = config.base_model or "an unnamed model"
    on_hub = config.base_model if _HUB_ID.fullmatch(config.base_model or "") else None
    data = ModelCardData(library_name=LIBRARY_NAME, pipeline_tag="text-generation", tags=list(TAGS))
    if on_hub:
        data["base_model"], data["base_model_relation"] = on_hub, "adapter"
    card = ModelCard.from_template(
        data,
        template_str=_template(),
        title=f"ASA for {escaped(base_model)}",
        abstains=config.alpha == 0,
        base_model=escaped(base_model),
        repo_id=escaped(repo_id),
        revision=escaped(config.base_model_revision or "not recorded"),
        domains=escaped(", ".join(config.domains)),
        tools=escaped(", ".join(_tool_names(config.tools)) or "those of each prompt"),
        marker=f"`{config.tool_call_start}`" if config.tool_call_start else "not recorded",
        results=_results(found),
        config=config,
        alpha=f"{config.alpha:g}",
        step=f"{config.step:.4g}",
        tau=f"{config.tau:g}",
        beta=f"{config.beta:g}",
        why=_why(found),
        rows=found.get("splits", {}).get("train", {}).get("rows", "an unknown number of"),
        versions=_versions(found),
    )
    return str(card.content).rstrip() + "\n"


def escaped(text: str) -> str:
    """A user's string made harmless in Markdown and HTML: one line, nothing that opens a table cell, tag or link."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", printable)


def markdown_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Results such as {"base": metrics, "asa": metrics} as a Markdown table, one row each.

    Example:
        >>> print(markdown_table({"base": dict(precision=1, recall=0.5, f1=2 / 3, accuracy=0.75, fpr=0)}))
        | | precision | recall | f1 | accuracy | fpr |
        |---|---:|---:|---:|---:|---:|
        | base | 1.000 | 0.500 | 0.667 | 0.750 | 0.000 |
    """
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for name, metrics in results.items():
        cells = " | ".join(f"{metrics[column]:.3f}" for column in COLUMNS)
        lines.append(f"| {escaped(name)} | {cells} |")
    return "\n".join(lines)


def _results(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """A heading and tables for each split that was evaluated: overall, then base against ASA in each domain."""
    found = []
    for split, results in report.get("evaluations", {}).items():
        rows = results["base"]["n"]
        overall = markdown_table({"the model alone": results["base"], "with ASA": results["asa"]})
        by_domain = {
            f"{domain}, {label}": results[key]["per_domain"][domain]
            for domain in results["base"].get("per_domain", {})
            for key, label in (("base", "alone"), ("asa", "with ASA"))
        }
        tables = [overall, *([markdown_table(by_domain)] if by_domain else [])]
        found.append({"heading": f"### {escaped(split).upper()}, {rows} prompts", "table": "\n\n".join(tables)})
    return found


def _why(report: Mapping[str, Any]) -> str:
    why = report.get("chosen", {}).get("why")
    return f"Why these: {escaped(why)}." if why else "How these were chosen is not recorded."


def _versions(report: Mapping[str, Any]) -> str:
    versions = report.get("versions", {})
    return (
        "Made with " + ", ".join(f"{escaped(k)} {escaped(v)}" for k, v in versions.items()) + "." if versions else ""
    )


def _tool_names(tools: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return [str(unwrapped(tool).get("name")) for tool in tools or []]


def _template() -> str:
    """Our own template: in the package where it was installed, one folder up in a checkout."""
    here = Path(__file__).resolve().parent
    places = [here / TEMPLATE_NAME, here.parent / TEMPLATE_NAME]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{TEMPLATE_NAME} is neither at {places[0]} nor at {places[1]}; install asa-adapter again")
