"""Gates under other lists of tools, of probes that were fitted with and without such lists: medians over draws.

    python tests/benchmarks/varied_tools.py [--model FOLDER] [--seeds 5] [--train]

Each seed draws CAL, TRAIN and VALID anew (redraw.py). The layer is the one that reads TRAIN best out of fold, tau is
.5, and the probe is the one with more right gates on VALID; TEST chooses nothing. Only states are run, and nothing is
pushed. With --train a whole training of the first seed is run in place of that, by each of the three ways.
"""

import argparse
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from redraw import redrawn
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.choice.settings import Setting
from asa_adapter.config.value_checks import PROBE_KINDS
from asa_adapter.report_schema import VARIATIONS
from asa_adapter.search.strategy import Search
from asa_adapter.training.robustness import Robustness

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAMES = ["as given", *VARIATIONS[:3], "+1 with the tool", "+1 without"]


def shares(found: dict[str, dict[str, float]]) -> list[float]:
    """One number for each of `NAMES`; "as given" is on the rows that can be wrapped, which are all with tools."""
    right = [found[name]["right"] for name in VARIATIONS[:3]]
    without = found["without"]
    return [found["wrapped"]["given_right"], *right, without["given_called"], without["called"]]


def fitted(trainer: ASATrainer) -> tuple[list[float], float]:
    """The shares on TEST of a gate that is fitted and not steered, and the CPU time of states and fit in seconds."""
    measured, args, began = trainer._measured, trainer.args, time.process_time()
    measured.begin(None)
    robustness = Robustness(measured, args, trainer.tools)
    for split in ("cal", "train", "valid"):
        measured.states(split)
    robustness.settle(trainer._layers)
    search = Search(measured, args, trainer._domains, trainer._build, trainer.report)
    layers = search.fit(trainer._layers, robustness.fitted_on)
    seconds = time.process_time() - began
    best = max(layers, key=lambda layer: search.fits[layer].facts["out_of_fold_auc"])
    adapters = [trainer._build(Setting(best, 1.0, 0.5, 0.0, kind), search.fits[best]) for kind in PROBE_KINDS]
    chosen = max(adapters, key=lambda adapter: robustness.measure("valid", adapter)["wrapped"]["given_right"])
    return shares(robustness.measure("test", chosen)), seconds


def trained(trainer: ASATrainer) -> tuple[list[float], float]:
    """The same of a whole training."""
    began = time.process_time()
    adapter = trainer.train()
    seconds = time.process_time() - began
    results = trainer.evaluate("test")
    told = trainer.report["vary_tools"]
    print(f"fitted on varied rows: {told['fitted']} ({told['why']}); alpha {adapter.config.alpha:g}, ", end="")
    print(f"TEST F1 {results['asa']['f1']:.3f}, FPR {results['asa']['fpr']:.3f}")
    return shares(trainer.report["variations"]["test"]), seconds


def main() -> None:
    """Prints a table of medians, a row for each way of fitting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=EXAMPLES / "tiny_lfm2", metavar="FOLDER")
    parser.add_argument("--seeds", type=int, default=5, help="number of draws (default: 5)")
    parser.add_argument("--train", action="store_true", help="a whole training of the first seed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    splits = load_splits(EXAMPLES / "data")
    lines = []
    for vary, name in ((False, "as given"), (True, "varied"), (None, "where needed")):
        found, seconds = [], 0.0
        for seed in range(1 if options.train else options.seeds):
            args = ASATrainingArguments(seed=seed, vary_tools=vary, progress=False)
            trainer = ASATrainer(model, tokenizer, redrawn(splits, seed), args)
            own, took = trained(trainer) if options.train else fitted(trainer)
            found.append(own)
            seconds += took
        medians = " | ".join(f"{median(values):.3f}" for values in zip(*found, strict=True))
        lines.append(f"| {name} | {medians} | {seconds / len(found):.1f} s |")
        print(lines[-1], flush=True)
    print(f"\n{options.model.name}, right gates on TEST, and +1 on rows that need a tool\n")
    print("\n".join([f"| fitted on | {' | '.join(NAMES)} | CPU |", "|---" + "|---:" * (len(NAMES) + 1) + "|", *lines]))


if __name__ == "__main__":
    main()
