"""The command line: `asa-adapter train`, `evaluate`, `generate`, `explain`, `diagnose`, `inspect` and `push`."""

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asa_adapter.ablation import ablations
from asa_adapter.adapter import ASAAdapter
from asa_adapter.arguments import OBJECTIVES, ASATrainingArguments
from asa_adapter.card import markdown_table
from asa_adapter.data import load_splits, read_tools
from asa_adapter.diagnosis import diagnose, findings_table
from asa_adapter.evaluate import Evaluation
from asa_adapter.files import looks_like_path, make_writable_folder
from asa_adapter.inspection import inspection, inspection_text
from asa_adapter.metrics import calls_table
from asa_adapter.processes import Processes, launched_processes
from asa_adapter.prompts import encode_prompt, pad_batch, pad_token_id, with_chat_template
from asa_adapter.stages import STAGES_NAME
from asa_adapter.trainer import ASATrainer

_DATA_HELP = "folder of cal/train/valid/test.jsonl, one .jsonl file, or Hub id of a data set"
_ADAPTER_HELP = "folder or Hub id of the adapter"
_DEFAULTS = ASATrainingArguments()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: the words after `asa-adapter`; those of the process where None.

    Returns:
        0 on success, 2 on bad usage or bad input, 130 when interrupted.
    """
    parser = _parser()
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    try:
        with launched_processes() as processes:
            result, text = options.run(options)
    except KeyboardInterrupt:
        output = getattr(options, "output", None)
        kept = output is not None and (Path(output) / STAGES_NAME).is_dir()
        how = f"finished stages are kept in {output}: run the same command to go on" if kept else "nothing was saved"
        print(f"asa-adapter: interrupted; {how}", file=sys.stderr)
        return 130
    # Whatever went wrong, in our code or in a library's, a shell wants one line; --debug shows the rest.
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        print(f"asa-adapter: error: {_one_line(error)}", file=sys.stderr)
        return 2
    if processes.is_main:
        print(_json_text(result) if options.json else text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asa-adapter",
        description="Activation Steering Adapters: fit, measure and use them. Tool calls when needed, and only then.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_generate(commands)
    _add_explain(commands)
    _add_diagnose(commands)
    _add_inspect(commands)
    _add_push(commands)
    return parser


def _plain_command(commands: Any, name: str, run: Callable[..., Any], summary: str) -> argparse.ArgumentParser:
    """A command that needs no model."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print the result as JSON, without progress bars")
    command.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return command


def _command(commands: Any, name: str, run: Callable[..., Any], summary: str) -> argparse.ArgumentParser:
    command = _plain_command(commands, name, run, summary)
    command.add_argument("--model", required=True, metavar="M", help="folder or Hub id of the base model")
    command.add_argument("--tools", metavar="FILE", help="JSON file with a list of JSON-schema tools")
    command.add_argument(
        "--max-new-tokens", type=_positive, default=64, metavar="N", help="longest answer (default: 64)"
    )
    command.add_argument("--quiet", action="store_true", help="no progress bars")
    return command


def _add_train(commands: Any) -> None:
    train = _command(commands, "train", _train, "Fit an adapter, measure it on the test split and save it.")
    train.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    train.add_argument("--output", required=True, metavar="O", help="folder to save the adapter in")
    train.add_argument("--layers", type=int, nargs="+", metavar="L", help="decoder blocks to try (default: all)")
    for name, meaning in (
        ("alphas", "steps to try, in units of the mean residual norm"),
        ("taus", "confidences to try, 0.5 to 1"),
        ("betas", "shares of the global direction to try, 0 to 1"),
    ):
        default = getattr(_DEFAULTS, name)
        words = " ".join(f"{value:g}" for value in default)
        train.add_argument(
            f"--{name}", type=float, nargs="+", default=default, metavar="X", help=f"{meaning} (default: {words})"
        )
    train.add_argument("--chat-template", metavar="FILE", help="Jinja template for the prompts (default: the model's)")
    train.add_argument("--tool-call-format", metavar="F", help="how the model writes calls (default: found)")
    train.add_argument("--tool-call-start", metavar="S", help="marker that opens a call, if not the format's")
    train.add_argument("--tool-call-end", metavar="S", help="marker that closes a call, if not the format's")
    train.add_argument("--objective", choices=OBJECTIVES, default="f1", help="what to maximise (default: f1)")
    train.add_argument("--max-fpr", type=float, metavar="X", help="maximise recall with at most this FPR instead")
    train.add_argument(
        "--finalists", type=_positive, default=4, metavar="N", help="settings decided by generation (default: 4)"
    )
    train.add_argument(
        "--batch-size", type=_positive, default=16, metavar="N", help="prompts run together (default: 16)"
    )
    train.add_argument("--seed", type=int, default=42, metavar="N", help="seed of everything random (default: 42)")


def _add_evaluate(commands: Any) -> None:
    evaluate = _command(
        commands, "evaluate", _evaluate, "Compare the bare model with the steered one on labelled data."
    )
    _add_adapter(evaluate)
    evaluate.add_argument("--seed", type=int, metavar="N", help="seed of the split (default: that of the training)")
    evaluate.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    evaluate.add_argument(
        "--ablations", action="store_true", help="also measure the adapter with one part taken away or spoilt"
    )
    evaluate.add_argument("--split", default="test", metavar="S", help="cal, train, valid or test (default: test)")
    evaluate.add_argument(
        "--batch-size", type=_positive, default=16, metavar="N", help="prompts run together (default: 16)"
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _add_adapter(command: argparse.ArgumentParser) -> None:
    command.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    command.add_argument(
        "--allow-mismatch", action="store_true", help="only warn where model or chat template look like others"
    )


def _add_generate(commands: Any) -> None:
    generate = _command(commands, "generate", _generate, "Answer one prompt, steered, and show the decision.")
    _add_adapter(generate)
    generate.add_argument("--prompt", required=True, metavar="P", help="what the user says")
    generate.add_argument("--no-steering", action="store_true", help="answer with the bare model")


def _add_explain(commands: Any) -> None:
    explain = _command(
        commands, "explain", _explain, "Answer one prompt with and without the adapter, and show what led to it."
    )
    _add_adapter(explain)
    explain.add_argument("--prompt", required=True, metavar="P", help="what the user says")


def _add_diagnose(commands: Any) -> None:
    _command(commands, "diagnose", _diagnose, "Check prompts, markers and parser before blaming the model.")


def _add_inspect(commands: Any) -> None:
    inspect = _plain_command(commands, "inspect", _inspect, "Show an adapter: what it steers and what was measured.")
    inspect.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    inspect.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub (default: main)")


def _add_push(commands: Any) -> None:
    push = _plain_command(commands, "push", _push, "Push an adapter to the Hugging Face Hub, in one commit.")
    push.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    push.add_argument("repo", metavar="REPO", help="user/name; made where it is missing")
    push.add_argument("--private", action="store_true", help="make a new repository private")


def _train(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    names = {field.name for field in dataclasses.fields(ASATrainingArguments)}
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if options.chat_template is not None:
        given["chat_template"] = Path(options.chat_template).read_text(encoding="utf-8")
    arguments = ASATrainingArguments(**given, output_dir=options.output, progress=_progress(options))
    splits = load_splits(options.data, seed=options.seed)
    tools = _tools(options)
    if Processes().is_main:
        make_writable_folder(Path(options.output))
    model, tokenizer = _load_model(options.model)
    trainer = ASATrainer(model, tokenizer, splits, arguments, tools)
    adapter = trainer.train()
    results = trainer.evaluate("test")
    chosen = trainer.report["chosen"]
    text = f"{adapter}\n{chosen['why']}\n\nTEST\n{markdown_table(results)}\n\nsaved in {options.output}"
    return {"chosen": chosen, "test": results, "output": options.output}, text


def _evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    adapter = ASAAdapter.from_pretrained(options.adapter)
    tools = _tools(options) or adapter.config.tools
    splits = load_splits(options.data, seed=_seed(options, adapter))
    if options.split not in splits:
        raise ValueError(f"split is {options.split!r}; expected one of {', '.join(splits)}")
    model, tokenizer = _load_model(options.model)
    tokenizer = with_chat_template(tokenizer, adapter.config.chat_template)
    # Refuses a model that does not fit, before any work.
    adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch).remove()
    evaluation = Evaluation(
        model,
        tokenizer,
        adapter.config.parser(tokenizer),
        tools,
        options.max_new_tokens,
        options.batch_size,
        _progress(options),
    )
    rows = list(splits[options.split])
    variants = ablations(adapter) if options.ablations else {}
    results = evaluation.compare(rows, adapter)
    found: dict[str, Any] = {options.split: results}
    text = f"{options.split.upper()}\n{markdown_table(results)}\n\n{calls_table(results)}"
    if options.ablations:
        measured = {
            name: evaluation.metrics(rows, evaluation.answers(rows, variant, name))
            for name, variant in variants.items()
            if name != "full"
        }
        found["ablations"], text = measured, f"{text}\n\nABLATIONS\n{markdown_table(measured)}"
    return found, text


def _generate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    adapter = ASAAdapter.from_pretrained(options.adapter)
    tools = _tools(options) or adapter.config.tools
    model, tokenizer = _load_model(options.model)
    tokenizer = with_chat_template(tokenizer, adapter.config.chat_template)
    prompt = encode_prompt(tokenizer, [{"role": "user", "content": options.prompt}], tools)
    ids, mask = pad_batch([prompt], pad_token_id(tokenizer), "left", model.device)
    with adapter.attach(model, tokenizer=tokenizer, allow_mismatch=options.allow_mismatch) as steering:
        with steering.disabled() if options.no_steering else contextlib.nullcontext():
            output = model.generate(ids, attention_mask=mask, max_new_tokens=options.max_new_tokens)
        decisions = [dataclasses.asdict(decision) for decision in steering.decisions]
    answer = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=False)
    decision = decisions[0] if decisions else None
    calls = [dataclasses.asdict(call) for call in adapter.config.parser(tokenizer).parse(answer, tools)]
    shown = "not steered" if decision is None else ", ".join(f"{key} {value}" for key, value in decision.items())
    return {"answer": answer, "decision": decision, "calls": calls}, f"{answer}\n[{shown}]"


def _explain(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    adapter = ASAAdapter.from_pretrained(options.adapter)
    tools = _tools(options)
    model, tokenizer = _load_model(options.model)
    explanation = adapter.explain(
        model,
        tokenizer,
        options.prompt,
        tools=tools,
        max_new_tokens=options.max_new_tokens,
        allow_mismatch=options.allow_mismatch,
    )
    return explanation, str(explanation)


def _diagnose(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    tools = _tools(options)
    findings = diagnose(*_load_model(options.model), tools=tools, max_new_tokens=options.max_new_tokens)
    width = min(80, shutil.get_terminal_size((80, 24)).columns)
    return [dataclasses.asdict(finding) for finding in findings], findings_table(findings, width)


def _inspect(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    adapter = ASAAdapter.from_pretrained(options.adapter, revision=options.revision)
    return inspection(adapter, options.adapter), inspection_text(adapter, options.adapter)


def _push(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    adapter = ASAAdapter.from_pretrained(options.adapter)
    url = adapter.push_to_hub(options.repo, private=options.private or None)
    return {"repo": options.repo, "commit_url": url}, f"pushed to {url}"


def _load_model(name: str) -> tuple[Any, Any]:
    """Model and tokenizer, on the GPU in the checkpoint's own precision where there is one, else in float32."""
    import torch
    import transformers

    if not Path(name).exists() and looks_like_path(name):
        raise FileNotFoundError(f"no model folder at {name}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.float32 if device == "cpu" else "auto"
    )
    return model.to(device).eval(), tokenizer


def _seed(options: argparse.Namespace, adapter: ASAAdapter) -> int:
    """The seed of the split: a set that was split for training must be split alike for testing."""
    fitted = (adapter.report or {}).get("arguments", {}).get("seed")
    return options.seed if options.seed is not None else fitted if isinstance(fitted, int) else _DEFAULTS.seed


def _tools(options: argparse.Namespace) -> list[dict[str, Any]] | None:
    if options.tools is None:
        return None
    path = Path(options.tools)
    if not path.is_file():
        raise FileNotFoundError(f"no tools file at {path}")
    return read_tools(path)


def _progress(options: argparse.Namespace) -> bool:
    return not (options.quiet or options.json)


def _json_text(result: Any) -> str:
    # A model can write half a surrogate pair, which no output takes; escaped it is JSON.
    return json.dumps(result, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace").decode()


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:500]
    known = isinstance(error, ValueError | TypeError | OSError)
    return text if known and text else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    sys.exit(main())
