"""What each command of the command line does: from its options to a result, as JSON types and in words."""

import argparse
import dataclasses
import os
import sys
import textwrap
from pathlib import Path
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.cli.inspection import inspection, inspection_text
from asa_adapter.cli.terminal import compared, painted, width
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.batches import pad_batch, pad_token_id
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rendering import refuse_template_from_hub, with_bounded_template
from asa_adapter.data.rows import read_tools
from asa_adapter.data.splits import load_splits
from asa_adapter.diagnostics.diagnosis import diagnose as diagnosed
from asa_adapter.diagnostics.diagnosis import findings_table
from asa_adapter.evaluation.ablation import ablations
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.files import looks_like_path, make_writable_folder
from asa_adapter.hub.markdown import calls_table, metrics_table
from asa_adapter.modeling.forward import greedy_settings
from asa_adapter.modeling.processes import Processes
from asa_adapter.report import Report
from asa_adapter.steering.controller import Decision
from asa_adapter.training.trainer import ASATrainer


def train(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Fits, measures on TEST and saves."""
    names = {field.name for field in dataclasses.fields(ASATrainingArguments)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if options.chat_template is not None:
        given["chat_template"] = Path(options.chat_template).read_text(encoding="utf-8")
    arguments = ASATrainingArguments(**given, output_dir=options.output, progress=_progress(options))
    splits = load_splits(options.data, seed=options.seed)
    tools = _tools(options)
    if Processes().is_main:
        make_writable_folder(Path(options.output))
    model, tokenizer = _load_model(options)
    trainer = ASATrainer(model, tokenizer, splits, arguments, tools)
    adapter = trainer.train()
    results = trainer.evaluate("test")
    chosen = trainer.report["chosen"]
    first = trainer.report["valid"].get("success_note")
    text = "\n\n".join(
        [
            *([first] if first else []),
            f"{adapter}\n{chosen['why']}",
            f"TEST\n{metrics_table(results)}",
            f"saved in {options.output}",
        ]
    )
    return {"chosen": chosen, "test": results, "output": options.output}, text


def evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Metrics of the bare and the steered model, and of the ablations if asked for."""
    adapter, tools = _load_adapter(options)
    splits = load_splits(options.data, seed=_seed(options, adapter))
    if options.split not in splits:
        raise ValueError(f"split is {options.split!r}; expected one of {', '.join(splits)}")
    model, tokenizer = _load_model(options, adapter.config.chat_template)
    # Refuses a model that does not fit, before any work.
    adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch).remove()
    evaluation = Evaluation(
        model,
        tokenizer,
        adapter.parser(tokenizer),
        tools,
        options.max_new_tokens,
        options.batch_size,
        _progress(options),
    )
    rows = list(splits[options.split])
    variants = ablations(adapter) if options.ablations else {}
    variants.pop("full", None)  # that is "asa" in the results
    results = evaluation.compare(rows, adapter)
    found: dict[str, Any] = {options.split: results}
    text = f"{options.split.upper()}\n{metrics_table(results)}\n\n{calls_table(results)}"
    if options.ablations:
        answers = evaluation.answers_of_each(rows, variants)
        found["ablations"] = {name: evaluation.metrics(rows, texts) for name, texts in answers.items()}
        text += f"\n\nABLATIONS\n{metrics_table(found['ablations'])}"
    return found, text


def generate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One answer with its decision; with --compare also the bare model's answer."""
    adapter, tools = _load_adapter(options)
    model, tokenizer = _load_model(options, adapter.config.chat_template)
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": options.prompt}], tools)
    ids, mask = pad_batch([prompt], pad_token_id(tokenizer), "left", model.device)
    parser = adapter.parser(tokenizer)
    # Greedy, as in `evaluate` and `explain`: two runs never differ by chance.
    settings = greedy_settings(tokenizer, options.max_new_tokens)

    def answer() -> dict[str, Any]:
        output = model.generate(ids, attention_mask=mask, **settings)
        text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=False)
        return {"answer": text, "calls": [dataclasses.asdict(call) for call in parser.parse(text, tools)]}

    decision: Decision | None = None
    steered = base = None
    with adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch) as steering:
        if not options.no_steering:
            steered = answer()
            decision = steering.decisions[0]
        if options.no_steering or options.compare:
            with steering.disabled():
                base = answer()
    shown = "[not steered]" if decision is None else _decision_line(decision)
    result = {**(steered or base or {}), "decision": decision and dataclasses.asdict(decision)}
    if steered is None or base is None:
        return result, f"{result['answer']}\n{shown}"
    text = compared(base["answer"], steered["answer"], ("base", "steered"), width())
    return {**result, "base": base}, f"{text}\n{shown}"


def _decision_line(decision: Decision) -> str:
    colour = {1: "green", 0: "bold", -1: "yellow"}[decision.gate]
    return painted(textwrap.fill(f"[{decision}]", width()), colour, sys.stdout)


def explain(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One prompt with and without the adapter, and what led to the decision."""
    adapter, _ = _load_adapter(options)
    tools = _tools(options)
    model, tokenizer = _load_model(options)
    explanation = adapter.explain(
        model,
        tokenizer,
        options.prompt,
        tools=tools,
        max_new_tokens=options.max_new_tokens,
        allow_mismatch=options.allow_mismatch,
        trust_template=options.trust_template,
    )
    return explanation, str(explanation)


def diagnose(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All findings, those that are ok included."""
    tools = _tools(options)
    findings = diagnosed(*_load_model(options), tools=tools, max_new_tokens=options.max_new_tokens)
    lines = findings_table(findings, width(80)).splitlines()
    marks = {"ok": "green", "!!": "yellow"}
    coloured = [
        painted(line[:2], marks[line[:2]], sys.stdout) + line[2:] if line[:2] in marks else line for line in lines
    ]
    return [dataclasses.asdict(finding) for finding in findings], "\n".join(coloured)


def inspect(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What is in an adapter; no model is needed."""
    adapter = ASAAdapter.from_pretrained(options.adapter, revision=options.revision)
    return inspection(adapter, options.adapter), inspection_text(adapter, options.adapter, width())


def push(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One commit on the Hub, and its URL."""
    adapter = ASAAdapter.from_pretrained(options.adapter)
    url = adapter.push_to_hub(options.repo, private=options.private or None)
    return {"repo": options.repo, "commit_url": url}, f"pushed to {url}"


def _load_adapter(options: argparse.Namespace) -> tuple[ASAAdapter, list[dict[str, Any]] | None]:
    """The adapter, and the tools to offer: the user's, else those that the adapter was fitted with."""
    adapter = ASAAdapter.from_pretrained(options.adapter)
    refuse_template_from_hub(adapter.config.chat_template, adapter.commit, options.trust_template)
    return adapter, _tools(options) or adapter.config.tools


def _load_model(options: argparse.Namespace, chat_template: str | None = None) -> tuple[Any, Any]:
    """Model and tokenizer, on the GPU in the checkpoint's own precision where there is one, else in float32.

    Args:
        options: those of the command.
        chat_template: an adapter's, which replaces the tokenizer's own; None keeps it.
    """
    import torch
    import transformers

    name = options.model
    if not Path(name).exists() and looks_like_path(name):
        raise FileNotFoundError(f"no model folder at {name}")
    transformers.logging.set_verbosity_error()
    # A bar belongs on a terminal, not in a file or a pipe. From here on this hides the trainer's bars too.
    if not (_progress(options) and sys.stderr.isatty()):
        transformers.logging.disable_progress_bar()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else "auto"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError) as error:
        here = "" if Path(name).exists() else "there is no such folder here, and from the Hub: "
        raise OSError(f"cannot load the model {name!r}: {here}{error}") from error
    return model.to(device).eval(), with_bounded_template(tokenizer, chat_template)


def _seed(options: argparse.Namespace, adapter: ASAAdapter) -> int:
    """The seed of the split; by default the training's, so that testing splits a data set as training did."""
    if options.seed is not None:
        return int(options.seed)
    fitted = Report.read(adapter.report).arguments.get("seed")
    return fitted if type(fitted) is int and fitted >= 0 else ASATrainingArguments().seed


def _tools(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    if options.tools is None:
        return None
    path = Path(options.tools)
    if not path.is_file():
        raise FileNotFoundError(f"no tools file at {path}")
    return read_tools(path)


def _progress(options: argparse.Namespace) -> bool:
    return not (options.quiet or options.json)
