"""How fast is it: screen, answers and a whole training of a model, and extraction, screen and hook beside a port.

    python tests/benchmarks/speed.py [--model FOLDER [--data FOLDER]] [--only PART ...] [--profile] [--json FILE]

Without --model the tiny LFM2 and the tiny Qwen3 are measured, and what `port.py` explains. The parts are

    screen    the race of the settings and the whole grid, in units of the states of CAL, TRAIN and VALID (race.py)
    answers   64 new tokens of finalists and of an evaluation, beside plain generate() (generation.py)
    tree      tokens of TRAIN's prompts: in all, in the tree of what they begin with, and run
    ablations `evaluate --ablations`: the adapter's variants and ten rows of rules, in units of one evaluation
    training  all of train(), what its first stage forecasts, and what a second call costs (long_run.py)
    port      extraction, screen and hook, beside the way of the method's first public port (port.py)

Ratios are of times from one run on one thread; times are CPU time where nothing else is said, and medians of ways that
take turns. Everything runs with default arguments.
"""

import argparse
import collections
import cProfile
import functools
import itertools
import json
import platform
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import generation
import long_run
import port
import race
import torch
import transformers
from real_model import balanced

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.comparison.rules_table import ablated_with_rules, rules_table
from asa_adapter.data.prompts import encode_rows
from asa_adapter.engine.prefix_tree import common_tokens, tokens_run
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.summary.markdown import table

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SHIPPED = {EXAMPLES / "tiny_lfm2": EXAMPLES / "tiny_lfm2_asa", EXAMPLES / "tiny_qwen3": None}  # with their adapters
PARTS = ("screen", "answers", "tree", "ablations", "training", "port")
WORDS = {"rounds": "ours", "whole_batches": "whole batches", "plain": "plain generate()"}
SHOWN = 8  # functions of a profile

# For each way of some work, the seconds that each function takes for itself.
Profiles = Mapping[str, Mapping[str, float]]


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="this model in place of both tiny ones")
    parser.add_argument("--data", default=EXAMPLES / "data", metavar="FOLDER", help="what load_splits takes")
    parser.add_argument("--rows", type=int, metavar="N", help="rows of each split (default: all)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--chat-template", type=Path, help="a Jinja file, for a model whose own knows no tools")
    parser.add_argument("--tool-call-format", help="how the model writes calls, where nothing shows it")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44, 45, 46], help="of the screens")
    parser.add_argument("--race-only", action="store_true", help="leave out the whole grid")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between a training's lines, 60 in earnest")
    parser.add_argument("--profile", action="store_true", help="print where the time of screen and answers goes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return parser.parse_args()


class Subject:
    """A model that is measured, with its rows, the parser that its own answers chose, and an adapter."""

    def __init__(self, folder: Path, adapter: Path | None, args: argparse.Namespace) -> None:
        template = args.chat_template and args.chat_template.read_text(encoding="utf-8")
        self.settings = {"chat_template": template, "tool_call_format": args.tool_call_format}
        self.args = args
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype))
        self.model = model.eval()
        self.splits = {name: balanced(list(rows), args.rows) for name, rows in load_splits(args.data).items()}
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.trainer = ASATrainer(model, tokenizer, self.splits, ASATrainingArguments(progress=False, **self.settings))
        self.trainer._learn_habit()
        self.adapter = generation.gentle_adapter(model) if adapter is None else ASAAdapter.from_pretrained(adapter)

    def screen(self) -> dict[str, Any]:
        """The race, the whole grid and the states."""
        return race.compared(self.trainer, self.args.seeds, self.args.race_only)

    def asks(self) -> Evaluation:
        """What answers VALID."""
        trainer = self.trainer
        return Evaluation(
            self.model,
            trainer.tokenizer,
            trainer.parser,
            max_new_tokens=generation.NEW_TOKENS,
            batch_size=generation.BATCH,
            progress=False,
        )

    def answers(self) -> dict[str, Any]:
        """Finalists and an evaluation."""
        rows, repeats = self.splits["valid"], self.args.repeats
        return {
            stage: generation.compared(self.asks(), rows, self.adapter, stage, repeats) for stage in generation.STAGES
        }

    def tree(self) -> dict[str, int]:
        """The tokens of TRAIN's prompts."""
        prompts = encode_rows(self.trainer.tokenizer, self.splits["train"])
        ordered = [(), *sorted(map(tuple, prompts))]
        # Each prompt adds what it does not share with the one before it, and its last token in any case.
        added = (len(b) - min(common_tokens(a, b), len(b) - 1) for a, b in itertools.pairwise(ordered))
        return {
            "prompts": len(prompts),
            "in_all": sum(map(len, prompts)),
            "tree": sum(added),
            "run": tokens_run(prompts),
        }

    def ablations(self) -> dict[str, float]:
        """CPU seconds of one evaluation on TEST, and of the whole table, which holds one."""
        args = ASATrainingArguments(progress=False, **self.settings)

        def measured() -> Measurements:
            return Measurements(self.model, self.trainer.tokenizer, self.splits, args, self.trainer.parser, None)

        def one() -> None:
            fresh = measured()
            for texts in fresh.answers("test", {"base": None, "asa": self.adapter}).values():
                fresh.metrics("test", texts)

        works = {
            "evaluation": one,
            "rules": lambda: rules_table(measured(), self.adapter, args, "test"),
            "table": lambda: ablated_with_rules(measured(), self.adapter, "test", args),
        }
        found = {}
        one()  # warms up
        for name, work in works.items():
            began = time.process_time()
            work()
            found[name] = time.process_time() - began
        return found

    def training(self) -> dict[str, Any]:
        """All of train()."""
        return long_run.measured(self.model, self.trainer.tokenizer, self.splits, self.settings, self.args.every)

    def profiles(self) -> dict[str, Profiles]:
        """Where the time of the parts goes that are asked for, before and after."""
        trainer, args = self.trainer, self.args
        found: dict[str, Profiles] = {}
        if "screen" in args.only:
            found["states"] = {"ours": profile(lambda: race.collect(trainer))}
            found["screen"] = {
                way: profile(race.fitted(trainer, args.seeds[0], way)) for way in race.ways(args.race_only)
            }
        for stage in generation.STAGES if "answers" in args.only else ():
            found[stage] = {
                WORDS[way]: profile(functools.partial(work, self.asks(), self.splits["valid"], self.adapter, stage))
                for way, work in generation.WAYS.items()
            }
        return found


def profile(work: Callable[[], Any]) -> dict[str, float]:
    """CPU seconds that each function took for itself while some work ran."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(work)
    seconds: dict[str, float] = collections.defaultdict(float)
    for entry in profiler.getstats():
        code = entry.code
        name = code.split()[2 if "built-in" in code else 1].strip("'>") if isinstance(code, str) else code.co_qualname
        seconds[name] += entry.inlinetime
    return dict(seconds)


def screen_table(found: Mapping[str, Any]) -> str:
    """The screens of each model: each seed, and the medians."""
    ways = list(race.WAYS)
    rows = []
    for model, result in found.items():
        for one in result["seeds"]:
            cells = [f"{one[way][key]:{spec}}" if way in one else "" for key, spec in COLUMNS for way in ways]
            rows.append([model, str(one["seed"]), f"{one['states_seconds']:.1f} s", *cells])
        medians = [f"{result['over_states'][way]:.2f}" if way in result["over_states"] else "" for way in ways]
        rows.append([model, "median", "", *medians, *[""] * (len(cells) - len(ways))])
    head = ["model", "seed", "states", *(f"{way}{what}" for what in HEADS for way in ways)]
    return table(head, rows, len(head) - 1)


# What is shown of each way, and the head of its column behind the way's name.
COLUMNS = (("over_states", ".2f"), ("settings_on_all_rows", "d"), ("test_f1", ".3f"))
HEADS = (" / states", ": settings on all rows", ": F1 on TEST")


def answers_table(found: Mapping[str, Any]) -> str:
    """The answers of each model."""
    rows = []
    for model, stages in found.items():
        for stage, one in stages.items():
            size, count = one["tokens"], one["rows"] * (1 + one["adapters"])
            rows.append(
                [
                    f"{model}, {stage}: {count} answers",
                    *(f"{one['seconds'][way]:.1f} s" for way in generation.WAYS),
                    *(f"{one['over'][way]:.2f}" for way in ("plain", "whole_batches")),
                    f"{size['median']:.0f}, {size['mean']:.1f}, {size['most']}",
                    *(f"{one['alike'][way]:.1%}" for way in ("plain", "whole_batches")),
                ]
            )
    ways = [*(WORDS[way] for way in generation.WAYS), "ours / plain", "ours / whole batches"]
    head = ["", *ways, "tokens: median, mean, most", "as plain", "as whole batches"]
    return table(head, rows, len(head) - 1)


def tree_table(found: Mapping[str, Any]) -> str:
    """The tokens of each model's prompts."""
    rows = [
        [name, *(f"{count:,}" for count in one.values()), f"{one['run'] / one['tree']:.3f}"]
        for name, one in found.items()
    ]
    return table(["", "prompts", "tokens in all", "in their tree", "run", "run / tree"], rows, 5)


def ablations_table(found: Mapping[str, Any]) -> str:
    """The cost of the table of each model."""
    rows = [
        [
            name,
            *(f"{one[part]:.1f} s" for part in ("evaluation", "rules", "table")),
            *(f"{one[part] / one['evaluation']:.2f}" for part in ("rules", "table")),
        ]
        for name, one in found.items()
    ]
    head = ["", "one evaluation", "ten rows of rules", "rules and variants", "rules / one", "both / one"]
    return table(head, rows, len(head) - 1)


def training_table(found: Mapping[str, Any]) -> str:
    """The whole training of each model."""
    rows = [
        [
            model,
            f"{one['cpu_seconds'] / 60:.1f} min",
            ", ".join(f"{name} {seconds / one['wall_seconds']:.0%}" for name, seconds in one["stages"].items()),
            "" if one["forecast_over_wall"] is None else f"{one['forecast_over_wall']:.2f}",
            f"{len(one['lines'])}, one in {one['every']:g} s",
            f"{one['again_over_first']:.3f}",
        ]
        for model, one in found.items()
    ]
    head = ["model", "CPU time", "its stages", "forecast / truth", "lines", "called again / first call"]
    return table(["" if name == "model" else name for name in head], rows, len(head) - 1)


def profile_tables(found: Mapping[str, Mapping[str, Profiles]]) -> str:
    """The functions that take most, with the seconds of each way."""
    parts = []
    for model, stages in found.items():
        for stage, ways in stages.items():
            most = sorted({name for way in ways.values() for name in way}, key=lambda name: -_most(ways, name))[:SHOWN]
            rows = [[f"`{name}`", *(f"{way.get(name, 0):.2f}" for way in ways.values())] for name in most]
            rows.append(["all", *(f"{sum(way.values()):.2f}" for way in ways.values())])
            parts.append(table([f"{model}, {stage}: seconds of its own", *ways], rows, len(ways)))
    return "\n\n".join(parts)


def _most(ways: Profiles, name: str) -> float:
    return max(way.get(name, 0) for way in ways.values())


SHOWS: dict[str, Callable[[Any], str]] = {
    "screen": screen_table,
    "answers": answers_table,
    "tree": tree_table,
    "ablations": ablations_table,
    "training": training_table,
    "profiles": profile_tables,
    "port": port.table,
}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"cpu": name, "threads": torch.get_num_threads(), "python": platform.python_version(), **versions}


def main() -> None:
    """Measures one part after the other, and prints each as soon as it is there."""
    args = options()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore")  # rows that stand in two splits do not matter here
    models = [args.model.resolve()] if args.model else list(SHIPPED)
    subjects = {folder.name: Subject(folder, SHIPPED.get(folder), args) for folder in models}
    found: dict[str, Any] = {"machine": {**machine(), "dtype": args.dtype}}
    for part in [*args.only, *(["profiles"] if args.profile else [])]:
        if part == "port":
            found[part] = {} if args.model else port.measured(args.repeats)
        else:
            found[part] = {name: getattr(subject, part)() for name, subject in subjects.items()}
        if found[part]:
            print(SHOWS[part](found[part]), end="\n\n", flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{key} {value}" for key, value in found["machine"].items()))


if __name__ == "__main__":
    main()
