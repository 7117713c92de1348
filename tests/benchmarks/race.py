"""Does the race cost anything? The screen's first choice beside that of the exhaustive screen, and what both cost.

python tests/benchmarks/race.py [--model FOLDER] [--dtype float32] [--seeds 42 43 44 45 46] [--race-only]

Choices are made on TRAIN and measured on TEST, by first tokens. The seed draws folds and the race's order of the rows.
Times are CPU time on one thread; the states are those of CAL, TRAIN and VALID.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.choice.settings import Setting, gated
from asa_adapter.data.rows import read_tools
from asa_adapter.evaluation.metrics import Counts
from asa_adapter.search.strategy import Search

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work returns, and its CPU time in seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def test_f1(trainer: ASATrainer, search: Search, setting: Setting) -> float:
    """F1 of a setting on TEST, by first tokens."""
    prediction = search._predicted("test", setting.reader)
    pushes = [search._push(prediction, setting.layer, setting.beta, sign * setting.alpha) for sign in (1, -1)]
    base, up, down = trainer._measured.first_tokens("test", pushes).triggered
    triggered = gated(prediction.p_tool(setting.probe), setting.tau, base, up, down)
    return float(Counts.of(trainer._measured.labels("test"), triggered).ratios()["f1"])


def screened(trainer: ASATrainer, exhaustive: bool, seed: int) -> tuple[Search, Setting, float]:
    """The search, the best setting of its screen, and the screen's CPU time."""
    args = ASATrainingArguments(exhaustive=exhaustive, seed=seed, progress=False)
    search = Search(trainer._measured, args, trainer._domains, trainer._build, trainer.report)
    layers = search.fit(trainer._layers)
    [best, *_], seconds = timed(lambda: search.screen(layers))
    return search, best.setting, seconds


def main() -> None:
    """Prints what each seed's screens cost and chose."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=EXAMPLES / "tiny_lfm2", metavar="FOLDER")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46])
    parser.add_argument("--race-only", action="store_true", help="leave out the exhaustive screen")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=getattr(torch, options.dtype)
    ).eval()
    tools = [{"type": "function", "function": tool} for tool in read_tools(EXAMPLES / "data" / "tools.json")]
    trainer = ASATrainer(model, tokenizer, load_splits(EXAMPLES / "data"), ASATrainingArguments(progress=False), tools)
    trainer._measured.begin(None)
    _, states = timed(lambda: [trainer._measured.states(split) for split in ("cal", "train", "valid")])
    print(f"states {states:.1f} s of CPU time", flush=True)
    for seed in options.seeds:
        for exhaustive in (False, True)[: 1 if options.race_only else 2]:
            search, setting, seconds = screened(trainer, exhaustive, seed)
            found = trainer.report["screen"]["settings"]
            name = "exhaustive" if exhaustive else "race"
            print(
                f"seed {seed} {name:<10} {seconds:6.1f} s = {seconds / states:4.2f} x states, {found} settings on all "
                f"rows, TEST F1 {test_f1(trainer, search, setting):.3f} {tuple(setting)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
