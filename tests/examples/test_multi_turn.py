"""The recipe for multi-turn benchmarks, on small files of their public shapes, and on API-Bank where it is at hand."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, TINY_LFM2, load_script

from asa_adapter import load_splits
from asa_adapter.data import cut
from asa_adapter.data.duplicates import leaks

API_BANK = ROOT.parent / "shared" / "data" / "api_bank"


@pytest.fixture(scope="module")
def recipe() -> Any:
    return load_script(ROOT / "examples" / "recipes" / "multi_turn.py")


def lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def labels(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["messages"][-1]["role"], row["label"]) for row in rows]


# --- BFCL


@pytest.fixture
def bfcl_folder(tmp_path: Path) -> Path:
    turns = [[{"role": "user", "content": text}] for text in ("Add 1 and 2, then 3.", "Divide that.", "By 2.")]
    entry = {"id": "multi_turn_miss_param_0", "question": turns, "initial_config": {}, "involved_classes": ["MathAPI"]}
    truth = [["add(a=1,b=2)", "add(3.0, b=3)"], [], ["divide(a=6,b=2)"]]
    number = {"type": "float"}
    tools = [
        {"name": name, "description": name, "parameters": {"type": "dict", "properties": {"a": number, "b": number}}}
        for name in ("add", "divide")
    ]
    name = "BFCL_v4_multi_turn_miss_param.json"
    lines(tmp_path / name, [entry])
    lines(tmp_path / "possible_answer" / name, [{"id": entry["id"], "ground_truth": truth}])
    lines(tmp_path / "multi_turn_func_doc" / "math_api.json", [{**tool, "response": {}} for tool in tools])
    return tmp_path


def test_bfcls_calls_are_due_one_by_one_and_a_turn_without_any_is_an_answer(recipe: Any, bfcl_folder: Path) -> None:
    rows = cut(recipe.bfcl(bfcl_folder))
    assert labels(rows) == [("user", 1), ("tool", 1), ("tool", 0), ("user", 0), ("user", 1), ("tool", 0)]
    assert [call["arguments"] for row in rows for call in row["gold_calls"]] == [
        {"a": 1, "b": 2},
        {"a": 3.0, "b": 3},
        {"a": 6, "b": 2},
    ]
    assert {row["domain"] for row in rows} == {"MathAPI"}
    assert rows[0]["tools"][0]["parameters"]["properties"]["a"] == {"type": "number"}


@pytest.mark.parametrize("text", ["add(a=b)", "3", "add(", "x.add(1)"])
def test_a_call_that_is_no_call_of_literals_is_refused(recipe: Any, text: str) -> None:
    with pytest.raises(ValueError, match="is no call with literal arguments"):
        recipe.python_call(text, {"add": ["a"]})


# --- NESTFUL


@pytest.fixture
def nestful_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "executable"
    calls = [
        {"name": "place", "arguments": {"query": "Rome"}, "label": "var1"},
        {"name": "hotels", "arguments": {"geo": ["$var1.geoId$"], "nights": 2}, "label": "var2"},
        {"name": "var_result", "arguments": {"hotels": "$var2$"}},
    ]
    lines(folder / "executable-data.json", [{"input": "Hotels in Rome, two nights", "output": calls}])
    query = {"type": "string", "description": "Where", "required": True}
    specs = [
        {"name": "place", "description": "Finds one.", "query_parameters": {"query": query}, "host": "x"},
        {"name": "hotels", "description": "Finds some.", "query_parameters": {"geo": {"type": "array"}}},
    ]
    lines(folder / "executable-spec.json", specs)
    return tmp_path


def test_nestfuls_results_hold_what_later_calls_take_from_them(recipe: Any, nestful_folder: Path) -> None:
    rows = cut(recipe.nestful(nestful_folder))
    assert labels(rows) == [("user", 1), ("tool", 1), ("tool", 0)]
    assert [json.loads(turn["content"]) for turn in rows[2]["messages"] if turn["role"] == "tool"] == [
        {"geoId": "geoId of var1"},
        {"result": "result of var2"},
    ]
    assert rows[1]["gold_calls"] == [{"name": "hotels", "arguments": {"geo": ["geoId of var1"], "nights": 2}}]
    assert rows[0]["tools"][0] == {
        "name": "place",
        "description": "Finds one.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "Where"}},
            "required": ["query"],
        },
    }


# --- API-Bank


@pytest.fixture
def api_bank_folder(tmp_path: Path) -> Path:
    said = [
        {"role": "User", "text": "My name is Ann, what is on today?"},
        {"role": "AI", "text": "Your password, please?"},
        {"role": "User", "text": "1234"},
        {
            "role": "API",
            "api_name": "Token",
            "param_dict": {"name": "Ann"},
            "result": {"output": "t-1", "exception": None},
        },
        {
            "role": "API",
            "api_name": "Agenda",
            "param_dict": {"token": "t-1"},
            "result": {"output": None, "exception": "none"},
        },
        {"role": "AI", "text": "Nothing."},
    ]
    lines(tmp_path / "lv1-lv2-samples" / "level-1-given-desc" / "Token-Agenda-level-1-1.jsonl", said)
    (tmp_path / "apis").mkdir()
    (tmp_path / "apis" / "token.py").write_text(
        "import nowhere\n\nclass Token(API):\n    description = 'Gives one.'\n"
        "    input_parameters = {'name': {'type': 'str', 'description': 'Whose.'}}\n    database_name = 'x'\n"
    )
    return tmp_path


def test_api_banks_dialogues_are_read_with_the_tools_of_its_classes(recipe: Any, api_bank_folder: Path) -> None:
    rows = cut(recipe.api_bank(api_bank_folder))
    assert labels(rows) == [("user", 0), ("user", 1), ("tool", 1), ("tool", 0)]
    assert rows[3]["messages"][-1]["content"] == '"none"'
    assert [tool["name"] for tool in rows[0]["tools"]] == ["Token", "Agenda"]
    assert rows[0]["tools"][0]["parameters"]["properties"] == {"name": {"type": "string", "description": "Whose."}}


@pytest.mark.skipif(not API_BANK.is_dir(), reason="API-Bank's states are not beside this checkout (shared/data)")
def test_api_banks_own_splits_are_kept_and_share_no_dialogue(recipe: Any, tmp_path: Path) -> None:
    recipe.main(["api_bank", "--data", str(API_BANK), "--output", str(tmp_path)])
    splits = {name: list(rows) for name, rows in load_splits(tmp_path).items()}
    counts = Counter((row["messages"][-1]["role"], row["label"]) for rows in splits.values() for row in rows)
    assert counts == {("user", 0): 288, ("user", 1): 264, ("tool", 0): 260, ("tool", 1): 30}
    assert len({row["conversation"] for rows in splits.values() for row in rows}) == 168
    assert {leak.kind for leak in leaks(splits)} <= {"near"}


# --- The command


def test_a_folder_without_the_benchmark_is_refused(recipe: Any, tmp_path: Path) -> None:
    for source in recipe.SOURCES:
        with pytest.raises(FileNotFoundError, match="expected"):
            recipe.main([source, "--data", str(tmp_path), "--output", str(tmp_path / "out")])


def test_a_model_is_measured_in_the_states_of_one_kind(
    recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ROOT / "examples" / "data" / "conversations"
    splits = {name: list(rows)[:60] for name, rows in load_splits(source).items()}
    for name, rows in splits.items():
        lines(tmp_path / f"{name}.jsonl", rows)
    words = ["api_bank", "--data", str(tmp_path), "--output", str(tmp_path / "out"), "--rows", "12"]
    recipe.main([*words, "--model", str(TINY_LFM2)])
    told = capsys.readouterr().out
    assert "after_result: fitted on 12 states, layer" in told
    assert "probe AUC on TEST's 12:" in told
    assert "calls on TEST where a call is due:" in told
    assert "of 6" in told


def test_both_labels_are_taken_as_far_as_they_go(recipe: Any) -> None:
    rows = [{"label": int(i < 3)} for i in range(20)]
    assert Counter(row["label"] for row in recipe.some(rows, 10)) == {1: 3, 0: 7}
    assert Counter(row["label"] for row in recipe.some(rows, 4)) == {1: 2, 0: 2}
    assert len(recipe.some(rows, 10**9)) == 20
