"""What a run records: its empty report, and the config fields about model, prompts and tools."""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.prompts import chat_template_sha256, template_variables
from asa_adapter.data.rows import Row, row_tools
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.matching.state_kinds import kind_of
from asa_adapter.modeling.fingerprint import model_fingerprint
from asa_adapter.modeling.residual_stream import decoder_blocks, hidden_size, text_config
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.tool_calls.parser import ToolCallParser

_REPORTED_PACKAGES = ("asa-adapter", "torch", "transformers", "scikit-learn", "numpy", "skops", "safetensors")
# Arguments that say something about the user's machine and nothing about the adapter.
_PRIVATE = ("output_dir", "sample_rows", "progress")


def new_report(
    args: ASATrainingArguments, parser: ToolCallParser, splits: Mapping[str, Sequence[Row]], domains: Sequence[str]
) -> dict[str, Any]:
    """The report of a run before anything is measured; `python -m pydoc asa_adapter.report` describes its keys."""
    arguments = {name: value for name, value in asdict(args).items() if name not in _PRIVATE}
    return {
        "report_version": 1,
        "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()},
        "tool_call_format": parser.format,
        "splits": {
            name: {"rows": len(rows), "tool_needed": sum(int(row["label"]) for row in rows)}
            for name, rows in splits.items()
        },
        "states": {},
        "domains": list(domains),
        "leaks": [],
        "vary_tools": {},
        "refit": {},
        "variations": {},
        "blind_layers": [],
        "layers": {},
        "screen": {},
        "actions": {},
        "policies": {},
        "valid": {},
        "chosen": {},
        "diagnostics": {},
        "evaluations": {},
        "conversations": {},
        "gates": {},
        "demonstration": {},
        "controls": {},
        "ablations": {},
        "rules": {},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _REPORTED_PACKAGES}},
        "seconds": {},
    }


def origin(
    model: Any,
    tokenizer: Any,
    parser: ToolCallParser,
    args: ASATrainingArguments,
    domains: tuple[str, ...],
    cal: Sequence[Row],
    tools: Tools | None,
) -> dict[str, Any]:
    """The ASAConfig fields that are the same for every setting: about the model, its prompts, calls and tools."""
    return {
        **_model_fields(model, args.layer_path),
        "domains": domains,
        "layer_path": args.layer_path,
        "tool_call_format": parser.format,
        "tool_call_start": parser.start or None,
        "tool_call_end": parser.end,
        "chat_template": args.chat_template,
        "chat_template_sha256": chat_template_sha256(tokenizer),
        "chat_template_variables": template_variables(tokenizer),
        "tools": _shared_tools(cal, tools),
        "opening_ids": parser.opening_ids(tokenizer),
    }


def _model_fields(model: Any, layer_path: str | None) -> dict[str, Any]:
    """The ASAConfig fields about the model."""
    if is_engine_model(model):
        facts = model.facts
        return {
            "hidden_size": facts.hidden_size,
            "num_layers": facts.num_layers,
            "base_model": facts.name,
            "base_model_fingerprint": model.fingerprint(),
            "model_type": facts.model_types[0],
        }
    return {
        "hidden_size": hidden_size(model),
        "num_layers": len(decoder_blocks(model, layer_path)),
        "base_model": _public_name(model),
        "base_model_revision": getattr(model.config, "_commit_hash", None),
        "base_model_fingerprint": model_fingerprint(model, layer_path),
        "model_type": getattr(text_config(model), "model_type", None),
    }


def kinds_of_rows(splits: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, int]]:
    """How many rows of each split end in each kind of state."""
    return {name: dict(sorted(Counter(map(kind_of, rows)).items())) for name, rows in splits.items()}


def _shared_tools(rows: Sequence[Row], tools: Tools | None) -> list[dict[str, Any]] | None:
    """The list of tools for the config: the one that more than half of the rows offer; None if there is none."""
    offered = Counter(json.dumps(row_tools(row, tools)) for row in rows)
    most, count = offered.most_common(1)[0]
    shared: list[dict[str, Any]] | None = json.loads(most) if 2 * count > offered.total() else None
    return shared


def _public_name(model: Any) -> str | None:
    """The model's Hub id, or the name of its folder without the path, which is private; None if it has no name."""
    name = str(getattr(model, "name_or_path", "") or "")
    return (Path(name).resolve().name if Path(name).is_dir() else name) or None


def _version(package: str) -> str:
    """The version of a package, for the report."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
