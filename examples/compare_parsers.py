"""How many of the tiny LFM2's tool calls can be read: by this package, and by a parser that expects JSON.

python examples/compare_parsers.py [ROWS]

The other parser does what the first public port of the method does: json.loads, then ast.literal_eval, and the result
must be one dict with a name. Both see the same answers of the bare model.
"""

import argparse
import ast
import contextlib
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ToolCallParser, load_splits
from asa_adapter.evaluation import Evaluation

HERE = Path(__file__).resolve().parent


def json_call(payload: str) -> dict[str, Any] | None:
    """The one dict with a name that a payload is, as JSON or as a Python literal; None for anything else."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            value = read(payload.strip())
            return value if isinstance(value, dict) and "name" in value else None
    return None


def main(rows: int) -> dict[str, int]:
    """Reads the calls of the answers to the first TEST prompts by both parsers, and counts them."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(HERE / "tiny_lfm2")
    model = AutoModelForCausalLM.from_pretrained(HERE / "tiny_lfm2", dtype=torch.float32)
    parser = ToolCallParser.from_tokenizer(tokenizer)
    part = list(load_splits(HERE / "data")["test"])[:rows]
    answers = Evaluation(model, tokenizer, parser, batch_size=32, progress=False).answers(part)
    called = [(row, text) for row, text in zip(part, answers, strict=True) if parser.triggered(text)]
    payloads = [text.split(parser.start, 1)[1].split(str(parser.end), 1)[0] for _, text in called]
    checks = [parser.check(text, row["tools"]) for row, text in called]
    counts = {
        "answers": len(part),
        "with a call": len(called),
        "read as JSON": sum(json_call(payload) is not None for payload in payloads),
        "read by asa_adapter": sum(check["format"] for check in checks),
        "fit the tools": sum(check["arguments"] for check in checks),
    }
    for name, count in counts.items():
        print(f"{name:<20} {count:>4}")
    return counts


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("rows", nargs="?", type=int, default=80, help="how many of the TEST prompts to answer")
    main(arguments.parse_args().rows)
