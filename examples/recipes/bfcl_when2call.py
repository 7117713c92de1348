"""Tools of their own in every prompt: fit on BFCL (do the offered tools fit the question?), test on When2Call.

python examples/recipes/bfcl_when2call.py --bfcl bfcl_eval/data --when2call when2call_test_llm_judge.jsonl \
    --model LiquidAI/LFM2.5-1.2B-Instruct --output out/when2call
python examples/recipes/bfcl_when2call.py --bfcl gorilla-llm/Berkeley-Function-Calling-Leaderboard \
    --when2call nvidia/When2Call --model Qwen/Qwen2.5-1.5B-Instruct --output out/when2call

When2Call's questions come from BFCL's live part: rows that share a question or a set of tools with it are never fitted
on. BFCL: Apache-2.0 (github.com/ShishirPatil/gorilla). When2Call: CC-BY-4.0 on the Hub, Apache-2.0 on GitHub (Ross,
Mahabaleshwarkar, Suhara: "When2Call: When (not) to Call Tools", NAACL 2025).
"""

import argparse
import itertools
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import load_model, rows_of_file, run, show, write_splits

from asa_adapter import ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.data import SPLITS, near_duplicate_groups, row_text
from asa_adapter.evaluation import Evaluation

SEED = 42
# BFCL's files by the label of their rows. The parallel ones are left out: their questions are longer, and length would
# tell the label.
CATEGORIES = {
    "simple": 1,
    "simple_python": 1,
    "multiple": 1,
    "irrelevance": 0,
    "live_simple": 1,
    "live_multiple": 1,
    "live_relevance": 1,
    "live_irrelevance": 0,
}
_FILE = re.compile(r"BFCL_v\d+_(\w+)\.json")
_MOST_OF_A_SET = 8
_LONGEST_TOOLS = 6000
_SHARES = {"cal": 2, "train": 2, "valid": 1, "test": 2}
_HUB_FILE = "test/when2call_test_llm_judge.jsonl"
_TYPES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "int": "integer",
    "str": "string",
    "bool": "boolean",
}
_TYPES |= {"tuple": "array", "list": "array", "set": "array"}
_NUMBERS = ("integer", "number")


def schema(value: Any) -> Any:
    """A JSON schema of BFCL's: its names of types and numbers given as texts mended, types such as "any" left out."""
    if isinstance(value, list):
        return [schema(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    known = {"object", "number", "integer", "string", "boolean", "array", "null"}
    changed: dict[str, Any] = {}
    for key, part in value.items():
        if key == "type" and isinstance(part, str):
            named = _TYPES.get(part.lower(), part.lower())
            changed |= {"type": named} if named in known else {}
        elif key in ("properties", "$defs") and isinstance(part, Mapping):
            changed[key] = {name: schema(inner) for name, inner in part.items()}
        else:
            changed[key] = part if key in ("default", "enum", "required") else schema(part)
    if changed.get("type") in _NUMBERS and "enum" in changed:
        changed["enum"] = [_number(part) for part in changed["enum"]]
    return changed


def _number(value: Any) -> Any:
    """One of the choices of a number: both data sets write some of them as texts, "2" for 2."""
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value):
        return json.loads(value)
    return value


def offered(tools: Iterable[Any]) -> list[dict[str, Any]]:
    """Tools given as dicts or as JSON texts, with clean schemas."""
    parsed = [json.loads(tool) if isinstance(tool, str) else dict(tool) for tool in tools]
    return [{**tool, "parameters": schema(tool.get("parameters") or {"type": "object"})} for tool in parsed]


def bfcl_rows(files: Iterable[Path]) -> list[dict[str, Any]]:
    """Rows of BFCL's own files, with the calls of possible_answer beside them: does an offered tool fit?"""
    rows = []
    for path in files:
        found = _FILE.fullmatch(path.name)
        category = found[1] if found else ""
        if category not in CATEGORIES:
            continue
        answers = path.parent / "possible_answer" / path.name
        gold = {row["id"]: row["ground_truth"] for row in rows_of_file(answers)} if answers.is_file() else {}
        for row in rows_of_file(path):
            try:
                messages, functions = row["question"][0], row["function"]
            except (KeyError, IndexError, TypeError):
                raise ValueError(
                    f"{path}: row {row.get('id')!r}: expected a question and a list of functions"
                ) from None
            tools = offered([functions] if isinstance(functions, Mapping) else functions)
            if not tools or len(json.dumps(tools)) > _LONGEST_TOOLS:
                continue
            rows.append(
                {
                    "id": f"bfcl-{row['id']}",
                    "messages": messages,
                    "label": CATEGORIES[category],
                    "domain": "live" if category.startswith("live") else "v1",
                    "tools": tools,
                    "gold_calls": gold.get(row["id"]),
                }
            )
    if not rows:
        raise ValueError(
            f"none of BFCL's files is there; expected BFCL_v4_NAME.json, NAME one of {', '.join(CATEGORIES)}"
        )
    return rows


def when2call_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of When2Call, as published or converted; "decision" keeps what the right answer is.

    Raises:
        ValueError: a row of another shape.
    """
    converted = []
    for i, row in enumerate(rows):
        if "correct_answer" in row:
            decision = row["correct_answer"]
            known = {"id": row.get("uuid"), "instruction": row["question"], "label": int(decision == "tool_call")}
            before = {"question": row.get("orig_question"), "tools": row.get("orig_tools") or []}
            row = {**known, "decision": decision, "tools": row["tools"], "before": before}
        if not {"label", "decision", "tools"} <= row.keys():
            raise ValueError(
                f"When2Call, row {i}: expected question, tools and correct_answer, found {sorted(row)!r:.200}"
            )
        converted.append({**row, "tools": offered(row["tools"] or []), "domain": row["decision"]})
    return converted


def keys(row: Mapping[str, Any]) -> set[Any]:
    """What a row shares with another of the same origin: its question, and its set of tools."""
    before = row.get("before") or {}
    texts = [row_text(row), before.get("question") or ""]
    sets = [row.get("tools") or [], offered(before.get("tools") or [])]
    return {" ".join(text.lower().split()) for text in texts if text} | {
        frozenset((tool["name"], *sorted(tool["parameters"].get("properties") or {})) for tool in tools)
        for tools in sets
        if tools
    }


def split_bfcl(
    rows: Sequence[Mapping[str, Any]], held_out: set[Any], each: int, seed: int = SEED
) -> dict[str, list[dict[str, Any]]]:
    """Four splits with as many rows of either label; what says nearly the same or has the same tools stays in one.

    Args:
        rows: BFCL's rows.
        held_out: keys of the rows that are tested on: what shares one of them goes to TEST, or is left out.
        each: rows of each domain and label, at most.
        seed: draws and orders the rows.
    """
    there = Counter(map(_kind, rows))
    number = {kind: min(each, there[kind], there[kind[0], 1 - kind[1]]) for kind in there}
    room = {
        (split, kind): number[kind] * share // sum(_SHARES.values())
        for split, share in _SHARES.items()
        for kind in number
    }
    groups = _groups(rows)
    random.Random(seed).shuffle(groups)
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SPLITS}
    for group in groups:
        part = [rows[i] for i in group[:_MOST_OF_A_SET]]
        shared = any(keys(row) & held_out for row in part)
        split = "test" if shared else max(SPLITS, key=lambda name: room[name, _kind(part[0])])
        for row in part:
            if room[split, _kind(row)]:
                room[split, _kind(row)] -= 1
                splits[split].append(dict(row))
    return splits


def _kind(row: Mapping[str, Any]) -> tuple[str, int]:
    return str(row["domain"]), int(row["label"])


def _groups(rows: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Indices of rows that belong together: nearly the same words, the same question or the same tools."""
    first: dict[Any, int] = {}
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, row in enumerate(rows):
        for key in keys(row):
            parent[root(i)] = root(first.setdefault(key, i))
    for group in near_duplicate_groups([row_text(row) for row in rows]):
        for a, b in itertools.pairwise(group):
            parent[root(a)] = root(b)
    together: dict[int, list[int]] = {}
    for i in range(len(rows)):
        together.setdefault(root(i), []).append(i)
    return list(together.values())


# --- Where the data are


def read_bfcl(source: str, held_out: set[Any], each: int) -> dict[str, list[dict[str, Any]]]:
    """BFCL as four splits: a folder that is split already, one of BFCL's own files, or the Hub."""
    folder = Path(source)
    if (folder / "cal.jsonl").is_file():
        return {name: rows_of_file(folder / f"{name}.jsonl") for name in SPLITS}
    if not folder.is_dir():
        if folder.exists() or source.startswith((".", "/", "~")):
            raise FileNotFoundError(f"no folder at {source}; expected BFCL's data folder, or an id on the Hub")
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                source, repo_type="dataset", allow_patterns=["BFCL_v*.json", "possible_answer/BFCL_v*.json"]
            )
        )
    return split_bfcl(bfcl_rows(sorted(folder.glob("BFCL_v*.json"))), held_out, each)


def read_when2call(source: str) -> list[dict[str, Any]]:
    """When2Call's test rows: a file, a folder with test.jsonl, or the Hub."""
    path = Path(source)
    if path.is_dir():
        path = path / "test.jsonl"
    elif path.suffix not in (".json", ".jsonl"):
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(source, _HUB_FILE, repo_type="dataset"))
    # A converted row may say which split of BFCL its question is in.
    return when2call_rows(row for row in rows_of_file(path) if row.get("bfcl_split", "test") == "test")


# --- Measuring


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Fits on BFCL, tests on both, prints the tables, and returns their numbers."""
    asked = read_when2call(options.when2call)
    splits = read_bfcl(options.bfcl, set().union(*map(keys, asked)), options.rows)
    fitted = set().union(*(keys(row) for name in ("cal", "train", "valid") for row in splits[name]))
    apart = [row for row in asked if not keys(row) & fitted]
    sizes = ", ".join(f"{name} {len(rows)}" for name, rows in splits.items())
    print(f"BFCL: {sizes}; When2Call: {len(apart)} of {len(asked)} rows share nothing with them", file=sys.stderr)
    if len({row["label"] for row in apart}) < 2:
        raise ValueError(f"{len(apart)} rows of When2Call are left, not of both labels; fit on other rows of BFCL")
    write_splits(options.output / "data", splits)
    model, tokenizer = load_model(options.model)
    arguments = ASATrainingArguments(
        output_dir=options.output / "adapter",
        layers=options.layers or "all",
        max_new_tokens=options.max_new_tokens,
        batch_size=options.batch_size,
        progress=not options.quiet,
    )
    trainer = ASATrainer(model, tokenizer, load_splits(options.output / "data"), arguments)
    adapter = trainer.train()
    trainer.report["metadata"] = {
        "datasets": ["gorilla-llm/Berkeley-Function-Calling-Leaderboard"],
        "data_license": "BFCL: Apache-2.0",
        "labels": "BFCL's: whether one of the offered tools fits the question",
    }
    found: dict[str, Any] = {"bfcl": trainer.evaluate("test"), "chosen": trainer.report["chosen"]}
    controls = trainer.report["controls"]["test"]
    show(f"BFCL TEST, {len(splits['test'])} rows", found["bfcl"])
    print(f"\na bag of words reads the label with an AUC of {controls['bag_of_words']['auc']:.3f}")
    evaluation = Evaluation(
        model,
        trainer.tokenizer,
        trainer.parser,
        max_new_tokens=arguments.max_new_tokens,
        batch_size=arguments.batch_size,
        progress=arguments.progress,
    )
    found["when2call"] = evaluation.compare(apart, adapter)
    show(f"When2Call, {len(apart)} rows, nothing of it was fitted on", found["when2call"])
    print("\nanswers that call, by the right decision (alone -> steered):")
    for decision, alone in found["when2call"]["base"]["per_domain"].items():
        steered = found["when2call"]["asa"]["per_domain"][decision]
        before, after = (f"{part['tp'] + part['fp']} of {part['n']}" for part in (alone, steered))
        print(f"  {decision:<18} {before} -> {after}")
    return found


def options_of(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bfcl", required=True, help="BFCL's data folder, one of four .jsonl splits, or its Hub id")
    parser.add_argument("--when2call", required=True, help="When2Call's test file, or its Hub id")
    parser.add_argument("--output", required=True, type=Path, help="folder for data, adapter and results.json")
    parser.add_argument("--model", default="LiquidAI/LFM2.5-1.2B-Instruct", help="folder or Hub id (default: LFM2.5)")
    parser.add_argument("--rows", type=int, default=280, help="rows of each part and label, at most (default: 280)")
    parser.add_argument("--layers", type=int, nargs="+", help="decoder blocks to try (default: all)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer (default: 128)")
    parser.add_argument("--batch-size", type=int, default=16, help="prompts run together (default: 16)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and keeps the numbers in results.json."""
    options = options_of(words)
    found = measure(options)
    path = options.output / "results.json"
    path.write_text(json.dumps({"model": options.model, **found}, indent=2) + "\n", encoding="utf-8")
    print(f"\nall numbers: {path}; the adapter: {options.output / 'adapter'}")


if __name__ == "__main__":
    sys.exit(run(main))
