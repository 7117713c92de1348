"""The words that the command line takes, with their help and examples."""

import argparse
import dataclasses
import sys
from typing import Any, NoReturn

from asa_adapter.cli.help_texts import ABOUT, EXAMPLES
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.errors import visible

_DATA_HELP = "folder of train, valid and test, one .jsonl or .csv file, or Hub id of a data set"
_MODEL_HELP = "folder or Hub id of the base model, or a .gguf file, which llama.cpp runs"
_ADAPTER_HELP = "folder or Hub id of the adapter"
ENGINES = ("transformers", "vllm", "gguf")
_PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# The options of `train` under their heads; those of no group run it.
_GROUPS = {
    "what to try": (
        *("layers", "alphas", "taus", "betas", "read_layers", "actions", "policies", "finalists", "vary_tools"),
    ),
    "what to choose by": ("objective", "max_fpr", "max_fpr_confidence", "cost", "success_required"),
    "prompts and calls": (
        *("without_tools", "chat_template", "tool_call_format", "tool_call_start", "tool_call_end", "max_new_tokens"),
    ),
}
_FIELDS = {field.name: field for field in dataclasses.fields(ASATrainingArguments) if field.metadata}


class _Help(argparse.HelpFormatter):
    """Folds a sentence and leaves examples, which have lines of their own, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


class _OptionParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(visible(message))  # it quotes words, which the shell may have taken from names of files


def command_parser() -> argparse.ArgumentParser:
    """All commands with their options; each result names its `command`."""
    parser = _OptionParser(
        prog="asa-adapter",
        description="Activation Steering Adapters: fit, measure and use them. Tool calls when needed, and only then.",
        epilog=ABOUT,
        formatter_class=_Help,
    )
    own_version = sys.modules["asa_adapter"].__version__
    parser.add_argument("--version", action="version", version=f"asa-adapter {own_version}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    _add_label(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_generate(commands)
    _add_explain(commands)
    _add_verify(commands)
    _add_diagnose(commands)
    _add_serve(commands)
    _add_inspect(commands)
    _add_push(commands)
    return parser


def _plain_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A command that needs no model."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=EXAMPLES[name],
        formatter_class=_Help,
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON, without progress bars")
    command.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return command


def _command(
    commands: Any, name: str, summary: str, adapter: bool = False, needed: bool = True
) -> argparse.ArgumentParser:
    """A command that runs a model, which is `needed` unless it takes an adapter, since that may name one."""
    command = _plain_command(commands, name, summary)
    named = _MODEL_HELP + (" (default: the one that the adapter names)" if adapter else "")
    command.add_argument("--model", required=needed and not adapter, metavar="M", help=named)
    command.add_argument("--tools", metavar="FILE", help="JSON file with a list of JSON-schema tools")
    if adapter:
        _add_adapter(command)
    if name != "train":  # which has it in a group
        _add_field(command, "max_new_tokens")
    _add_running(command)
    return command


def _add_running(command: Any) -> None:
    """Where and how the model runs."""
    command.add_argument(
        "--tokenizer", metavar="T", help="folder or Hub id of the tokenizer (default: the model's own)"
    )
    command.add_argument("--n-ctx", type=int, metavar="N", help="of a .gguf: most tokens of a chat (default: 4096)")
    command.add_argument("--threads", type=int, metavar="N", help="of a .gguf: threads (default: one for each core)")
    command.add_argument("--revision", metavar="R", help="branch, tag or commit of the model on the Hub")
    command.add_argument("--device", metavar="D", help="such as cpu, cuda:1 or mps (default: a GPU if there is one)")
    command.add_argument(
        "--dtype",
        choices=_PRECISIONS,
        metavar="T",
        help="auto (the checkpoint's), float32, bfloat16 or float16 (default: auto on a GPU, else float32)",
    )
    command.add_argument("--quiet", action="store_true", help="no progress bars, and no lines about stages")


def _add_engine(command: Any) -> None:
    told = "what runs it (default: gguf for a .gguf, else transformers)"
    command.add_argument("--engine", choices=ENGINES, help=told)
    command.add_argument("--engine-args", metavar="JSON", help="of vllm: further arguments of vllm.LLM")


def _add_label(commands: Any) -> None:
    label = _plain_command(commands, "label", "Label rows by trying: a tool is needed where the model alone fails.")
    label.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    label.add_argument("data", metavar="DATA", help=_DATA_HELP + "; labels are not needed")
    label.add_argument("--output", required=True, metavar="O", help="folder to write the labelled splits to")
    label.add_argument("--answers", default="answer", metavar="FIELD", help="column of the answers (default: answer)")
    label.add_argument("--times", type=int, default=5, metavar="N", help="answers to each row (default: 5)")
    label.add_argument("--fails", type=int, metavar="K", help="failures that make label 1 (default: over half)")
    label.add_argument("--temperature", type=float, default=0.7, metavar="T", help="of sampled answers (default: 0.7)")
    label.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    for name in ("batch_size", "seed"):
        _add_field(label, name)
    _add_running(label)


def _add_train(commands: Any) -> None:
    train = _plain_command(commands, "train", "Fit an adapter, measure it on the test split and save it.")
    train.add_argument("--model", required=True, metavar="M", help=_MODEL_HELP)
    train.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    train.add_argument("--tools", metavar="FILE", help="JSON file of tools for rows that have none of their own")
    train.add_argument("--output", required=True, metavar="O", help="folder to save the adapter in")
    train.add_argument("--push", metavar="REPO", help="push it there on the Hub, too: user/name")
    train.add_argument("--private", action="store_true", help="make a new repository private")
    for head, names in _GROUPS.items():
        group = train.add_argument_group(head)
        for name in names:
            _add_field(group, name)
    running = train.add_argument_group("how to run it")
    for name in _FIELDS:
        if not any(name in names for names in _GROUPS.values()):
            _add_field(running, name)
    _add_running(running)


def _add_field(command: Any, name: str) -> None:
    """The flag of one training argument."""
    field = _FIELDS[name]
    # argparse would read "all" as the number of a layer.
    default = None if field.default == "all" else field.default
    command.add_argument("--" + name.replace("_", "-"), default=default, **field.metadata)


def _add_evaluate(commands: Any) -> None:
    evaluate = _command(commands, "evaluate", "Compare the bare model with the steered one on labelled data.", True)
    evaluate.add_argument("--seed", type=int, metavar="N", help="seed of the split (default: that of the training)")
    what = evaluate.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", metavar="D", help=_DATA_HELP)
    what.add_argument(
        "--conversations", metavar="D", help="whole conversations instead: a .jsonl, or a folder that has the split"
    )
    evaluate.add_argument(
        "--ablations", action="store_true", help="also measure the adapter with one part taken away, and simpler rules"
    )
    evaluate.add_argument("--split", default="test", metavar="S", help="cal, train, valid or test (default: test)")
    _add_field(evaluate, "batch_size")


def _add_adapter(command: argparse.ArgumentParser) -> None:
    command.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    _add_trust(command)


def _add_trust(command: argparse.ArgumentParser) -> None:
    """Which version of an adapter, and how far it is trusted."""
    command.add_argument("--adapter-revision", metavar="R", help="branch, tag or commit of the adapter on the Hub")
    command.add_argument(
        "--allow-mismatch", action="store_true", help="only warn where model or chat template look like others"
    )
    command.add_argument(
        "--trust-template", action="store_true", help="render prompts with a chat template that is from the Hub too"
    )


def _add_prompt(command: argparse.ArgumentParser) -> None:
    said = command.add_mutually_exclusive_group(required=True)
    said.add_argument("--prompt", metavar="P", help="what the user says; - reads it from stdin")
    said.add_argument("--messages", metavar="FILE", help="JSON file with a chat: turns with role and content")


def _add_generate(commands: Any) -> None:
    generate = _command(commands, "generate", "Answer one prompt, steered, and show the decision.", True)
    _add_prompt(generate)
    how = generate.add_mutually_exclusive_group()
    how.add_argument("--no-steering", action="store_true", help="answer with the bare model")
    how.add_argument("--compare", action="store_true", help="show the bare model's answer too")


def _add_explain(commands: Any) -> None:
    summary = "Answer one prompt with and without the adapter, and show what led to it."
    _add_prompt(_command(commands, "explain", summary, True))


def _add_verify(commands: Any) -> None:
    verify = _plain_command(commands, "verify", "Does the adapter do here what it did where it was fitted?")
    verify.add_argument("--model", metavar="M", help=f"{_MODEL_HELP} (default: the one that the adapter names)")
    _add_engine(verify)
    verify.add_argument(
        "--store", action="store_true", help="keep what is seen in the adapter's folder; replaces that"
    )
    _add_adapter(verify)
    _add_running(verify)


def _add_diagnose(commands: Any) -> None:
    summary = "Check prompts, markers and parser before blaming the model; or a server, by asking it."
    diagnose = _command(commands, "diagnose", summary, needed=False)
    diagnose.add_argument("--url", metavar="U", help="ask a server of OpenAI's interface instead, and name its faults")
    diagnose.add_argument("--api-key", metavar="K", help="of that server (default: ASA_API_KEY, if it is set)")
    for name in ("chat_template", "tool_call_format", "tool_call_start", "tool_call_end"):
        _add_field(diagnose, name)


def _add_serve(commands: Any) -> None:
    serve = _plain_command(commands, "serve", "Serve a steered model to every client of OpenAI's interface.")
    serve.add_argument("model", metavar="MODEL", help=_MODEL_HELP)
    serve.add_argument("--adapter", required=True, metavar="A", help=_ADAPTER_HELP)
    _add_trust(serve)
    _add_engine(serve)
    serve.add_argument("--name", metavar="N", help="what clients call the model (default: the end of MODEL)")
    serve.add_argument("--host", default="127.0.0.1", metavar="H", help="where it listens (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: 8000)")
    serve.add_argument(
        "--api-key", metavar="K", help="what clients have to send (default: ASA_API_KEY, if it is set, else none)"
    )
    serve.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer unless asked (default: 512; not of vllm)"
    )
    serve.set_defaults(tools=None)  # each request brings its own
    _add_running(serve)


def _add_inspect(commands: Any) -> None:
    inspect = _plain_command(commands, "inspect", "Show an adapter: what it steers and what was measured.")
    inspect.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    inspect.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub (default: main)")


def _add_push(commands: Any) -> None:
    push = _plain_command(commands, "push", "Push an adapter to the Hugging Face Hub, in one commit.")
    push.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    push.add_argument("repo", metavar="REPO", help="user/name; made where it is missing")
    push.add_argument("--revision", metavar="R", help="branch, tag or commit of ADAPTER on the Hub (default: main)")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    where = push.add_mutually_exclusive_group()
    where.add_argument("--branch", metavar="B", help="where the commit goes; made where it is missing (default: main)")
    where.add_argument("--create-pr", action="store_true", help="open a pull request instead")
    push.add_argument("--message", metavar="TEXT", help="what the commit says")
