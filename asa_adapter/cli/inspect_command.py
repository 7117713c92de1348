"""What an adapter is, in words and as JSON, without its model: `asa-adapter inspect`.

In words config and report are enough, which a folder gives without torch: that takes a moment.
"""

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asa_adapter.cli.terminal import width
from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.hub.checked_files import config_and_report, read_checked_files
from asa_adapter.notations.tool_schemas import tool_names
from asa_adapter.report import Report
from asa_adapter.summary.markdown import metrics_table, one_line
from asa_adapter.summary.setting_in_words import WHERE, setting_words_of_kind
from asa_adapter.summary.verdict_in_words import verdict_in_words

if TYPE_CHECKING:
    from asa_adapter.adapter import ASAAdapter

_INDENT = 13


def inspect(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What is in an adapter; no model is needed."""
    name = options.adapter
    if Path(name).is_dir() and not options.json:
        return {}, inspection_text(*read_checked_files(Path(name), config_and_report), None, name, width())
    from asa_adapter.adapter import ASAAdapter

    adapter = ASAAdapter.from_pretrained(name, revision=options.revision)
    text = inspection_text(adapter.config, adapter.report, adapter.commit, name, width())
    return inspection(adapter, name), text


def inspection(adapter: "ASAAdapter", source: str) -> dict[str, Any]:
    """An adapter as JSON types.

    Args:
        adapter: the adapter.
        source: folder or repository that it came from.
    """
    config = adapter.config
    return {
        "source": source,
        "commit": adapter.commit,
        "abstains": config.abstains,
        "config": config.to_dict(),
        "step": config.step,
        "domains_with_own_direction": [
            name for name, row in zip(config.domains, adapter.vectors.v_domain, strict=True) if bool(row.any())
        ],
        "domains_with_own_probe": sorted(adapter.probes.by_domain_),
        "report": adapter.report,
    }


def inspection_text(
    config: ASAConfig, raw: dict[str, Any] | None, commit: str | None, source: str, width: int = 120
) -> str:
    """The same for people: what it steers, how it was fitted, what was measured.

    Texts of the adapter go to a terminal here: they are made printable.

    Args:
        config: the adapter's config.
        raw: its report.
        commit: of the Hub; None for a folder.
        source: folder or repository that it came from.
        width: greatest length of a line.
    """
    report = Report.read(raw)
    model = ", ".join(filter(None, [config.model_type, f"{config.num_layers} blocks", f"width {config.hidden_size}"]))
    rows = {
        "verdict": verdict_in_words(report, config.abstains),
        "commit": commit,
        "model": f"{config.base_model or 'not recorded'} ({model})",
        "revision": config.base_model_revision,
        "steers": "nothing: it abstains, and the model stays as it is" if config.abstains else _steering_text(config),
        "domains": ", ".join(config.domains),
        "tools": ", ".join(tool_names(config.tools)) or "those of each prompt",
        "marker": config.tool_call_start,
        "chosen": report.why,
        "made with": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    lines = [f"ASA adapter {one_line(source)}"]
    for name, text in rows.items():
        head, rest = f"  {name:<11}", " " * _INDENT
        lines += textwrap.wrap(one_line(text or ""), width, initial_indent=head, subsequent_indent=rest)
    for split, comparison in report.evaluations.items():
        lines += ["", f"{one_line(split).upper()}, {comparison.base['n']} prompts"]
        lines += [metrics_table({"base": comparison.base, "asa": comparison.asa})]
    return "\n".join(lines)


def _steering_text(config: ASAConfig) -> str:
    """How an adapter steers, for `inspect`."""
    push = f"the output of block {config.layer}, by {config.alpha:g} times the mean residual norm ({config.step:.4g})"
    lift = f"the logits with which calls begin, by {config.bias:g}"
    done = {"steer": push, "bias": f"{lift} (read after block {config.layer})", "both": f"{push}, and {lift}"}
    read = f", which reads blocks {', '.join(map(str, config.reading))}" if config.read_layers else ""
    own = "".join(
        f"; where the prompt ends {WHERE[state]}: {setting_words_of_kind(config, state)}" for state in config.by_state
    )
    how = f"with tau {config.tau:g}, beta {config.beta:g} and the {config.probe} probe"
    return f"{done[config.action]}, {how}{read}{own}"
