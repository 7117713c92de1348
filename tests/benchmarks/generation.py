"""What answers cost whose rows leave their batch when they have ended, beside one generate() for each batch.

    python tests/benchmarks/generation.py [--model FOLDER] [--rows N] [--repeats N] [--dtype DTYPE] [--layer N]

Rows of the shipped data, 64 new tokens; without --model the tiny LFM2 with its shipped adapter, else a model with an
adapter of random vectors and a small step, so that it answers as without. "Finalists" are the bare model and four
adapters, whose answers end where a call begins; "evaluation" is the bare model and one adapter, to the end. Both ways
take turns in one process on one thread; times are medians of CPU time and hold the prompts too. Exit status 1 where an
answer differs.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import transformers

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors, ToolCallParser, load_splits
from asa_adapter.data.rows import read_tools
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.decoding import Regrouping
from asa_adapter.modeling.residual import decoder_blocks, text_config

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEW_TOKENS, BATCH = 64, 16


def gentle_adapter(model: Any, layer: int) -> ASAAdapter:
    """An adapter that always opens its gate, for a step of a hundredth of the state's length."""
    width, generator = int(text_config(model).hidden_size), np.random.default_rng(0)
    states, labels = generator.normal(size=(80, width)), np.arange(80) % 2
    names = ["any"] * 80
    config = ASAConfig(
        hidden_size=width,
        num_layers=len(decoder_blocks(model)),
        layer=layer,
        domains=("any",),
        tau=0.5,
        alpha=0.01,
        residual_norm=float(np.sqrt(width)),
    )
    vectors = SteeringVectors.fit(states, labels.tolist(), names, ("any",))
    return ASAAdapter(config, vectors, Router.fit(states, names), Probes.fit(states, labels, names))


def compared(asks: Evaluation, rows: list[Any], variants: dict[str, Any], until_call: bool, repeats: int) -> Any:
    """Seconds in whole batches and in rounds, the answers of both, and the tokens of each answer."""
    times: dict[bool, list[float]] = {False: [], True: []}
    found: dict[bool, Any] = {}
    holds = Regrouping.holds
    for _ in range(repeats):
        for rounds in (False, True):
            with mock.patch.object(Regrouping, "holds", holds if rounds else lambda *_: False):
                began = time.process_time()
                found[rounds] = asks.answers_of_each(rows, variants, until_call=until_call)
                times[rounds].append(time.process_time() - began)
    texts = [text for answers in found[True].values() for text in answers]
    lengths = [len(asks.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    pairs = [pair for name in variants for pair in zip(found[False][name], found[True][name], strict=True)]
    return *(statistics.median(times[rounds]) for rounds in (False, True)), pairs, lengths


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", metavar="FOLDER", help="another model than the tiny LFM2")
    parser.add_argument("--rows", type=int, default=160, metavar="N")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layer", type=int, metavar="N", help="where the adapter steers (default: the middle)")
    parser.add_argument("--only", choices=("finalists", "evaluation"))
    return parser.parse_args()


def main() -> int:
    chosen = options()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = chosen.model or EXAMPLES / "tiny_lfm2"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, chosen.dtype)).eval()
    if chosen.model:
        adapter = gentle_adapter(model, chosen.layer or len(decoder_blocks(model)) // 2)
    else:
        adapter = ASAAdapter.from_pretrained(EXAMPLES / "tiny_lfm2_asa")
    rows = list(load_splits(EXAMPLES / "data")["valid"])[: chosen.rows]
    calls, tools = ToolCallParser.from_tokenizer(tokenizer), read_tools(EXAMPLES / "data" / "tools.json")
    asks = Evaluation(model, tokenizer, calls, tools, NEW_TOKENS, BATCH, progress=False)
    stages = {"finalists": (4, True), "evaluation": (1, False)}
    print("| | whole batches | rounds | ratio | tokens: median, mean, most | answers alike |")
    print("|---|---|---|---|---|---|")
    differ = False
    for name, (adapters, until_call) in stages.items():
        if chosen.only in (None, name):
            variants = {"base": None, **{f"adapter {i}": adapter for i in range(adapters)}}
            whole, rounds, pairs, lengths = compared(asks, rows, variants, until_call, chosen.repeats)
            alike = sum(a == b for a, b in pairs)
            differ |= alike < len(pairs)
            size = f"{statistics.median(lengths):.0f}, {statistics.mean(lengths):.1f}, {max(lengths)}"
            print(
                f"| {name}: {adapters + 1} times {len(rows)} rows | {whole:.2f} s | {rounds:.2f} s "
                f"| {rounds / whole:.2f} | {size} | {alike} of {len(pairs)} |"
            )
    print(f"\ntorch {torch.__version__}, transformers {transformers.__version__}, {chosen.dtype}")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
