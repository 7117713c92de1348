"""What an adapter is, in words and as JSON, without its model: `asa-adapter inspect`."""

import textwrap
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.notations.schemas import tool_names
from asa_adapter.report import Report
from asa_adapter.summary.markdown import metrics_table, one_line

_INDENT = 13


def inspection(adapter: ASAAdapter, source: str) -> dict[str, Any]:
    """An adapter as JSON types.

    Args:
        adapter: the adapter.
        source: folder or repository that it came from.
    """
    config = adapter.config
    own = sorted(adapter.probes.by_domain_)
    return {
        "source": source,
        "commit": adapter.commit,
        "abstains": config.abstains,
        "config": config.to_dict(),
        "step": config.step,
        "domains_with_own_direction": [
            name for name, row in zip(config.domains, adapter.vectors.v_domain, strict=True) if bool(row.any())
        ],
        "domains_with_own_probe": own,
        "report": adapter.report,
    }


def inspection_text(adapter: ASAAdapter, source: str, width: int = 120) -> str:
    """The same for people, in lines of `width` characters: what it steers, how it was fitted, what was measured.

    Texts of the adapter go to a terminal here: they are made printable.
    """
    config, report = adapter.config, Report.read(adapter.report)
    model = ", ".join(filter(None, [config.model_type, f"{config.num_layers} blocks", f"width {config.hidden_size}"]))
    rows = {
        "commit": adapter.commit,
        "model": f"{config.base_model or 'not recorded'} ({model})",
        "revision": config.base_model_revision,
        "steers": "nothing: it abstains, and the model stays as it is" if config.abstains else _steering(adapter),
        "domains": ", ".join(config.domains),
        "tools": ", ".join(tool_names(config.tools)) or "those of each prompt",
        "marker": config.tool_call_start,
        "chosen": report.why,
        "made with": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    lines = [f"ASA adapter {one_line(source)}"]
    for name, text in rows.items():
        lines += textwrap.wrap(
            one_line(text or ""), width, initial_indent=f"  {name:<11}", subsequent_indent=" " * _INDENT
        )
    for split, comparison in report.evaluations.items():
        table = metrics_table({"base": comparison.base, "asa": comparison.asa})
        lines += ["", f"{one_line(split).upper()}, {comparison.base['n']} prompts", table]
    return "\n".join(lines)


def _steering(adapter: ASAAdapter) -> str:
    config = adapter.config
    push = f"the output of block {config.layer}, by {config.alpha:g} times the mean residual norm ({config.step:.4g})"
    lift = f"the logits with which calls begin, by {config.bias:g}"
    done = {"steer": push, "bias": f"{lift} (read after block {config.layer})", "both": f"{push}, and {lift}"}
    read = f", which reads blocks {', '.join(map(str, config.reading))}" if config.read_layers else ""
    return f"{done[config.action]}, with tau {config.tau:g}, beta {config.beta:g} and the {config.probe} probe{read}"
