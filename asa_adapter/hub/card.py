"""The model card: an adapter's README.md, written from its config and its report."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.notations.tool_schemas import unwrapped
from asa_adapter.pictures.report_figures import caption
from asa_adapter.report import Comparison, Interval, Report
from asa_adapter.report_schema import RATIOS
from asa_adapter.summary.comparison_in_words import ablations_markdown, rules_markdown, rules_verdict
from asa_adapter.summary.conversations_table import conversations_section
from asa_adapter.summary.markdown import calls_table, code, escaped, table, variations_markdown
from asa_adapter.summary.setting_in_words import settings_table
from asa_adapter.summary.verdict_in_words import verdict_in_words
from asa_adapter.summary.weaknesses import weaknesses

PLOTS_FOLDER = "plots"
TEMPLATE_NAME = "model_card_template.md"
LIBRARY_NAME = "asa-adapter"
TAGS = ("activation-steering", "tool-calling", "asa")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
PLACEHOLDER = "user/adapter"
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})?")
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
PLOT = re.compile(r"[A-Za-z0-9_-]{1,80}\.png")
_MOST_TOOLS = 20
_MOST_SHOWN = 200  # characters of a sample's answer
# What the card says that an adapter "adds", by its action.
_ACTS = {
    "steer": "one vector to that state",
    "bias": "a bias to the logits of the tokens with which calls begin",
    "both": "one vector to that state and a bias to the logits of the tokens with which calls begin",
}
_RATIO_HEADS = ("precision", "recall", "F1", "accuracy", "FPR")  # as column heads, in the order of RATIOS
# Training arguments that the card writes as flags. A text could end the block of code that the command stands in.
_FLAGS = {
    field.name for field in fields(ASATrainingArguments) if field.metadata and field.metadata.get("type") is not str
}


def model_card(config: ASAConfig, report: Report, repo_id: str | None = None, plots: Sequence[str] = ()) -> str:
    """The text of the model card, by our own template alone.

    Args:
        config: the adapter's settings.
        report: what was measured; where something was not, the card says so.
        repo_id: the repository that the usage example names.
        plots: names of the files in the folder plots/.
    """
    on_hub = config.base_model if _HUB_ID.fullmatch(config.base_model or "") else None
    base_model = escaped(config.base_model or "an unnamed model")
    card = ModelCard.from_template(
        _card_metadata(report, config.base_model, on_hub, repo_id),
        template_str=_card_template(),
        title=f"ASA for {base_model}",
        abstains=config.abstains,
        acts=_ACTS[config.action],
        base_model=f"[{base_model}](https://huggingface.co/{on_hub})" if on_hub else base_model,
        success_note=escaped(report.success_note) if report.success_note else None,
        headline=None if config.abstains else verdict_in_words(report, config.abstains),
        sample=None if config.abstains else _sample_section(report),
        repo_id=repo_id if _HUB_ID.fullmatch(repo_id or "") else PLACEHOLDER,
        model_id=on_hub or "path/to/the/model",
        file=_model_file(config),
        fitted_for=_fitted_for_table(config, report),
        serving=_serving_note(config, report),
        tools=_tool_lines(config.tools),
        results=[_split_section(split, comparison) for split, comparison in report.evaluations.items()],
        counted="a call begins" if config.forms or config.tool_call_format == "json" else "the call marker stands",
        conversations=conversations_section(report.conversations),
        variations=_variations_section(report),
        ablations=_ablations_table(report),
        verdict=rules_verdict(report.rules),
        rules=rules_markdown(report.rules),
        plots=[
            {"file": name, "title": _plot_title(name), "caption": caption(name)}
            for name in plots
            if PLOT.fullmatch(name)
        ],
        settings=settings_table(config),
        why=_why_chosen(config, report),
        weaknesses=weaknesses(config, report),
        reproduction=_reproduction_section(on_hub, report),
        versions=_versions_line(report),
    )
    return str(card.content).rstrip() + "\n"


def _card_metadata(report: Report, name: str | None, on_hub: str | None, repo_id: str | None) -> ModelCardData:
    """The YAML head; what does not have the form that the Hub expects is left out."""
    known = report.metadata
    license = known.get("license")
    languages = [name for name in known.get("language", []) if _LANGUAGE.fullmatch(name)]
    datasets = [name for name in known.get("datasets", []) if _HUB_ID.fullmatch(name)]
    data = ModelCardData(
        library_name=LIBRARY_NAME,
        pipeline_tag="text-generation",
        tags=list(TAGS),
        license=license if license and _LICENSE.fullmatch(license) else None,
        language=languages or None,
        datasets=datasets or None,
        base_model=on_hub,
    )
    if on_hub:
        data["base_model_relation"] = "adapter"
    if report.evaluations:
        data.model_name = repo_id.rpartition("/")[2] if repo_id else f"ASA for {name or 'an unnamed model'}"
        data.eval_results = [
            EvalResult(
                task_type="text-generation",
                task_name="Tool-call triggering",
                dataset_type=datasets[0] if len(datasets) == 1 else "custom",
                dataset_name=datasets[0] if len(datasets) == 1 else "labelled prompts",
                dataset_split=code(split).strip("`"),
                metric_type=ratio,
                metric_name=f"{ratio}, with ASA",
                metric_value=round(comparison.asa[ratio], 4),
            )
            for split, comparison in report.evaluations.items()
            for ratio in RATIOS
        ]
    return data


def _model_file(config: ASAConfig) -> str | None:
    """How the weights are stored of the model file of llama.cpp that an adapter was fitted on; None for others."""
    found = re.match(r"gguf:(\w+):", config.base_model_fingerprint or "")
    return f"the one in {found[1]} that it was fitted on" if found else None


def _sample_section(report: Report) -> str | None:
    """A sample prompt with the answers of the model alone and with the adapter."""
    if not report.demonstration:
        return None
    shown, asked, changed = (report.demonstration[name] for name in ("shown", "asked", "changed"))
    rows = [["the model alone", _answer_for_cell(shown["base"])], ["with ASA", _answer_for_cell(shown["asa"])]]
    which = "the first of those where it did" if changed else "the first of them"
    own = report.demonstration.get("own")
    whose = "that its maker named" if own else "that come with the package, whatever the tools are,"
    told = f"Of {asked} sample prompts {whose} it changed for {changed} whether a call begins; this is {which}."
    return f"{table(['', escaped(shown['prompt'])], rows, numbers=0)}\n\n{told}"


def _answer_for_cell(answer: str) -> str:
    """The beginning of an answer, for a cell of a table."""
    return code(answer[:_MOST_SHOWN] + ("…" if len(answer) > _MOST_SHOWN else "")) if answer.strip() else "(nothing)"


def _fitted_for_table(config: ASAConfig, report: Report) -> str:
    """The card's table of what an adapter was fitted for."""
    markers = " … ".join(code(marker) for marker in (config.tool_call_start, config.tool_call_end) if marker)
    template = config.chat_template_sha256
    rows = {
        "model": escaped(config.base_model or "not recorded"),
        "revision": escaped(config.base_model_revision or "not recorded"),
        "type": f"{escaped(config.model_type or 'not recorded')}, {config.num_layers} blocks, "
        f"width {config.hidden_size}",
        "domains": ", ".join(map(escaped, config.domains)),
        "prompts": (
            "a chat template of their own, which is a program: read it, then "
            "set `tokenizer.chat_template = adapter.config.chat_template`"
            if config.chat_template
            else "the model's own chat template"
        )
        + (f" (SHA-256 {template[:12]}…; `attach(model, tokenizer=tokenizer)` checks it)" if template else ""),
        "a call is written as": markers or ("JSON" if config.tool_call_format == "json" else "not recorded"),
    }
    if config.forms:
        rows["formats of its calls"] = ", ".join(map(code, config.forms))
    if habit := report.habit:
        shares = ", ".join(f"{code(name)} {share:.0%}" for name, share in habit["shares"].items())
        rows["formats of its calls"] = f"{shares} of {habit['calls']} calls of the model alone"
    return table(["", ""], [[name, text] for name, text in rows.items()], numbers=0)


def _serving_note(config: ASAConfig, report: Report) -> str | None:
    """What a server must read, where the model's calls come in another format than its chat template shows."""
    named_by_hand = config.tool_call_format == report.habit.get("shown")
    if report.habit.get("differs") is not True or config.tool_call_format is None or named_by_hand:
        return None
    read = " and ".join(code(name) for name in config.forms or (config.tool_call_format,))
    shown = f" ({code(report.habit['shown'])})" if "shown" in report.habit else ""
    return (
        f"The model's calls hardly ever come in the format that its chat template shows{shown}. What serves it must "
        f"read {read} too; `adapter.parser(tokenizer)` does."
    )


def _tool_lines(tools: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """A line for each tool: its name, and the beginning of its description."""
    lines = []
    for tool in (tools or [])[:_MOST_TOOLS]:
        facts = unwrapped(tool)
        text = facts.get("description")
        lines.append(code(str(facts.get("name"))[:80]) + (f": {escaped(text[:200])}" if isinstance(text, str) else ""))
    if tools and len(tools) > _MOST_TOOLS:
        lines.append(f"and {len(tools) - _MOST_TOOLS} more, in `asa_config.json`")
    return lines


def _split_section(split: str, comparison: Comparison) -> dict[str, Any]:
    """What the card's template shows of one split."""
    base, asa = comparison.base, comparison.asa
    rows = [
        [
            name,
            *(_number_with_interval(metrics[ratio], comparison.intervals.get(key, {}).get(ratio)) for ratio in RATIOS),
        ]
        for name, key, metrics in (("the model alone", "base", base), ("with ASA", "asa", asa))
    ]
    if gain := comparison.intervals.get("gain"):
        rows.append(["gain", *(_number_with_interval(asa[r] - base[r], gain.get(r), sign="+") for r in RATIOS)])
    p = comparison.mcnemar_p
    return {
        "heading": f"{escaped(split).upper()}, {base['n']} prompts ({base['tp'] + base['fn']} need a tool)",
        "overall": table(["", *_RATIO_HEADS], rows, numbers=len(RATIOS)),
        "intervals": "In brackets: 95 % intervals." if comparison.intervals else None,
        "mcnemar": None if p is None else f"Exact McNemar test on rightly decided prompts: p = {p:.3g}.",
        "domains": _domains_table(comparison),
        "calls": _calls_section(comparison),
        "cut": all("cut_share" in part for part in (base, asa)),
    }


def _number_with_interval(value: float, interval: Interval | None, sign: str = "") -> str:
    return f"{value:{sign}.3f}" + (f" ({interval[0]:{sign}.3f} to {interval[1]:{sign}.3f})" if interval else "")


def _domains_table(comparison: Comparison) -> str | None:
    """The card's F1 and FPR of each domain, before and after side by side."""
    base, asa = comparison.base["per_domain"], comparison.asa["per_domain"]
    rows = [
        [escaped(name), str(asa[name]["n"])]
        + [f"{part[name][ratio]:.3f}" for ratio in ("f1", "fpr") for part in (base, asa)]
        for name in asa
        if name in base
    ]
    head = ["domain", "prompts", "F1 alone", "F1 with ASA", "FPR alone", "FPR with ASA"]
    return table(head, rows, numbers=5) if rows else None


def _calls_section(comparison: Comparison) -> str | None:
    """How good the calls were, in a table of the card; None where that was not measured."""
    parts = {"the model alone": comparison.base, "with ASA": comparison.asa}
    if not all(part["validity"] for part in parts.values()):
        return None
    worth = ("can be read", "offered tool", "fits its schema", "success precision", "success recall")
    return calls_table(parts, "", (*worth, "the gold calls", "cut short"))


def _ablations_table(report: Report) -> str | None:
    return ablations_markdown(report.ablations, _RATIO_HEADS, "variant", "with ASA") if report.ablations else None


def _variations_section(report: Report) -> dict[str, str] | None:
    """What the template shows of other lists of tools: on TEST, else on the first split that was measured."""
    split = "test" if report.variations.get("test") else next(filter(report.variations.get, report.variations), None)
    if split is None:
        return None
    rows, away = (report.vary_tools.get(name, 0) for name in ("rows", "taken_away"))
    fitted = f" Router and probes were fitted on {rows} prompts with varied tools too, {away} of them without the one "
    return {
        "split": escaped(split).upper(),
        "table": variations_markdown(report.variations[split]),
        "fitted": fitted + "that is needed." if rows else "",
    }


def _plot_title(name: str) -> str:
    return re.sub(r"[_-]+", " ", name.removesuffix(".png"))


def _why_chosen(config: ASAConfig, report: Report) -> str:
    """Why the card's adapter has these settings, and how well the need is read at its layer."""
    why = f"Why these: {escaped(report.why)}." if report.why else "How these were chosen is not recorded."
    if report.refit:
        why += (
            " Then directions, router and probes were fitted once more, with VALID's rows too: figures on VALID are "
            "of the fit before, those on TEST of this one."
        )
    layer = report.layers.get(config.layer)
    if layer is None:
        return why
    control = f" (a control with shuffled labels: {layer['shuffled_auc']:.3f})" if "shuffled_auc" in layer else ""
    return (
        f"{why} At this layer a probe tells prompts that need a tool with an AUC of {layer['probe_auc']:.3f}{control}."
    )


def _reproduction_section(base_model: str | None, report: Report) -> str | None:
    """The command that fits the adapter again, or Python code where the command line has no flag for an argument."""
    names = {field.name for field in fields(ASATrainingArguments)}
    known = {name: value for name, value in report.arguments.items() if name in names}
    try:
        given, default = ASATrainingArguments(**known), ASATrainingArguments()
    except (TypeError, ValueError):
        return None
    if not known:
        return None
    silent = {"output_dir", "progress"}
    changed = {n: getattr(given, n) for n in sorted(names - silent) if getattr(given, n) != getattr(default, n)}
    model, dtype = base_model or "path/to/the/model", report.samples.get("dtype", "float32")
    if set(changed) <= _FLAGS:
        words = ["asa-adapter", "train", "--model", model, "--data", "my_data", "--output", "my_adapter"]
        for name, value in changed.items():
            values = () if isinstance(value, bool) else value if isinstance(value, tuple) else (value,)
            words += [("--no-" if value is False else "--") + name.replace("_", "-"), *map(str, values)]
        words += [] if dtype == "float32" else ["--dtype", dtype]
        return f"```bash\n{shlex.join(words)}\n```"
    arguments = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    loaded = "" if dtype == "float32" else f"# the model was loaded with dtype={dtype!r}\n"
    return (
        f"```python\n{loaded}"
        f'trainer = ASATrainer(model, tokenizer, load_splits("my_data"), ASATrainingArguments({arguments}))\n'
        "adapter = trainer.train()\n```"
    )


def _versions_line(report: Report) -> str | None:
    """The card's line of versions."""
    if not report.versions:
        return None
    return "Made with " + ", ".join(f"{escaped(name)} {escaped(v)}" for name, v in report.versions.items()) + "."


def _card_template() -> str:
    """The text of our template, which lies in an installed package, but above the package in a checkout."""
    here = Path(__file__).resolve().parents[1]
    places = [here / TEMPLATE_NAME, here.parent / TEMPLATE_NAME]
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{TEMPLATE_NAME} is neither at {places[0]} nor at {places[1]}; install asa-adapter again")
