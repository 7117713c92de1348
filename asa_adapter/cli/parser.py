"""The words that the command line takes, with their help and examples."""

import argparse
import dataclasses
import sys
from typing import Any

from asa_adapter.config.training_arguments import ASATrainingArguments

_DATA_HELP = "folder of cal/train/valid/test.jsonl, one .jsonl file, or Hub id of a data set"
_ADAPTER_HELP = "folder or Hub id of the adapter"
_FIELDS = {field.name: field for field in dataclasses.fields(ASATrainingArguments) if field.metadata}
_ABOUT = """\
first steps:
  asa-adapter diagnose --model MODEL --tools tools.json
  asa-adapter label MODEL ROWS --output DATA
  asa-adapter train --model MODEL --data DATA --output OUT
  asa-adapter generate OUT --model MODEL \\
      --prompt "What is 4821 times 377?" --compare

MODEL: a folder, or an id on the Hub. DATA, and ROWS that
have answers but no labels: the same, or one .jsonl file.
OUT: a folder; commands that read an adapter
take an id on the Hub as well.
asa-adapter COMMAND --help has examples for each command.

exit status: 0 done; 2 bad usage, bad input or an error, as
one line on stderr (--debug: with its traceback);
130 interrupted; 141 output cut short (a closed pipe);
143 stopped (SIGTERM). Finished stages of a training are
kept then: the same command goes on.
environment: HF_HUB_OFFLINE=1 asks no network, NO_COLOR=1
paints nothing, COLUMNS sets the width.
Results go to stdout, progress and errors to stderr.
"""
_EXAMPLES = {
    "train": """\
example:
  asa-adapter train --model LiquidAI/LFM2.5-1.2B-Instruct \\
      --data my_data --output my_adapter

One row of data, as a line of JSON:
  {"instruction": "What is 17 x 23?", "label": 1,
   "domain": "math"}
label 1: a tool is needed. Rows may have "tools" of their
own; tools.json in the folder is for those that have none.
train.jsonl needs at least 8 rows of each label.

After a break the same command goes on where it stopped. The
adapter abstains unless a gain on VALID is sure.
""",
    "label": """\
example:
  asa-adapter label LiquidAI/LFM2.5-1.2B-Instruct my_rows \\
      --output my_data --times 5 --fails 3

One row of my_rows, as a line of JSON:
  {"instruction": "What is 4821 times 377?",
   "answer": 1817517, "domain": "math"}
The answer: a number, a text, a date such as "2031-05-14",
{"value": 4.83, "tolerance": 0.01, "unit": "km"}, or a list
of these, any of which is right.

The model answers without tools, first greedily, then by
sampling. Label 1 (a tool is needed): it failed often
enough. What it said is kept with each row, in "tried".

After a break the same command goes on with the splits that
are missing. Labels made in another way are not mixed in.
""",
    "evaluate": """\
examples:
  asa-adapter evaluate my_adapter --model MODEL \\
      --data my_data
  asa-adapter evaluate my_adapter --model MODEL \\
      --data my_data --split valid --ablations --json
""",
    "generate": """\
examples:
  asa-adapter generate my_adapter --model MODEL \\
      --prompt "What is 4821 times 377?" --compare
  asa-adapter generate my_adapter --model MODEL \\
      --prompt "Hello!" --no-steering --json

Answers are greedy: the likeliest token at each step and no
sampling, whatever the model's own settings say.

The decision: the steered token, the routed domain, p(tool
needed), the gate (+1 towards a call, -1 away from it, 0
nothing), and how long the step was that was added.
""",
    "explain": """\
example:
  asa-adapter explain my_adapter --model MODEL \\
      --prompt "What is 17 x 23?" --tools tools.json
""",
    "diagnose": """\
example:
  asa-adapter diagnose --model MODEL --tools tools.json

A tool is a JSON schema:
  {"name": "calculator", "description": "Computes.",
   "parameters": {"type": "object", "properties":
    {"expression": {"type": "string"}}}}
Findings marked !! are no errors: the exit status is 0.
""",
    "inspect": """\
examples:
  asa-adapter inspect my_adapter
  asa-adapter inspect user/lfm25-asa --revision main --json

No model is loaded, and no code of the adapter's is run.
""",
    "push": """\
example:
  hf auth login
  asa-adapter push my_adapter user/lfm25-asa --private
""",
}


class _Help(argparse.HelpFormatter):
    """Folds a sentence and leaves examples, which have lines of their own, as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def command_parser() -> argparse.ArgumentParser:
    """All commands with their options; each result names its `command`."""
    parser = argparse.ArgumentParser(
        prog="asa-adapter",
        description="Activation Steering Adapters: fit, measure and use them. Tool calls when needed, and only then.",
        epilog=_ABOUT,
        formatter_class=_Help,
    )
    own_version = sys.modules["asa_adapter"].__version__
    parser.add_argument("--version", action="version", version=f"asa-adapter {own_version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _add_label(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_generate(commands)
    _add_explain(commands)
    _add_diagnose(commands)
    _add_inspect(commands)
    _add_push(commands)
    return parser


def _plain_command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """A command that needs no model."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=_EXAMPLES[name],
        formatter_class=_Help,
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON, without progress bars")
    command.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return command


def _command(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command = _plain_command(commands, name, summary)
    command.add_argument("--model", required=True, metavar="M", help="folder or Hub id of the base model")
    command.add_argument("--tools", metavar="FILE", help="JSON file with a list of JSON-schema tools")
    _add_field(command, "max_new_tokens")
    command.add_argument("--quiet", action="store_true", help="no progress bars")
    return command


def _add_label(commands: Any) -> None:
    label = _plain_command(commands, "label", "Label rows by trying: a tool is needed where the model alone fails.")
    label.add_argument("model", metavar="MODEL", help="folder or Hub id of the base model")
    label.add_argument("data", metavar="DATA", help=_DATA_HELP + "; labels are not needed")
    label.add_argument("--output", required=True, metavar="O", help="folder to write the labelled splits to")
    label.add_argument("--answers", default="answer", metavar="FIELD", help="column of the answers (default: answer)")
    label.add_argument("--times", type=int, default=5, metavar="N", help="answers to each row (default: 5)")
    label.add_argument("--fails", type=int, metavar="K", help="failures that make label 1 (default: over half)")
    label.add_argument("--temperature", type=float, default=0.7, metavar="T", help="of sampled answers (default: 0.7)")
    label.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)")
    for name in ("batch_size", "seed"):
        _add_field(label, name)
    label.add_argument("--quiet", action="store_true", help="no progress bars")


def _add_train(commands: Any) -> None:
    train = _command(commands, "train", "Fit an adapter, measure it on the test split and save it.")
    train.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    train.add_argument("--output", required=True, metavar="O", help="folder to save the adapter in")
    for name in sorted(_FIELDS, key=_kind):
        if name != "max_new_tokens":  # every command with a model has it
            _add_field(train, name)


def _kind(name: str) -> tuple[bool, bool]:
    """Sorts lists first, then texts, then single values; each kind stays in the order of the fields."""
    metadata = _FIELDS[name].metadata
    return "nargs" not in metadata, metadata.get("type") is not str


def _add_field(command: argparse.ArgumentParser, name: str) -> None:
    """The flag of one training argument."""
    field = _FIELDS[name]
    # argparse would read "all" as the number of a layer.
    default = None if field.default == "all" else field.default
    command.add_argument("--" + name.replace("_", "-"), default=default, **field.metadata)


def _add_evaluate(commands: Any) -> None:
    evaluate = _command(commands, "evaluate", "Compare the bare model with the steered one on labelled data.")
    _add_adapter(evaluate)
    evaluate.add_argument("--seed", type=int, metavar="N", help="seed of the split (default: that of the training)")
    evaluate.add_argument("--data", required=True, metavar="D", help=_DATA_HELP)
    evaluate.add_argument(
        "--ablations", action="store_true", help="also measure the adapter with one part taken away, and simpler rules"
    )
    evaluate.add_argument("--split", default="test", metavar="S", help="cal, train, valid or test (default: test)")
    _add_field(evaluate, "batch_size")


def _add_adapter(command: argparse.ArgumentParser) -> None:
    command.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    command.add_argument(
        "--allow-mismatch", action="store_true", help="only warn where model or chat template look like others"
    )
    command.add_argument(
        "--trust-template", action="store_true", help="render prompts with a chat template that is from the Hub too"
    )


def _add_generate(commands: Any) -> None:
    generate = _command(commands, "generate", "Answer one prompt, steered, and show the decision.")
    _add_adapter(generate)
    generate.add_argument("--prompt", required=True, metavar="P", help="what the user says")
    how = generate.add_mutually_exclusive_group()
    how.add_argument("--no-steering", action="store_true", help="answer with the bare model")
    how.add_argument("--compare", action="store_true", help="show the bare model's answer too")


def _add_explain(commands: Any) -> None:
    explain = _command(commands, "explain", "Answer one prompt with and without the adapter, and show what led to it.")
    _add_adapter(explain)
    explain.add_argument("--prompt", required=True, metavar="P", help="what the user says")


def _add_diagnose(commands: Any) -> None:
    _command(commands, "diagnose", "Check prompts, markers and parser before blaming the model.")


def _add_inspect(commands: Any) -> None:
    inspect = _plain_command(commands, "inspect", "Show an adapter: what it steers and what was measured.")
    inspect.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    inspect.add_argument("--revision", metavar="R", help="branch, tag or commit on the Hub (default: main)")


def _add_push(commands: Any) -> None:
    push = _plain_command(commands, "push", "Push an adapter to the Hugging Face Hub, in one commit.")
    push.add_argument("adapter", metavar="ADAPTER", help=_ADAPTER_HELP)
    push.add_argument("repo", metavar="REPO", help="user/name; made where it is missing")
    push.add_argument("--private", action="store_true", help="make a new repository private")
