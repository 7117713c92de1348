"""Load an adapter, steer a model with it, and compare its answer with that of the bare model.

python examples/load_and_generate.py [--model M] [--adapter A] [--tools FILE] [--prompt P]
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter

HERE = Path(__file__).resolve().parent


def main(words: Sequence[str] | None = None) -> dict[str, str]:
    """Returns the two answers, "base" and "steered"."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(HERE / "tiny_lfm2"), help="folder or Hub id (default: the tiny LFM2)")
    parser.add_argument("--adapter", default=HERE / "tiny_lfm2_asa", help="folder or Hub id (default: ours for it)")
    parser.add_argument("--tools", default=HERE / "data" / "tools.json", help="JSON list of tools (default: ours)")
    parser.add_argument("--prompt", default="how much is 48713 times 9264", help="what you say (default: %(default)s)")
    options = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        tools = json.loads(Path(options.tools).read_text("utf-8"))
        adapter = ASAAdapter.from_pretrained(options.adapter)
        tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    model.to(device)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": options.prompt}],
        tools=tools,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    ).to(device)
    base = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    with adapter.attach(model, tokenizer=tokenizer) as steering:
        steered = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        print(steering.decisions[0])  # domain, p(tool), gate and step

    start = inputs["input_ids"].shape[1]
    answers = {"base": tokenizer.decode(base[0, start:]), "steered": tokenizer.decode(steered[0, start:])}
    for name, answer in answers.items():
        print(f"{name:<8} {answer}")
    return answers


if __name__ == "__main__":
    main()
