"""Does the trainer's shortcut cost anything? Its choice against the best of 64 settings, each by plain generation.

python tests/benchmarks/exhaustive_search.py [--rows 40]

The exhaustive search has no screen and no shortlist: every setting of a sub-grid generates on the same VALID rows, and
the best F1 wins. Both choices then generate on TEST. Prints a table and the paired standard error of the difference.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.choice.intervals import resamples
from asa_adapter.choice.settings import Setting
from asa_adapter.data.rows import row_tools
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.fitting.layer_fit import fit_layer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
GRID = {"alphas": (0.5, 1.0), "taus": (0.5, 0.7), "betas": (0.0, 1.0), "probes": ("domain", "pooled")}


def f1(labels: np.ndarray, triggered: np.ndarray) -> float:
    """F1 of some triggers."""
    return float(ConfusionCounts.of(labels, triggered).ratios()["f1"])


def exhaustive(trainer: ASATrainer, layers: list[int], rows: int) -> tuple[ASAAdapter, Setting, float]:
    """The best of the sub-grid at these layers on the first rows of VALID, by plain generation."""
    measured = trainer._measured
    few = balanced(measured.labels("valid"), measured.domains("valid"), rows)
    labels = measured.labels("valid")[few]
    best: tuple[float, ASAAdapter, Setting] | None = None
    settings = [Setting(*values) for values in itertools.product(layers, *GRID.values())]
    print(f"{len(settings)} settings x {len(few)} rows")
    for setting in settings:
        cal, train, valid = (measured.labelled(split, setting.layer) for split in ("cal", "train", "valid"))
        fit = fit_layer(cal, train, valid, trainer._domains, trainer.args.Cs, trainer.args.seed)
        adapter = trainer._build(setting, fit)
        rows_of_valid = [trainer.splits["valid"][i] for i in few]
        answers = measured._evaluation.answers(rows_of_valid, adapter, "exhaustive")
        calls = [
            trainer.parser.triggered(answer, row_tools(row))
            for row, answer in zip(rows_of_valid, answers, strict=True)
        ]
        score = f1(labels, np.array(calls))
        if best is None or score > best[0]:
            best = (score, adapter, setting)
    assert best is not None
    return best[1], best[2], best[0]


def balanced(labels: np.ndarray, domains: list[str], rows: int) -> list[int]:
    """The first rows of each label and domain, equally many."""
    groups = sorted(set(zip(labels.tolist(), domains, strict=True)))
    each = rows // len(groups)
    return sorted(
        int(i)
        for group in groups
        for i in [k for k, pair in enumerate(zip(labels.tolist(), domains, strict=True)) if pair == group][:each]
    )


def main() -> None:
    """Runs both searches and prints what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40)
    rows = parser.parse_args().rows
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "tiny_lfm2")
    model = AutoModelForCausalLM.from_pretrained(EXAMPLES / "tiny_lfm2", dtype=torch.float32)
    trainer = ASATrainer(
        model, tokenizer, load_splits(EXAMPLES / "data"), ASATrainingArguments(refit=False, progress=False)
    )

    began = time.perf_counter()
    ours = trainer.train()
    seconds = {"train()": time.perf_counter() - began}
    # The four layers where a push has the most effect: fewer would be unfair to the exhaustive search.
    effect = {
        int(n): f["effect"]["up"] - f["effect"]["down"] for n, f in trainer.report["layers"].items() if "effect" in f
    }
    layers = sorted(sorted(effect, key=lambda n: -effect[n])[:4])
    began = time.perf_counter()
    theirs, setting, score = exhaustive(trainer, layers, rows)
    seconds["exhaustive"] = time.perf_counter() - began

    labels = trainer._measured.labels("test")
    outcomes = trainer._measured.outcomes("test", {"ours": ours, "64": theirs})
    triggered = np.stack([outcome.triggered for outcome in outcomes.values()])
    both = ConfusionCounts.of(labels, triggered, resamples(len(labels), 2000, 42)).ratios()["f1"]
    print(f"exhaustive: {setting}, F1 {score:.3f} on its VALID rows")
    print(f"train():    {ours}")
    for name, row in zip(seconds, triggered, strict=True):
        print(f"{name:<12} TEST F1 {f1(labels, row):.3f}   {seconds[name]:6.0f} s")
    difference = f1(labels, triggered[0]) - f1(labels, triggered[1])
    print(f"difference {difference:+.3f}, paired standard error {float((both[0] - both[1]).std()):.3f}")


if __name__ == "__main__":
    main()
