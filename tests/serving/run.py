"""Are the served answers those of transformers? python tests/serving/run.py [--short] [--prompts N] [MODEL_FOLDER ...]

Needs an environment with vLLM (its CPU wheel will do) in which this package is installed. For each model folder (by
default those of the tiny models that are there) it fits an adapter at the middle layer, asks transformers, and then
vLLM in many ways: all token ids must be equal. Prints a table; the exit code is 1 where a line of it failed.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bed import ROOT, Bed, make_bed
from cases import Case, Row, run

PREEMPTIONS = 50
CHUNKS = {"max_num_batched_tokens": 48}
NO_CACHE = {"enable_prefix_caching": False}
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 1, "prompt_lookup_max": 3}

BASE = Case("unsteered, cache on", passes=("off",), steered=False)
SHORT = (
    BASE,
    Case("steered, cache on; last pass every third off", passes=("on", "on", "third")),
    Case("steered, cache off, chunks of 48, every third off", {**NO_CACHE, **CHUNKS}, passes=("third",)),
)
FULL = (
    BASE,
    Case("steered, cache on", passes=("on", "on")),
    Case("steered, cache off", NO_CACHE),
    Case("steered, chunks of 48, cache off", {**NO_CACHE, **CHUNKS}),
    Case("steered, chunks of 48, cache on", CHUNKS, passes=("on", "on")),
    Case("every third off", passes=("third", "third")),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders of tiny models")
    parser.add_argument("--short", action="store_true", help="one model, the most important runs")
    parser.add_argument("--prompts", type=int, default=160, help="number of prompts (default: 160)")
    parser.add_argument("--only", default="", help="runs whose name contains this; the unsteered one always runs")
    parser.add_argument("--work", type=Path, help="folder for what is made (default: a temporary one)")
    options = parser.parse_args()
    models = options.models or [
        path for name in ("lfm2", "qwen3") if (path := ROOT / f"examples/tiny_{name}").is_dir()
    ]
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        rows = []
        for source in models[:1] if options.short else models:
            bed = make_bed(source, work, options.prompts)
            for row in rows_of(bed, work, SHORT if options.short else FULL, options.only):
                print(row, flush=True)
                rows.append(row)
                if not row.passed and row.run.startswith(BASE.name):
                    print("the unsteered answers differ already: nothing below would say anything", flush=True)
                    break
    failed = sum(not row.passed for row in rows)
    print("\n| run | model | equal | counted |\n|---|---|---:|---|", *rows, sep="\n")
    print(f"\n{len(rows) - failed} passed, {failed} failed")
    return 1 if failed else 0


def rows_of(bed: Bed, work: Path, cases: tuple[Case, ...], only: str) -> Iterator[Row]:
    """The table's lines about one model."""
    for case in cases:
        if case is BASE or only in case.name:
            began = time.monotonic()
            yield from run(bed, case, work)
            print(f"({case.name}: {time.monotonic() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
