"""How far the F1 on TEST depends on which rows were drawn: over seeds, and over halves of VALID.

    python tests/benchmarks/steadiness.py [--model FOLDER] [--read-layers N ...] [--seeds N] [--share X]

Each seed draws CAL, TRAIN and VALID anew from their rows and fits with default arguments. Then VALID is halved again
and again, each half chooses among the finalists anew, and TEST is read by first tokens under the choice: fitted once
more with VALID's rows, and as VALID judged it. With --share .8 each draw leaves out a fifth of the rows: else what is
fitted on all three splits is fitted on the same rows in every draw.
"""

import argparse
import functools
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from redraw import redrawn
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.choice.finalists import ScreenedFinalists, choose
from asa_adapter.choice.settings import Scored, gated_triggers
from asa_adapter.evaluation.metrics import ConfusionCounts
from asa_adapter.search.strategy import Search

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HALVES = 40


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=EXAMPLES / "tiny_lfm2", metavar="FOLDER")
    parser.add_argument("--data", type=Path, default=EXAMPLES / "data", metavar="FOLDER")
    parser.add_argument("--read-layers", type=int, nargs="+", default=[1, 4], metavar="N")
    parser.add_argument("--seeds", type=int, default=5, help="number of draws (default: 5)")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows in each draw (default: all)")
    parser.add_argument("--dtype", default="float32")
    return parser.parse_args()


def triggers(search: Search, split: str, candidates: list[Scored]) -> np.ndarray:
    """(F, N) bool: whether each row's first token opens a call, under each setting with its own gate."""
    found = []
    for setting in (candidate.setting for candidate in candidates):
        read = search._predicted(split, setting.reader)
        pushes = [search._push(read, setting.layer, setting.beta, sign * setting.alpha) for sign in (1, -1)]
        base, up, down = search.measured.first_tokens(split, pushes).triggered
        found.append(gated_triggers(read.p_tool(setting.probe), setting.tau, base, up, down))
    return np.stack(found)


def triggers_on_test(search: Search, candidate: Scored) -> dict[str, np.ndarray]:
    """(N,) bool by way of fitting: the same on TEST under one setting."""
    judged, found = search.fits, {"as judged": triggers(search, "test", [candidate])[0]}
    search._refitted(candidate.setting, search.domains, search._also, search.args.seed)
    search.fits = judged | search.again
    found["once more"] = triggers(search, "test", [candidate])[0]
    search.fits = judged
    return found


def f1(labels: np.ndarray, triggered: np.ndarray) -> float:
    """F1 of (N,) triggers."""
    return float(ConfusionCounts.of(labels, triggered).ratios()["f1"])


def one_seed(
    model: Any, tokenizer: Any, splits: Any, args: ASATrainingArguments, share: float
) -> tuple[Any, dict[str, tuple[float, float, list[float]]]]:
    """The choice, and by way of fitting its F1 and FPR on TEST, and the F1 of what each half of VALID chooses."""
    trainer = ASATrainer(model, tokenizer, redrawn(splits, args.seed, share), args)
    measured = trainer._measured
    measured.begin(None)
    search = Search(measured, args, trainer._domains, trainer._build, trainer.report)
    trainer._robustness.settle(trainer._layers)
    candidates = search.screen(search.fit(trainer._layers, trainer._robustness.fitted_on))[: args.finalists]
    valid = triggers(search, "valid", candidates)
    test = functools.cache(lambda index: triggers_on_test(search, candidates[index]))
    labels, truth = measured.labels("valid"), measured.labels("test")
    on_train = ScreenedFinalists.of(candidates, search._ran, measured.labels("train"), measured.groups("train"))

    def chosen(rows: np.ndarray) -> int:
        some = [Scored(c.setting, f1(labels[rows], valid[i][rows]), valid[i][rows]) for i, c in enumerate(candidates)]
        best, _ = choose(args, labels[rows], some, screened=on_train)
        return next(i for i, scored in enumerate(some) if scored is best)

    generator = np.random.default_rng(args.seed)
    halves = [generator.permutation(len(labels))[: len(labels) // 2] for _ in range(HALVES)]
    index, of_halves = chosen(np.arange(len(labels))), [chosen(half) for half in halves]
    found = {}
    for way, called in test(index).items():
        ratios = ConfusionCounts.of(truth, called).ratios()
        found[way] = float(ratios["f1"]), float(ratios["fpr"]), [f1(truth, test(i)[way]) for i in of_halves]
    return candidates[index].setting, found


def main() -> None:
    """Prints a line for each seed, then medians and spreads."""
    args = options()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    splits = load_splits(args.data)
    draws: dict[str, list[tuple[float, float, list[float]]]] = {}
    for seed in range(args.seeds):
        settings = ASATrainingArguments(seed=seed, read_layers=tuple(args.read_layers), progress=False)
        setting, found = one_seed(model, tokenizer, splits, settings, args.share)
        for way, one in found.items():
            draws.setdefault(way, []).append(one)
        told = ", ".join(f"{way} F1 {one[0]:.3f}, FPR {one[1]:.3f}" for way, one in found.items())
        print(f"seed {seed}: {told}; {tuple(setting)}", flush=True)
    for way, of_way in draws.items():
        scores, fprs, halves = zip(*of_way, strict=True)
        spread = statistics.pstdev(score for of_halves in halves for score in of_halves)
        print(
            f"\n{args.model.name}, reading {args.read_layers} layers, {args.share:g} of the rows, {way}: F1 on TEST "
            f"{statistics.median(scores):.3f} [{min(scores):.3f}, {max(scores):.3f}], standard deviation "
            f"{statistics.pstdev(scores):.4f} over {len(scores)} seeds and {spread:.4f} over halves of VALID; FPR "
            f"{statistics.median(fprs):.3f}"
        )


if __name__ == "__main__":
    main()
