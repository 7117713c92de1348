"""The 1,600-prompt benchmark of ASA's first public port, rebuilt from your own copy of Alpaca, measured and compared.

python examples/recipes/lfm25_alpaca.py --data tatsu-lab/alpaca --short-pools placeholders --output out/lfm25
python examples/recipes/lfm25_alpaca.py --data alpaca_data.json --short-pools fewer --output out/lfm25
python examples/recipes/lfm25_alpaca.py --data tatsu-lab/alpaca --model Qwen/Qwen2.5-1.5B-Instruct ...

Protocol and published numbers: github.com/gyunggyung/Liquid-ASA at 800c9907 (Apache-2.0), ASA_LFM25_Pipeline.ipynb and
RESULTS_SUMMARY.md. Its labels are keyword rules: weak ones. Alpaca is CC BY-NC 4.0.

The port's notebook counted 31 translation and 173 search texts that need no tool, of the 200 each that it wanted, and
filled the rest with made-up texts such as "[placeholder translation nontool 1431]": 196 of the 1,600 prompts, 107 of
the 320 TEST prompts that need no tool. So a recipe that rebuilds it must say which way to take: see --short-pools.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alpaca import LFM2_MARKERS, ROWS_PER_SHARE, TOOLS, build_splits, is_made_up, markers, prompt_template
from common import load_model, ratios, rows_of, run, show, write_splits

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, Probes, Router, SteeringVectors, load_splits
from asa_adapter.evaluation import Evaluation, auc, trigger_metrics
from asa_adapter.states import collect_hidden_states

LICENCE = "Alpaca is CC BY-NC 4.0: not for commercial use"


# --- The port's procedure

# Its first tuning notebook: name, tau, absolute alpha; beta is 0. It looked at TEST, so nothing is chosen by these.
SETTINGS = {
    "current": (0.50, 1),
    "paper": (0.60, 4),
    "gentle": (0.70, 2),
    "balanced": (0.65, 3),
    "conservative": (0.70, 4),
    "selective": (0.75, 5),
    "paper_high": (0.60, 8),
    "minimal": (0.80, 3),
}
_PLATEAU = 0.005


def port_adapter(trainer: ASATrainer, adapter: ASAAdapter) -> ASAAdapter:
    """The port's adapter: layer by probe AUC on VALID (the deepest of the best), C = 1, one probe for each domain.

    Args:
        trainer: holds the model, the splits and the prompts.
        adapter: ours, whose config names model, prompts and markers.
    """
    model, tokenizer, args = trainer.model, trainer.tokenizer, trainer.args
    states = {
        name: collect_hidden_states(
            model, tokenizer, trainer.splits[name], tools=trainer.tools, batch_size=args.batch_size, progress=False
        ).states.numpy()
        for name in ("cal", "train", "valid")
    }
    labels = {name: [int(row["label"]) for row in trainer.splits[name]] for name in states}
    domains = {name: [str(row["domain"]) for row in trainer.splits[name]] for name in states}
    probes = [Probes.fit(layer, labels["train"], domains["train"]) for layer in states["train"]]
    reads = [auc(labels["valid"], p.p_tool(h)) for p, h in zip(probes, states["valid"], strict=True)]
    layer = max(i for i, value in enumerate(reads) if value >= max(reads) - _PLATEAU)
    config = dataclasses.replace(
        adapter.config, layer=layer, alpha=1.0, tau=0.5, beta=0.0, residual_norm=1.0, probe="domain"
    )
    return ASAAdapter(
        config,
        SteeringVectors.fit(states["cal"][layer], labels["cal"], domains["cal"], config.domains),
        Router.fit(states["train"][layer], domains["train"]),
        probes[layer],
    )


def with_setting(adapter: ASAAdapter, tau: float, alpha: float) -> ASAAdapter:
    """The adapter with another gate and step."""
    config = dataclasses.replace(adapter.config, tau=tau, alpha=float(alpha))
    return ASAAdapter(config, adapter.vectors, adapter.router, adapter.probes)


# --- Published numbers: precision, recall, F1, accuracy, FPR on 640 TEST prompts

PUBLISHED = {
    ("LFM2.5-1.2B-Instruct", "explicit"): {
        "base, published": ratios((0.4959, 0.5656, 0.5285, 0.4953, 0.5750)),
        "port's ASA, published (layer 12)": ratios((0.7591, 0.5219, 0.6185, 0.6781, 0.1656)),
    },
    ("LFM2.5-1.2B-Instruct", "liquid"): {
        "base, published": ratios((0.4927, 0.6312, 0.5534, 0.4906, 0.6500)),
        "port's ASA, published (layer 7)": ratios((0.6476, 0.2125, 0.3200, 0.5484, 0.1156)),
    },
    ("Qwen2.5-0.5B-Instruct", "explicit"): {
        "base, published": ratios((0.5821, 0.1219, 0.2016, 0.5172, 0.0875)),
        "port's ASA, published (layer 9)": ratios((0.6176, 0.1313, 0.2165, 0.5250, 0.0813)),
    },
    ("Qwen2.5-1.5B-Instruct", "explicit"): {
        "base, published": ratios((0.7857, 0.4125, 0.5410, 0.6500, 0.1125)),
        "port's ASA, published (layer 12)": ratios((0.7857, 0.4125, 0.5410, 0.6500, 0.1125)),
    },
}
# arXiv 2602.04935, v1/v2, on the paper's own prompts, which are not public: another benchmark of the same kind. The
# recalls of "full" and "global direction only" are those that their F1 and accuracy go with.
PAPER_ABLATIONS = {
    "Qwen2.5-1.5B-Instruct": {
        "base, paper": ratios((0.440, 0.115, 0.182, 0.484, 0.146)),
        "full, paper": ratios((0.872, 0.354, 0.504, 0.651, 0.052)),
        "no gate, paper": ratios((0.422, 0.365, 0.391, 0.432, 0.500)),
        "global direction only, paper": ratios((0.826, 0.396, 0.535, 0.656, 0.083)),
        "domain direction only, paper": ratios((0.364, 0.125, 0.186, 0.453, 0.219)),
        "random direction, paper": ratios((0.556, 0.104, 0.175, 0.510, 0.083)),
        "mismatched domain, paper": ratios((0.788, 0.427, 0.554, 0.656, 0.115)),
    }
}


# --- Measuring


def measure(model: Any, tokenizer: Any, options: argparse.Namespace, prompts: str) -> dict[str, Any]:
    """Fits and measures with one kind of prompt, prints the tables, and returns their numbers."""
    start, end = markers(tokenizer)
    arguments = ASATrainingArguments(
        output_dir=options.output / prompts,
        chat_template=prompt_template(tokenizer, prompts),
        tool_call_format="lfm2" if (start, end) == LFM2_MARKERS else "hermes",
        tool_call_start=start,
        tool_call_end=end,
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        layers=options.layers or "all",
        progress=not options.quiet,
    )
    trainer = ASATrainer(model, tokenizer, load_splits(options.output / "data"), arguments, TOOLS)
    adapter = trainer.train()
    trainer.report["metadata"] = {
        "datasets": ["tatsu-lab/alpaca"],
        "data_license": LICENCE,
        "labels": "weak: keyword rules of the Liquid-ASA port, without a look at the texts",
    }
    results = trainer.evaluate("test")
    evaluation = Evaluation(
        model,
        trainer.tokenizer,
        trainer.parser,
        TOOLS,
        arguments.max_new_tokens,
        arguments.batch_size,
        arguments.progress,
    )
    port = port_adapter(trainer, adapter)
    rows = trainer.splits["test"]
    tried = {} if options.no_settings else SETTINGS
    settings = {
        f"{name} (tau {tau:g}, alpha {alpha:g})": evaluation.metrics(
            rows, evaluation.answers(rows, with_setting(port, tau, alpha), name)
        )
        for name, (tau, alpha) in {**{"current": SETTINGS["current"]}, **tried}.items()
    }
    model_name = options.model.rstrip("/").rpartition("/")[2]
    how = "chosen on VALID" if adapter.config.alpha else "abstains"
    table = {
        "base": results["base"],
        f"port's procedure (layer {port.config.layer})": next(iter(settings.values())),
        f"this package (layer {adapter.config.layer}, {how})": results["asa"],
    }
    show(f"TEST, {prompts} prompts, {len(rows)} rows", {**PUBLISHED.get((model_name, prompts), {}), **table})
    found: dict[str, Any] = {"test": table, "settings": settings, "chosen": trainer.report["chosen"]}
    if any(map(is_made_up, rows)):
        found["without_made_up"] = without_made_up(rows, table, evaluation, {"base": None, "asa": adapter})
        show("The same without the made-up prompts", found["without_made_up"])
    if tried:
        show("The port's eight settings (they look at TEST: nothing is chosen by them)", settings)
    if not options.no_ablations and adapter.config.alpha:
        found["ablations"] = trainer.ablate()
        show("Ablations, by real generation", {**found["ablations"], **PAPER_ABLATIONS.get(model_name, {})})
    return found


def without_made_up(
    rows: Sequence[Mapping[str, Any]],
    table: Mapping[str, Mapping[str, Any]],
    evaluation: Evaluation,
    adapters: Mapping[str, ASAAdapter | None],
) -> dict[str, dict[str, Any]]:
    """Base and steered model on TEST less its placeholders, none of which needs a tool.

    Raises:
        ValueError: a placeholder stands for a prompt that needs a tool.
    """
    made_up = [row for row in rows if is_made_up(row)]
    if any(row["label"] for row in made_up):
        raise ValueError("placeholders stand for prompts that need a tool: this is no copy of Alpaca")
    left: dict[str, dict[str, Any]] = {}
    for name, whole in (("base", table["base"]), ("asa", list(table.values())[-1])):
        answers = evaluation.answers(made_up, adapters[name], f"{name}, made up")
        called = sum(map(evaluation.parser.triggered, answers))
        counts = {"tp": whole["tp"], "fp": whole["fp"] - called, "fn": whole["fn"]}
        counts["tn"] = whole["tn"] - (len(made_up) - called)
        labels = [1] * (counts["tp"] + counts["fn"]) + [0] * (counts["fp"] + counts["tn"])
        begun = [1] * counts["tp"] + [0] * counts["fn"] + [1] * counts["fp"] + [0] * counts["tn"]
        left[name] = trigger_metrics(labels, begun)
    return left


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=LICENCE
    )
    parser.add_argument("--data", required=True, help="Alpaca: a .json, .jsonl or .parquet file, or tatsu-lab/alpaca")
    parser.add_argument("--output", required=True, type=Path, help="folder for data, adapters and results.json")
    parser.add_argument("--model", default="LiquidAI/LFM2.5-1.2B-Instruct", help="folder or Hub id (default: LFM2.5)")
    parser.add_argument(
        "--prompts", nargs="+", choices=("explicit", "liquid"), default=["explicit", "liquid"], help="kinds of prompts"
    )
    parser.add_argument(
        "--short-pools",
        choices=("refuse", "fewer", "placeholders"),
        default="refuse",
        help="what to do where Alpaca has too few texts (default: refuse, and say which)",
    )
    parser.add_argument("--rows-per-share", type=int, default=ROWS_PER_SHARE, help="a smaller benchmark, for a try")
    parser.add_argument("--layers", type=int, nargs="+", help="decoder blocks to try (default: all)")
    parser.add_argument("--no-settings", action="store_true", help="leave out the port's eight settings")
    parser.add_argument("--no-ablations", action="store_true", help="leave out the ablations")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer (default: 256, as the port)")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts run together (default: 16)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Builds the benchmark, measures with each kind of prompt, and keeps the numbers in results.json."""
    options = options_of(words)
    splits = build_splits(rows_of(options.data, "train"), options.short_pools, options.rows_per_share)
    write_splits(options.output / "data", splits, TOOLS)
    model, tokenizer = load_model(options.model)
    found = {prompts: measure(model, tokenizer, options, prompts) for prompts in options.prompts}
    path = options.output / "results.json"
    path.write_text(json.dumps({"model": options.model, **found}, indent=2) + "\n", encoding="utf-8")
    print(f"\nweak labels, and {LICENCE}\nall numbers: {path}; adapters: {', '.join(map(str, found))} beside it")


if __name__ == "__main__":
    sys.exit(run(main))
