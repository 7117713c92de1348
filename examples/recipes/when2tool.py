"""When2Tool's tasks as rows with answers to check, for `asa-adapter label`: is a tool needed, for your model?

python examples/recipes/when2tool.py --data cesun/When2Tool --schemas when2tool/envs --output out/when2tool
asa-adapter label MODEL out/when2tool --output out/when2tool_labelled
asa-adapter train --model MODEL --data out/when2tool_labelled --output out/adapter

The tasks have three difficulties and come with their answers. Their training part is cut into CAL, TRAIN and VALID,
near duplicates on one side; their test part is TEST. The data name their tools only; the schemas are in the folder
`envs` of github.com/Trustworthy-ML-Lab/when2tool. MIT on the Hub ("LLM Agents Already Know When to Call Tools - Even
Without Reasoning", arXiv 2605.09252).
"""

import argparse
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import rows_of, run, write_splits

from asa_adapter.data import near_duplicate_groups, read_tools
from asa_adapter.labelling import expected_results

SEED = 42
SHARES = {"cal": 0.4, "train": 0.4, "valid": 0.2}


def task_row(task: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One task as a row, from the Hub's columns or from the objects of the project's own files.

    Args:
        task: the task.
        schemas: the tools by their names; one that is missing takes any argument.

    Raises:
        ValueError: a task of another shape.
    """
    try:
        if "environments" in task:
            place = task["environments"][0]
            environment, names, answer = place["name"], place["tools"], task["expected"]["answer"]
        else:
            environment, names, answer = task["env_name"], json.loads(task["tools"]), task["answer"]
        instruction, difficulty = task["instruction"], task["difficulty"]
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(
            f"task {task.get('id')!r}: expected an instruction, a difficulty, an environment with tools and an "
            f"answer, found {sorted(task)!r:.200}"
        ) from None
    unknown = {"parameters": {"type": "object"}}
    return {
        "id": f"when2tool-{task.get('id')}",
        "instruction": instruction,
        "domain": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", environment.removesuffix("Env")).lower(),
        "difficulty": difficulty,
        "answer": answer,
        "tools": [dict(schemas.get(name, {"name": name, **unknown})) for name in names],
    }


def checkable(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with an answer that can be checked; how many others there are is printed.

    An answer of punctuation alone, as of a search for commas, has nothing to compare.
    """
    kept, dropped = [], Counter[str]()
    for row in rows:
        try:
            expected_results(row["answer"], row["id"])
        except ValueError:
            dropped[row["domain"]] += 1
        else:
            kept.append(row)
    if dropped:
        counts = ", ".join(f"{domain} {count}" for domain, count in dropped.items())
        print(f"left out, since their answers cannot be checked: {counts}", file=sys.stderr)
    return kept


def fitted_splits(rows: Sequence[dict[str, Any]], seed: int = SEED) -> dict[str, list[dict[str, Any]]]:
    """CAL, TRAIN and VALID, alike in domains and difficulties; what says nearly the same stays in one.

    Args:
        rows: the rows of the training part.
        seed: deals them.
    """
    groups = near_duplicate_groups([row["instruction"] for row in rows])
    random.Random(seed).shuffle(groups)
    total = Counter((row["domain"], row["difficulty"]) for row in rows)
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in SHARES}
    filled = {name: Counter[tuple[str, str]]() for name in SHARES}
    for group in sorted(groups, key=len, reverse=True):
        kind = (rows[group[0]]["domain"], rows[group[0]]["difficulty"])
        name = max(SHARES, key=lambda split: SHARES[split] * total[kind] - filled[split][kind])
        splits[name] += [rows[i] for i in group]
        filled[name].update((rows[i]["domain"], rows[i]["difficulty"]) for i in group)
    return splits


def read_schemas(folder: Path | None) -> dict[str, dict[str, Any]]:
    """The tools of all files in the project's folder `envs`, by their names."""
    if folder is None:
        return {}
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"no .json files in {folder}; expected When2Tool's folder envs")
    return {tool["name"]: tool for path in files for tool in read_tools(path)}


def rows_of_part(
    source: str, part: str, config: str, schemas: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of the training or the test part: of a folder of the project's files, or of the Hub."""
    folder = Path(source)
    if folder.is_dir():
        source = str(folder / f"tasks_v1_{'multihop_' if config == 'multi_hop' else ''}{part}.json")
    return checkable(task_row(task, schemas) for task in rows_of(source, part, config))


def main(words: Sequence[str] | None = None) -> None:
    """Writes the four files, and says what is in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="When2Tool's folder data, or its Hub id")
    parser.add_argument("--schemas", type=Path, help="When2Tool's folder envs (default: tools that take any argument)")
    parser.add_argument("--config", choices=("single_hop", "multi_hop"), default="single_hop", help="which tasks")
    parser.add_argument("--output", required=True, type=Path, help="folder for the rows")
    options = parser.parse_args(words)
    schemas = read_schemas(options.schemas)
    train, test = (rows_of_part(options.data, part, options.config, schemas) for part in ("train", "test"))
    splits = {**fitted_splits(train), "test": test}
    write_splits(options.output, splits)
    print(", ".join(f"{name} {len(rows)}" for name, rows in splits.items()), f"rows in {options.output}; now:")
    print(f"asa-adapter label MODEL {options.output} --output {options.output}_labelled")


if __name__ == "__main__":
    sys.exit(run(main))
