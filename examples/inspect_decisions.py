"""What an adapter decides for labelled prompts, without generating; then a close look at its worst decision.

python examples/inspect_decisions.py [--model M] [--adapter A] [--data D] [--rows N]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, Decision, load_splits
from asa_adapter.data import row_domain, row_messages
from asa_adapter.states import collect_hidden_states

HERE = Path(__file__).resolve().parent


def main(words: Sequence[str] | None = None) -> list[tuple[dict[str, Any], Decision]]:
    """Returns each row with its decision, the worst first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(HERE / "tiny_lfm2"), help="folder or Hub id (default: the tiny LFM2)")
    parser.add_argument("--adapter", default=HERE / "tiny_lfm2_asa", help="folder or Hub id (default: ours for it)")
    parser.add_argument("--data", default=str(HERE / "data"), help="folder, .jsonl or data set id (default: ours)")
    parser.add_argument("--rows", type=int, default=20, help="so many rows of TEST (default: %(default)s)")
    options = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        rows = list(load_splits(options.data)["test"])[: options.rows]
        adapter = ASAAdapter.from_pretrained(options.adapter)
        tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    model.to(device)

    states = collect_hidden_states(model, tokenizer, rows, tools=adapter.config.tools).states
    decisions = adapter.decide(states[adapter.config.layer])
    pairs = sorted(zip(rows, decisions, strict=True), key=lambda pair: -abs(pair[0]["label"] - pair[1].p_tool))
    print("needed  p(tool)  gate  domain       routed to    prompt")
    for row, d in pairs:
        text = " ".join(str(row_messages(row)[-1]["content"]).split())[:30]
        gate = f"{d.gate:+d}" if d.gate else "0"
        print(f"{row['label']:>6}  {d.p_tool:7.3f}  {gate:>4}  {row_domain(row):<11}  {d.domain:<11}  {text}")

    worst, _ = pairs[0]
    print(f"\n{adapter.explain(model, tokenizer, row_messages(worst), tools=worst.get('tools'))}")
    return pairs


if __name__ == "__main__":
    main()
