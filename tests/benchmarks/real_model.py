"""What an adapter is worth on a real model: the bare model, the simpler rules and steering, by generation on TEST.

    python tests/benchmarks/real_model.py --model FOLDER --data FOLDER [--seeds N] [--rows N] [--output FOLDER]

Fits with default arguments for each seed (seed 0 takes the splits as they are; the others draw CAL, TRAIN and VALID
anew from their rows) and answers TEST with the bare and the steered model. Everything is chosen without TEST. Prints a
table with 95 % intervals, writes it with all that was measured as JSON, and keeps adapters and stages in --output,
from where a run that was stopped goes on.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from redraw import redrawn
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.report import Report
from asa_adapter.summary.comparison_in_words import rules_markdown, rules_verdict
from asa_adapter.summary.markdown import table as markdown_table

SHOWN = ("f1", "recall", "fpr", "balanced_accuracy")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a folder, or a Hub id")
    parser.add_argument("--data", required=True, help="what load_splits takes: a folder of four splits, or one file")
    parser.add_argument("--seeds", type=int, default=1, help="number of trainings (default: 1)")
    parser.add_argument("--rows", type=int, help="rows of TEST, as many of each label (default: all)")
    parser.add_argument("--fit-rows", type=int, help="rows of CAL, TRAIN and VALID each (default: all)")
    parser.add_argument("--chat-template", type=Path, help="a Jinja file, for a model whose own knows no tools")
    parser.add_argument("--tool-call-format", help="how the model writes calls, where nothing shows it")
    parser.add_argument("--tool-call-start", help="what its calls begin with, where that is no known format")
    parser.add_argument("--tool-call-end", help="what they end with")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--ablations", action="store_true", help="measure ablations and simpler rules as well")
    parser.add_argument("--output", type=Path, default=Path("out/real_model"))
    return parser.parse_args()


def balanced(rows: list[dict[str, Any]], count: int | None) -> list[dict[str, Any]]:
    """The first rows of each label, `count` in all."""
    if count is None or count >= len(rows):
        return rows
    kept = [row for label in (0, 1) for row in [row for row in rows if row["label"] == label][: count // 2]]
    return [row for row in rows if any(row is other for other in kept)]


def shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of the table, and of the calls made the share that is readable and names an offered tool."""
    validity = metrics["validity"]
    return {
        "f1": metrics["f1"],
        "recall": metrics["recall"],
        "fpr": metrics["fpr"],
        "balanced_accuracy": (metrics["recall"] + 1 - metrics["fpr"]) / 2,
        "format": validity["format"],
        "offered": validity["tool_name"],
        "success_recall": validity["success_recall"],
    }


def one_seed(model: Any, tokenizer: Any, splits: Any, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Fits and evaluates once; the training's own figures and the metrics of each variant on TEST."""
    settings = ASATrainingArguments(
        seed=seed,
        max_new_tokens=args.max_new_tokens,
        output_dir=args.output / f"seed_{seed}",
        tool_call_format=args.tool_call_format,
        tool_call_start=args.tool_call_start,
        tool_call_end=args.tool_call_end,
        chat_template=args.chat_template.read_text(encoding="utf-8") if args.chat_template else None,
    )
    trainer = ASATrainer(model, tokenizer, redrawn(splits, seed), settings)
    began, clock = time.process_time(), time.perf_counter()
    trainer.train()
    spent = {"cpu_minutes": (time.process_time() - began) / 60, "minutes": (time.perf_counter() - clock) / 60}
    variants: dict[str, Any] = dict(trainer.evaluate("test"))
    if args.ablations and not trainer.report["chosen"]["abstains"]:
        variants |= {name: found for name, found in trainer.ablate("test").items() if name != "base"}
    report = trainer.report
    spent["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    files = [path for path in (args.output / f"seed_{seed}").iterdir() if path.is_file()]
    return {
        "seed": seed,
        "train": spent | {"seconds": report["seconds"]},
        "adapter_bytes": {path.name: path.stat().st_size for path in files},
        "chosen": report["chosen"],
        "variants": {name: shown(metrics) for name, metrics in variants.items()},
        "intervals": report["evaluations"]["test"]["intervals"],
        "rules": report["rules"],
    }


def table(runs: list[dict[str, Any]]) -> str:
    """A row for each variant: the only run, or the median and the spread of several."""
    names = dict.fromkeys(name for run in runs for name in run["variants"])
    columns = (*SHOWN, "format", "offered", "success_recall")
    rows = []
    for name in names:
        found = [run["variants"][name] for run in runs if name in run["variants"]]
        cells = []
        for column in columns:
            values = [metrics[column] for metrics in found]
            spread = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
            cells.append(f"{statistics.median(values):.3f}{spread}")
        rows.append([name, *cells])
    return markdown_table(["", *columns], rows, len(columns))


def main() -> None:
    """Runs the benchmark."""
    args = options()
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model: Any = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).eval()
    loaded = {name: list(rows) for name, rows in load_splits(args.data).items()}
    splits = {name: balanced(rows, args.rows if name == "test" else args.fit_rows) for name, rows in loaded.items()}
    runs = []
    for seed in range(args.seeds):
        runs.append(one_seed(model, tokenizer, splits, seed, args))
        args.output.mkdir(parents=True, exist_ok=True)
        found = {"model": Path(args.model).name, "test_rows": len(splits["test"]), "runs": runs}
        (args.output / "result.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{Path(args.model).name}, {len(splits['test'])} rows of TEST, {args.seeds} seed(s), {args.dtype}\n")
    print(table(runs))
    for run in runs:
        gain = run["intervals"]["gain"]
        spent, size = run["train"], sum(run["adapter_bytes"].values()) / 1000
        print(
            f"\nseed {run['seed']}: {spent['cpu_minutes']:.1f} minutes of CPU time, at most "
            f"{spent['peak_memory_gib']:.1f} GiB, an adapter of {size:.0f} kB; gain of F1 "
            f"[{gain['f1'][0]:+.3f}, {gain['f1'][1]:+.3f}]; {run['chosen']['why']}"
        )
        known = Report.read({"rules": run["rules"]}).rules
        if rules := rules_markdown(known):
            print(f"\n{rules}\n\n{rules_verdict(known)}")


if __name__ == "__main__":
    main()
