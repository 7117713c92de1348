"""A request that needs two calls, answered by the model alone and with an adapter, decision by decision.

python examples/two_calls.py [REQUEST] [--model M] [--adapter A] [--output FOLDER]

The tiny chat model mostly stops after the first call. Without --adapter one is fitted first, on the states of our
conversations at one layer and with one step: a minute on one core. What a whole training comes to stands in
asa_adapter/trajectories/README.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from chat_tools import calculator
from chat_with_tools import Chat
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, load_splits

HERE = Path(__file__).resolve().parent
REQUEST = "work out 347 * 28 and 912 - 45"
QUICK: dict[str, Any] = {"layers": [6], "read_layers": [1], "alphas": [1.0], "betas": [1.0], "finalists": 1}


def fitted(model: Any, tokenizer: Any, data: Path, output: str | None = None) -> ASAAdapter:
    """An adapter for both kinds of state, behind a turn of the user and behind a result."""
    arguments = ASATrainingArguments(**QUICK, vary_tools=False, output_dir=output)
    trainer = ASATrainer(model, tokenizer, load_splits(data), arguments)
    adapter = trainer.train()
    print(trainer.report["chosen"]["why"])
    return adapter


def shown(model: Any, tokenizer: Any, adapter: ASAAdapter, request: str) -> Iterator[str]:
    """The lines of both conversations."""
    behind, parser = "after_result" in adapter.config.states, adapter.parser(tokenizer)
    with adapter.attach(model, tokenizer=tokenizer) as steering:
        for name, steered in (("The model alone", False), ("With the adapter", True)):
            how: dict[str, Any] = {"max_new_tokens": 64, "behind_results": behind, "steered": steered}
            chat = Chat(model, tokenizer, steering, parser, [calculator], adapter.config.tools, **how)
            yield f"\n{name}: {request}"
            yield from chat.turn(request)


def main(words: Sequence[str] | None = None) -> None:
    """Loads or fits an adapter, and shows the request with and without it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("request", nargs="?", default=REQUEST, help="what the user asks (default: %(default)s)")
    parser.add_argument("--model", default=str(HERE / "tiny_lfm2_chat"), help="folder or Hub id (default: tiny chat)")
    parser.add_argument("--adapter", help="folder or Hub id; without one it is fitted first")
    parser.add_argument("--data", type=Path, default=HERE / "data" / "conversations", help="what it is fitted on")
    parser.add_argument("--output", help="folder for the adapter that is fitted")
    options = parser.parse_args(words)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        adapter = ASAAdapter.from_pretrained(options.adapter) if options.adapter else None
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    adapter = adapter or fitted(model, tokenizer, options.data, options.output)
    for line in shown(model, tokenizer, adapter, options.request):
        print(line)


if __name__ == "__main__":
    main()
