"""What each command of the command line does: from its options to a result, as JSON types and in words."""

import argparse
import dataclasses
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.cli.loading import given_chat, given_template, given_tools, load_adapter, load_model, shows_progress
from asa_adapter.cli.terminal import compared, folded, markdown_for_terminal, painted, width
from asa_adapter.comparison.rules_table import ablated_with_rules
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rows import read_tools
from asa_adapter.data.sources import read_parts, split_of
from asa_adapter.data.splits import how_made, load_splits
from asa_adapter.diagnostics.diagnosis import diagnose as diagnosed
from asa_adapter.diagnostics.diagnosis import findings_table
from asa_adapter.engine.padded_batches import pad_batch, pad_token_id
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.files import make_writable_folder
from asa_adapter.labelling.labelled_folder import LabelledFolder, labels_table
from asa_adapter.labelling.trial import failures_that_count, label_by_trying
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.modeling.forward import greedy_settings
from asa_adapter.modeling.processes import Processes
from asa_adapter.policy.decision import Decision
from asa_adapter.report import Report
from asa_adapter.summary.changed_answers import changes_in_words
from asa_adapter.summary.comparison_in_words import comparison_text
from asa_adapter.summary.conversations_table import conversations_table
from asa_adapter.summary.markdown import explained_calls_table, metrics_table
from asa_adapter.summary.setting_in_words import setting_words
from asa_adapter.summary.verdict_in_words import verdict_in_words
from asa_adapter.summary.weaknesses import weaknesses
from asa_adapter.tool_calls.outcomes import answer_verdict
from asa_adapter.training.trainer import ASATrainer
from asa_adapter.trajectories.scores import of_conversations

_SPOTS = 6  # weak spots that `train` prints


def train(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Fits, measures on TEST and saves."""
    names = {field.name for field in dataclasses.fields(ASATrainingArguments)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    given |= {} if (template := given_template(options)) is None else {"chat_template": template}
    arguments = ASATrainingArguments(**given, output_dir=options.output, progress=shows_progress(options))
    splits = load_splits(options.data, seed=options.seed)
    tools = given_tools(options)
    if Processes().is_main:
        make_writable_folder(Path(options.output))
    model, tokenizer = load_model(options)
    trainer = ASATrainer(model, tokenizer, splits, arguments, tools)
    adapter = trainer.train()
    results = trainer.evaluate("test")
    chosen, changes, read = trainer.report["chosen"], trainer.changes["test"], Report.read(trainer.report)
    verdict = verdict_in_words(read, adapter.config.abstains)
    weak = [markdown_for_terminal(spot) for spot in weaknesses(adapter.config, read)]
    shown = weak if len(weak) <= _SPOTS else [*weak[:_SPOTS], f"{len(weak) - _SPOTS} smaller ones are in its card"]
    text = "\n\n".join(
        [
            *(folded(text) for text in (verdict, read.success_note) if text),
            changes_in_words(changes, "test", width()),
            f"TEST\n{metrics_table(results)}",
            explained_calls_table(results),
            folded(f"The choice, made on VALID without TEST: {setting_words(chosen)}. Why: {chosen['why']}."),
            "\n".join(["WEAK SPOTS", *(folded(spot, "- ") for spot in shown)]),
            f"saved in {options.output}; README.md there is its card",
        ]
    )
    found = {"verdict": verdict, "changes": [one._asdict() for one in changes], "chosen": chosen, "test": results}
    found |= {"weak_spots": weak, "output": options.output}
    if options.push is None or not Processes().is_main:
        return found, text
    url = adapter.push_to_hub(options.push, private=options.private or None)
    return {**found, "commit_url": url}, f"{text}\npushed to {url}"


def label(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Labels by what the model can do alone, written split by split; a second run goes on with those missing."""
    how: dict[str, Any] = {"n": options.times, "temperature": options.temperature, "seed": options.seed}
    how |= {"max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size, "answers": options.answers}
    how["k"] = failures_that_count(options.times, options.fails, options.temperature)
    folder = LabelledFolder(options.data, {"model": options.model, **how}, options.output)
    folder.check(options.answers)
    processes = Processes()
    done = json.loads(processes.from_main(lambda: json.dumps(folder.open()).encode()) or b"[]")
    if missing := folder.missing(done):
        model, tokenizer = load_model(options)
        for name in missing:
            rows = label_by_trying(model, tokenizer, folder.parts[name], **how, progress=shows_progress(options))
            if processes.is_main:
                folder.write(name, rows, options.seed)
    if not processes.is_main:
        return {}, ""
    result = {"labels": folder.counts(), "output": options.output}
    return result, f"{labels_table(result['labels'])}\n\nsaved in {options.output}"


def evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The command `evaluate`: metrics of the bare and the steered model, and of the ablations if asked for."""
    adapter, tools = load_adapter(options)
    if options.conversations:
        return _evaluate_conversations(options, adapter, tools)
    splits = load_splits(options.data, seed=_split_seed(options, adapter))
    if options.split not in splits:
        raise ValueError(f"split is {options.split!r}; expected one of {', '.join(splits)}")
    model, tokenizer = _model_of_command(options, adapter)
    # Refuses a model that does not fit, before any work.
    adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch).remove()
    arguments = _evaluation_arguments(options, adapter)
    measured = Measurements(model, tokenizer, splits, arguments, adapter.parser(tokenizer), tools)
    if options.ablations:
        variants, rules = ablated_with_rules(measured, adapter, options.split, arguments)
        results = {name: rules["rows"][row]["metrics"] for name, row in (("base", "base"), ("asa", "steering"))}
        measured.warn_of_cut(results, options.split)
    else:
        results = measured.evaluation.compare(list(splits[options.split]), adapter.for_split(options.split))
    found: dict[str, Any] = {options.split: results}
    head = f"{options.split.upper()}, {results['base']['n']} prompts (splits: {how_made(splits)['splits']})"
    text = f"{head}\n{metrics_table(results)}\n\n{explained_calls_table(results)}"
    if options.ablations:
        found["ablations"] = {name: variants[name] for name in variants if name not in ("base", "full")}
        read = Report.read({"rules": rules, "ablations": variants})
        found["rules"], text = rules, f"{text}\n\n{comparison_text(read.ablations, read.rules)}"
    return found, text


def _evaluate_conversations(
    options: argparse.Namespace, adapter: ASAAdapter, tools: Any
) -> tuple[dict[str, Any], str]:
    """What the bare and the steered model make of whole conversations."""
    if options.ablations:
        raise ValueError("--ablations is of labelled data; give --data, or leave it out with --conversations")
    parts, beside = read_parts(options.conversations)
    name = next(iter(parts)) if len(parts) == 1 else options.split
    if name not in parts:
        raise ValueError(f"split is {name!r}; expected one of {', '.join(parts)}")
    offered = read_tools(beside) if beside is not None and not options.tools else tools
    model, tokenizer = _model_of_command(options, adapter)
    adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch).remove()
    arguments, parser = _evaluation_arguments(options, adapter), adapter.parser(tokenizer)
    how = {"max_new_tokens": arguments.max_new_tokens, "batch_size": arguments.batch_size}
    evaluation = Evaluation(model, tokenizer, parser, offered, **how, progress=arguments.progress)
    variants = {"base": None, "asa": adapter.for_split(split_of(name))}
    found = of_conversations(evaluation, parts[name], variants, seed=arguments.seed)
    head = f"{found['conversations']} conversations, {found['turns']} user turns, {found['needed']} needed calls"
    return {"conversations": found}, f"{head}\n{conversations_table(found)}"


def _evaluation_arguments(options: argparse.Namespace, adapter: ASAAdapter) -> ASATrainingArguments:
    """How the command `evaluate` measures: by its options; rules choose by what the adapter was chosen by."""
    given: dict[str, Any] = {name: getattr(options, name) for name in ("max_new_tokens", "batch_size")}
    given |= {"layer_path": adapter.config.layer_path, "progress": shows_progress(options)}
    fitted = Report.read(adapter.report).arguments
    chosen_by = {key: fitted[key] for key in ("objective", "max_fpr", "max_fpr_confidence", "cost") if key in fitted}
    try:
        return ASATrainingArguments(**given, **chosen_by)
    except (TypeError, ValueError):  # a report that is not the trainer's
        return ASATrainingArguments(**given)


def generate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The command `generate`: one answer, its decision and what its calls are worth; --compare adds the bare one."""
    chat = given_chat(options)
    adapter, tools = load_adapter(options)
    model, tokenizer = _model_of_command(options, adapter)
    prompt = encode_prompt(tokenizer, chat, tools)
    ids, mask = pad_batch([prompt], pad_token_id(tokenizer), "left", model.device)
    parser = adapter.parser(tokenizer)
    # Greedy, as in `evaluate` and `explain`: two runs never differ by chance.
    settings = greedy_settings(tokenizer, options.max_new_tokens)

    def answer() -> dict[str, Any]:
        output = model.generate(ids, attention_mask=mask, **settings)
        text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=False)
        calls = [dataclasses.asdict(call) for call in parser.parse(text, tools)]
        checked = parser.check(text, tools or [])
        verdict = ": ".join([answer_verdict(checked), *checked["errors"][:1]])
        return {"answer": text, "calls": calls, "verdict": verdict}

    decision: Decision | None = None
    steered = base = None
    with adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch) as steering:
        if not options.no_steering:
            steered = answer()
            decision = steering.decisions[0]
        if options.no_steering or options.compare:
            with steering.disabled():
                base = answer()
    shown = "[not steered]" if decision is None else _decision_line(decision, adapter.config.abstains)
    result = {**(steered or base or {}), "decision": decision and dataclasses.asdict(decision)}
    if steered is None or base is None:
        return result, f"{result['answer']}\n{folded('[' + result['verdict'] + ']')}\n{shown}"
    text = compared(base["answer"], steered["answer"], ("base", "steered"), width())
    verdicts = "\n".join(folded(f"{name}: {one['verdict']}") for name, one in (("base", base), ("steered", steered)))
    return {**result, "base": base}, f"{text}\n{verdicts}\n{shown}"


def _decision_line(decision: Decision, abstains: bool) -> str:
    """The line of the command `generate` about a decision, in its colour."""
    colour = {1: "green", 0: "bold", -1: "yellow"}[decision.gate]
    why = ": this adapter abstains" if abstains else ""
    return painted(textwrap.fill(f"[{decision}{why}]", width()), colour, sys.stdout)


def explain(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The command `explain`: one prompt with and without the adapter, and what led to the decision."""
    chat = given_chat(options)
    adapter, _ = load_adapter(options)
    model, tokenizer = load_model(options, adapter.config)
    explanation = adapter.explain(
        model,
        tokenizer,
        chat,
        tools=given_tools(options),
        max_new_tokens=options.max_new_tokens,
        allow_mismatch=options.allow_mismatch,
        trust_template=options.trust_template,
    )
    return explanation, str(explanation)


def diagnose(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """All findings, those that are ok included, and what they come to."""
    tools = given_tools(options)
    named = {name: getattr(options, name) for name in ("tool_call_format", "tool_call_start", "tool_call_end")}
    findings = diagnosed(
        *load_model(options),
        tools=tools,
        max_new_tokens=options.max_new_tokens,
        chat_template=given_template(options),
        **named,
    )
    lines = findings_table(findings, width(80)).splitlines()
    marks = {"ok": "green", "!!": "yellow", "--": "bold"}
    coloured = [
        painted(line[:2], marks[line[:2]], sys.stdout) + line[2:] if line[:2] in marks else line for line in lines
    ]
    return [dataclasses.asdict(finding) for finding in findings], "\n".join(coloured)


def push(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """One commit on the Hub, and its URL."""
    adapter = ASAAdapter.from_pretrained(options.adapter, revision=options.revision)
    how: dict[str, Any] = {"branch": options.branch, "create_pr": options.create_pr}
    url = adapter.push_to_hub(options.repo, private=options.private or None, commit_message=options.message, **how)
    return {"repo": options.repo, "commit_url": url}, f"pushed to {url}"


def _model_of_command(options: argparse.Namespace, adapter: ASAAdapter) -> tuple[Any, Any]:
    """The model that a command's adapter is for, rendering prompts as it was fitted."""
    return load_model(options, adapter.config, adapter.config.chat_template)


def _split_seed(options: argparse.Namespace, adapter: ASAAdapter) -> int:
    """The seed of the split; by default the training's, so that testing splits a data set as training did."""
    if options.seed is not None:
        return int(options.seed)
    fitted = Report.read(adapter.report).arguments.get("seed")
    return fitted if type(fitted) is int and fitted >= 0 else ASATrainingArguments().seed
