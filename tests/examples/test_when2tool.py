"""The recipe for When2Tool: its tasks as rows that can be labelled by trying."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, load_script

from asa_adapter.data.duplicates import leaks
from asa_adapter.data.sources import read_parts
from asa_adapter.labelling.trial import prompts_and_results

SHARED = os.environ.get("ASA_SHARED_DATA")
THERE = Path(f"{SHARED}/when2tool")
needs_when2tool = pytest.mark.skipif(
    not (SHARED and THERE.is_dir()),
    reason="set ASA_SHARED_DATA to a folder with When2Tool's data and envs in when2tool",
)
SCHEMA = {
    "name": "evaluate_expression",
    "description": "Evaluates.",
    "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
}


@pytest.fixture(scope="module")
def recipe() -> Any:
    return load_script(ROOT / "examples" / "recipes" / "when2tool.py")


def task(number: int, difficulty: str, **changes: Any) -> dict[str, Any]:
    """A task in the shape of the project's files."""
    return {
        "id": number,
        "difficulty": difficulty,
        "multi_step": False,
        "instruction": f"What is {number * 7919} plus {number}{number}?",
        "environments": [{"name": "CalculatorEnv", "tools": ["evaluate_expression", "clear"], "parameters": {}}],
        "expected": {"answer": str(number)},
        "tags": [],
        **changes,
    }


def on_the_hub(given: dict[str, Any]) -> dict[str, Any]:
    """The same task in the columns that the Hub has."""
    (place,) = given["environments"]
    return {
        **{key: given[key] for key in ("id", "difficulty", "multi_step", "instruction")},
        "env_name": place["name"],
        "tools": json.dumps(place["tools"]),
        "parameters": "{}",
        "answer": given["expected"]["answer"],
        "steps": "[]",
        "tags": "[]",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The project's folders, with a few tasks."""
    tasks = [task(i, ("easy", "medium", "hard")[i % 3]) for i in range(1, 61)]
    commas = task(61, "easy", expected={"answer": "[',', '!']"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tasks_v1_train.json").write_text(json.dumps([*tasks[:45], commas]))
    (tmp_path / "data" / "tasks_v1_test.json").write_text(json.dumps(tasks[45:]))
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "CalculatorEnv.json").write_text(json.dumps([SCHEMA]))
    return tmp_path


def test_a_task_becomes_a_row_whichever_shape_it_has(recipe: Any) -> None:
    given = task(3, "hard")
    row = recipe.task_row(given, {"evaluate_expression": SCHEMA})
    assert row == {
        "id": "when2tool-3",
        "instruction": given["instruction"],
        "domain": "calculator",
        "difficulty": "hard",
        "answer": "3",
        "tools": [SCHEMA, {"name": "clear", "parameters": {"type": "object"}}],
    }
    assert recipe.task_row(on_the_hub(given), {"evaluate_expression": SCHEMA}) == row
    named = recipe.task_row(task(1, "easy", environments=[{"name": "RegexMatchEnv", "tools": []}]), {})
    assert named["domain"] == "regex_match"
    with pytest.raises(ValueError, match="task 5: expected an instruction, a difficulty, an environment with tools"):
        recipe.task_row({"id": 5, "question": "x"}, {})


def test_the_rows_that_are_written_can_be_tried(recipe: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = folder / "out"
    words = ["--data", str(folder / "data"), "--schemas", str(folder / "envs"), "--output", str(output)]
    recipe.main(words)
    printed = capsys.readouterr()
    assert printed.err == "left out, since their answers cannot be checked: calculator 1\n"
    assert f"asa-adapter label MODEL {output} --output {output}_labelled" in printed.out
    parts, _ = read_parts(output)
    assert {name: len(rows) for name, rows in parts.items()} == {"cal": 18, "train": 18, "valid": 9, "test": 15}
    for rows in parts.values():
        assert len(set(Counter(row["difficulty"] for row in rows).values())) == 1
        prompts_and_results(rows, "answer")


def test_a_folder_without_schemas_or_tasks_is_named(recipe: Any, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.json files in .*expected When2Tool's folder envs"):
        recipe.read_schemas(folder)
    with pytest.raises(FileNotFoundError, match=r"no file at .*tasks_v1_multihop_train\.json"):
        recipe.rows_of_part(str(folder / "data"), "train", "multi_hop", {})


@needs_when2tool
def test_the_published_tasks_are_read_and_their_splits_share_no_near_duplicates(recipe: Any, tmp_path: Path) -> None:
    schemas = recipe.read_schemas(THERE / "envs")
    rows = recipe.rows_of_part(str(THERE / "data"), "train", "single_hop", schemas)
    assert len(rows) >= 850
    assert {row["difficulty"] for row in rows} == {"easy", "medium", "hard"}
    splits = recipe.fitted_splits(rows)
    assert leaks(splits) == []
