"""Are the served answers those of transformers? python tests/serving/run.py [--short] [--prompts N] [MODEL_FOLDER ...]

Needs an environment with vLLM (its CPU wheel will do) in which this package is installed. For each model folder (by
default those of the tiny models that are there) it fits an adapter at the middle layer, asks transformers, and then
vLLM in many ways: all token ids must be equal. With --architectures the models are random ones instead, of all kinds;
with --kinds the prompts are states of conversations, and the adapter has a rule for each kind of state.
Prints a table; the exit code is 1 where a line of it failed.
"""

import os

if __name__ == "__main__":
    # Read once, when libraries are imported; the engines' processes are forked off one that has imported them.
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"VLLM_LOGGING_LEVEL": "WARNING"}

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from bed import ROOT, Bed, make_bed
from cases import Case, Row, run, scarce_blocks
from random_models import ARCHITECTURES, tiny
from server import serve
from trials import compiled, halved, next_turns, refused

PREEMPTIONS = 50  # of 160 prompts
V2_PROMPTS = 96
CHUNKS = {"max_num_batched_tokens": 48}
NO_CACHE = {"enable_prefix_caching": False}
# Prompts are let in as long as there is a block for their next chunk, not only where they fit as a whole.
CROWDED = {"scheduler_reserve_full_isl": False, "max_num_batched_tokens": 64}
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 3}
INTERPRETED = {"interpreter": True}

UNSTEERED = Case("unsteered, cache on", passes=("off", "off"), steered=False)
SHORT_RUNS = (
    UNSTEERED,
    Case("cache on; last pass every third off", passes=("on", "on", "third")),
    Case("cache off, chunks of 48, every third off", {**NO_CACHE, **CHUNKS}, passes=("third",)),
)
# Prompts of both kinds of state in one batch, for an adapter with two rules and capped steps.
KIND_RUNS = (
    *SHORT_RUNS,
    Case("cache on, chunks of 48, twice", CHUNKS, passes=("on", "on")),
)
# For each architecture, in one engine: 16 requests at once, chunks, the prefix cache twice over, every third off.
ARCHITECTURE_RUN = Case(
    "bare, cache twice, every third off", {"max_num_seqs": 16, **CHUNKS}, ("off", "on", "on", "third")
)
# Those of the short form: a stream that is one tensor, and a model that vLLM takes from transformers.
FEW_ARCHITECTURES = ("granite", "olmo2")

Trial = Callable[[Bed, Path], Iterator[Row]]


def full_runs(bed: Bed) -> list[Case]:
    """Every way of running one engine with the first model runner."""
    blocks = scarce_blocks(bed)
    few_blocks = {"num_gpu_blocks_override": blocks}
    crowded = {**NO_CACHE, **CROWDED, "num_gpu_blocks_override": blocks - 3}
    preempts = max(1, PREEMPTIONS * len(bed.prompts) // 160)
    return [
        UNSTEERED,
        Case("cache on; last two passes every third off", passes=("on", "on", "third", "third")),
        Case("cache off", NO_CACHE),
        Case("cache off, chunks of 48", {**NO_CACHE, **CHUNKS}),
        Case("cache on, chunks of 48", CHUNKS, passes=("on", "on")),
        Case("cache on, preemption", few_blocks, ("on",) * 3, preempts=preempts),
        Case("cache off, preemption, every third off", crowded, ("third",) * 2, preempts=preempts),
        # The CPU's convolutions of LFM2 know nothing of draft tokens, and its cache of their states wants Triton.
        Case("n-gram speculation", {"speculative_config": DRAFTS}, accepts=True, doubtful=True),
        Case("n-gram speculation, cache off", {"speculative_config": DRAFTS, **NO_CACHE}, accepts=True, doubtful=True),
    ]


def v2_runs(bed: Bed, prompts: int) -> list[Case]:
    """The ways of running one with the second, which take minutes each."""
    v2 = {"options": INTERPRETED, "prompts": prompts}
    few_blocks = {"num_gpu_blocks_override": scarce_blocks(bed)}
    return [
        Case("V2 runner", passes=("on",), **v2),
        Case("V2 runner, chunks of 48, every third off", CHUNKS, passes=("third",), **v2),
        Case("V2 runner, preemption", few_blocks, preempts=1, **v2),
    ]


def trials(bed: Bed, options: argparse.Namespace) -> dict[str, Trial]:
    """What is run about one model, by name."""
    if options.architectures is not None:
        return {ARCHITECTURE_RUN.name: _run_architecture}
    if options.kinds:
        return (
            _by_name(SHORT_RUNS) if options.short else {**_by_name(KIND_RUNS), "compile": compiled, "turn": next_turns}
        )
    if options.short:
        return {**_by_name(SHORT_RUNS), "server": serve}
    others = {"tensor parallel": halved, "compile": compiled, "next turn": next_turns, "refused": refused}
    slow = _by_name(v2_runs(bed, min(options.v2_prompts, options.prompts)))
    return {**_by_name(full_runs(bed)), **others, "server": serve, **slow}


def _by_name(cases: Iterable[Case]) -> dict[str, Trial]:
    return {case.name: partial(_run_case, case) for case in cases}


def _run_case(case: Case, bed: Bed, work: Path) -> Iterator[Row]:
    return run(bed, case, work)


def _run_architecture(bed: Bed, work: Path) -> Iterator[Row]:
    """The passes of one engine; where its answers without steering differ already, the others say nothing."""
    bare, *steered = run(bed, ARCHITECTURE_RUN, work)
    if bare.passed or not bare.ok:
        yield from (bare, *steered)
    else:
        yield replace(bare, note=f"vLLM differs without steering: {bare.note}", shown=False)


def rows_of(bed: Bed, work: Path, options: argparse.Namespace) -> Iterator[Row]:
    """The table's lines about one model; none behind an unsteered run that differs already."""
    for name, trial in trials(bed, options).items():
        if name != UNSTEERED.name and not re.search(options.only, name):
            continue
        began, rows = time.monotonic(), []
        for row in trial(bed, work):
            rows.append(row)
            print(row, flush=True)
            yield row
        print(f"({name}: {time.monotonic() - began:.0f} s)", flush=True)
        if name == UNSTEERED.name and not all(row.passed for row in rows):
            print("vLLM differs without the adapter already: nothing else would say anything", flush=True)
            return


def sources(options: argparse.Namespace, work: Path) -> Iterator[Path]:
    """The folders of the models that were asked for."""
    if options.architectures is not None:
        few = FEW_ARCHITECTURES if options.short else ARCHITECTURES
        yield from (tiny(name, work / "random") for name in options.architectures or few)
        return
    names = ("lfm2_chat", "qwen3") if options.kinds else ("lfm2", "qwen3")
    models = options.models or [ROOT / "examples" / f"tiny_{name}" for name in names]
    models = [folder for folder in models if (folder / "config.json").is_file()]
    yield from models[:1] if options.short else models


def main() -> int:
    """Runs what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders of tiny models")
    parser.add_argument("--short", action="store_true", help="one model, the most important runs")
    parser.add_argument(
        "--architectures",
        nargs="*",
        metavar="TYPE",
        choices=[*ARCHITECTURES],
        help="random models of these types, or all",
    )
    parser.add_argument("--kinds", action="store_true", help="both kinds of state, each with a rule of its own")
    parser.add_argument("--prompts", type=int, default=160, help="number of prompts (default: 160)")
    parser.add_argument(
        "--v2-prompts", type=int, default=V2_PROMPTS, help=f"for the slow ones (default: {V2_PROMPTS})"
    )
    parser.add_argument("--only", default="", help="regular expression of names; the unsteered run always runs")
    parser.add_argument("--work", type=Path, help="folder for what is made (default: a temporary one)")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for source in sources(options, work):
            rows += rows_of(make_bed(source, work, options.prompts, options.kinds), work, options)
    passed, failed = sum(row.passed for row in rows), sum(row.shown and not row.passed for row in rows)
    print("\n| run | model | equal | counted |\n|---|---|---:|---|", *rows, sep="\n")
    print(f"\n{passed} passed, {failed} failed, {len(rows) - passed - failed} not shown")
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
