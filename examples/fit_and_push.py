"""Fit an adapter for a model, measure it on TEST, and push it to the Hub; without --repo it stays in a folder.

python examples/fit_and_push.py [--model M] [--data D] [--output FOLDER] [--repo USER/NAME]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.files import make_writable_folder
from asa_adapter.hub import metrics_table

HERE = Path(__file__).resolve().parent


def main(words: Sequence[str] | None = None) -> str:
    """Returns where the adapter went: the folder, or the URL of the commit on the Hub."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(HERE / "tiny_lfm2"), help="folder or Hub id (default: the tiny LFM2)")
    parser.add_argument("--data", default=str(HERE / "data"), help="folder, .jsonl or data set id (default: ours)")
    parser.add_argument("--layers", type=int, nargs="+", help="decoder blocks to try (default: all)")
    parser.add_argument("--output", default="out/my-adapter", help="folder (default: %(default)s)")
    parser.add_argument("--repo", help="USER/NAME on the Hub; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--license", help="the adapter's licence for its model card, such as apache-2.0")
    options = parser.parse_args(words)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = "auto" if device == "cuda" else torch.float32
    try:
        make_writable_folder(Path(options.output))  # now, not behind minutes of work
        splits = load_splits(options.data)
        tokenizer: Any = AutoTokenizer.from_pretrained(options.model)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    model.to(device)

    arguments = ASATrainingArguments(layers=options.layers or "all", output_dir=options.output)
    trainer = ASATrainer(model, tokenizer, splits, arguments)
    adapter = trainer.train()
    print(f"\n{adapter}\n{trainer.report['chosen']['why']}")
    print(f"\nTEST\n{metrics_table(trainer.evaluate('test'))}\n")

    if options.license:  # for the model card; more that only you know goes here: datasets, language, data_license
        trainer.report["metadata"] = {"license": options.license}
    adapter.save_pretrained(options.output)
    where = adapter.push_to_hub(options.repo, private=options.private or None) if options.repo else options.output
    print(f"the adapter is in {where}")
    return where


if __name__ == "__main__":
    main()
