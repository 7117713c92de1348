"""The recipes, on the tiny model and on small files of the same shape as the data that they were written for."""

import contextlib
import itertools
import json
import os
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import ROOT, TINY_LFM2, load_script

from asa_adapter import load_splits
from asa_adapter.data.prompts import encode_prompt, with_chat_template

RECIPES = ROOT / "examples" / "recipes"
SHARED = os.environ.get("ASA_SHARED_DATA")
needs_shared = pytest.mark.skipif(not SHARED, reason="set ASA_SHARED_DATA to the folder of the small samples")

# Texts that the rules give each domain and label, with a place for a number.
TEXTS = {
    ("math", 1): "Calculate {n} percent of the sum of two numbers.",
    ("math", 0): "Describe the area of a triangle number {n}.",
    ("code", 1): "Write a python script number {n}.",
    ("code", 0): "Explain the python algorithm number {n}.",
    ("search", 1): "Who is the president of country {n}?",
    ("search", 0): "Explain why the capital of state {n} was founded.",
    ("translation", 1): "Translate sentence {n} to another tongue.",
    ("translation", 0): "Explain translation theory number {n}.",
}


@pytest.fixture(scope="module")
def alpaca() -> Any:
    return load_script(RECIPES / "alpaca.py")


@pytest.fixture(scope="module")
def recipe() -> Any:
    return load_script(RECIPES / "lfm25_alpaca.py")


@pytest.fixture(scope="module")
def common() -> Any:
    return load_script(RECIPES / "common.py")


@pytest.fixture(scope="module")
def per_row() -> Any:
    return load_script(RECIPES / "bfcl_when2call.py")


def alpaca_rows(each: int = 20, **fewer: int) -> list[dict[str, str]]:
    """Rows in the shape of Alpaca; `fewer` names a domain whose label 0 has that many only."""
    return [
        {"instruction": text.format(n=n), "input": "", "output": "x"}
        for (domain, label), text in TEXTS.items()
        for n in range(each if label else fewer.get(domain, each))
    ]


# --- The benchmark


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_the_rules_give_domain_and_label(alpaca: Any, kind: tuple[str, int]) -> None:
    assert alpaca.classify(TEXTS[kind].format(n=7)) == kind


def test_the_rules_count_words_of_the_input_and_skip_texts_without_any(alpaca: Any) -> None:
    assert alpaca.classify("Continue the story.") is None
    assert alpaca.classify("Continue:", "the equation and the formula") == ("math", 0)
    assert alpaca.classify("What fraction of python is this?") == ("math", 0)  # one word each: the earlier domain


def test_the_splits_are_balanced_and_drawn_by_the_seed(alpaca: Any) -> None:
    splits = alpaca.build_splits(alpaca_rows(), per_share=3)
    assert {name: len(rows) for name, rows in splits.items()} == {"cal": 24, "train": 24, "valid": 24, "test": 48}
    for rows in splits.values():
        for kind in TEXTS:
            assert sum((row["domain"], row["label"]) == kind for row in rows) == len(rows) // len(TEXTS)
    texts = [row["instruction"] for rows in splits.values() for row in rows]
    assert len(set(texts)) == len(texts)
    assert splits == alpaca.build_splits(alpaca_rows(), per_share=3)
    pool = [TEXTS["math", 0].format(n=n) for n in range(20)]
    np.random.RandomState(42).shuffle(pool)
    for split, drawn in (("cal", pool[:3]), ("test", pool[9:15])):
        rows = [row["instruction"] for row in splits[split] if (row["domain"], row["label"]) == ("math", 0)]
        assert sorted(rows) == sorted(drawn)


def test_a_short_pool_is_refused_with_what_is_missing(alpaca: Any) -> None:
    with pytest.raises(ValueError, match=r"translation with label 0: 4 \(11 short\).*--short-pools fewer"):
        alpaca.build_splits(alpaca_rows(translation=4), per_share=3)


def test_fewer_takes_what_there_is_in_the_same_shares(alpaca: Any) -> None:
    splits = alpaca.build_splits(alpaca_rows(translation=11), "fewer", per_share=3)
    counts = {
        name: sum((row["domain"], row["label"]) == ("translation", 0) for row in rows) for name, rows in splits.items()
    }
    assert counts == {"cal": 2, "train": 2, "valid": 2, "test": 4}
    assert not any(alpaca.is_made_up(row) for rows in splits.values() for row in rows)


def test_placeholders_fill_a_short_pool_and_are_known(alpaca: Any) -> None:
    splits = alpaca.build_splits(alpaca_rows(translation=4), "placeholders", per_share=3)
    made_up = {name: [row for row in rows if alpaca.is_made_up(row)] for name, rows in splits.items()}
    assert {name: len(rows) for name, rows in made_up.items()} == {"cal": 0, "train": 2, "valid": 3, "test": 6}
    assert {(row["domain"], row["label"]) for row in made_up["test"]} == {("translation", 0)}


def test_rows_of_another_shape_are_refused(alpaca: Any) -> None:
    with pytest.raises(ValueError, match=r"row 0: expected the texts 'instruction' and 'input', found \['question'\]"):
        alpaca.build_splits([{"question": "x"}])


@pytest.mark.parametrize("prompts", ["explicit", "liquid"])
def test_the_prompts_carry_the_tools_in_a_system_turn(alpaca: Any, tiny_lfm2: Any, prompts: str) -> None:
    tokenizer = with_chat_template(tiny_lfm2[1], alpaca.prompt_template(tiny_lfm2[1], prompts))
    text = tokenizer.decode(encode_prompt(tokenizer, [{"role": "user", "content": "Hi"}], alpaca.TOOLS))
    if prompts == "liquid":
        assert f"<|im_start|>system\nList of tools: {json.dumps(alpaca.TOOLS)}<|im_end|>" in text
    else:
        dumped = json.dumps(alpaca.TOOLS, indent=2)
        assert f"between <|tool_call_start|> and <|tool_call_end|>. These are the tools:\n{dumped}<|im_end|>" in text
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text.count('"calculator"') == 1


@contextlib.contextmanager
def _cut_answers() -> Iterator[None]:
    """Says nothing of answers that a small max_new_tokens cuts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*max_new_tokens")
        yield


# --- The whole recipe


@pytest.fixture(scope="module")
def measured(recipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run on a small benchmark, with two of the eight settings."""
    folder = tmp_path_factory.mktemp("alpaca")
    (folder / "alpaca.json").write_text(json.dumps(alpaca_rows(translation=10)))
    words = ["--data", str(folder / "alpaca.json"), "--output", str(folder / "out"), "--model", str(TINY_LFM2)]
    sizes = ["--rows-per-share", "3", "--layers", "6", "--max-new-tokens", "4", "--quiet", "--prompts", "liquid"]
    assert len(recipe.SETTINGS) == 8
    recipe.SETTINGS = {name: recipe.SETTINGS[name] for name in ("current", "paper")}
    two_splits = pytest.warns(UserWarning, match="near duplicates stand in two splits")
    # The texts differ by a number; no answer ends within four tokens.
    with _cut_answers(), two_splits, pytest.warns(UserWarning, match="cal has 24 rows in 8 groups"):
        recipe.main([*words, *sizes, "--short-pools", "placeholders"])
    return folder / "out"


def test_the_recipe_measures_base_port_and_own_choice(measured: Path) -> None:
    results = json.loads((measured / "results.json").read_text())["liquid"]
    assert [name.split(" (")[0] for name in results["test"]] == ["base", "port's procedure", "this package"]
    assert {metrics["n"] for metrics in results["test"].values()} == {48}
    assert list(results["settings"]) == ["current (tau 0.5, alpha 1)", "paper (tau 0.6, alpha 4)"]
    assert results["without_made_up"]["base"]["n"] == 48 - 5


def test_the_recipe_leaves_adapter_and_data_that_name_their_origin(measured: Path) -> None:
    card = (measured / "liquid" / "README.md").read_text()
    assert "Alpaca is CC BY-NC 4.0" in card
    assert "weak: keyword rules" in card
    assert len(load_splits(measured / "data")["test"]) == 48


def test_published_numbers_stand_beside_those_of_their_model_and_prompts(recipe: Any) -> None:
    table = recipe.PUBLISHED["LFM2.5-1.2B-Instruct", "liquid"]
    assert [row["f1"] for row in table.values()] == [0.5534, 0.3200]
    for rows in [*recipe.PUBLISHED.values(), *recipe.PAPER_ABLATIONS.values()]:
        for name, row in rows.items():
            precision, recall = row["precision"], row["recall"]
            assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall), abs=0.002), name
            # As many prompts need a tool as do not.
            assert row["accuracy"] == pytest.approx((recall + 1 - row["fpr"]) / 2, abs=0.001), name


# --- BFCL and When2Call


def bfcl_row(name: str, words: str) -> dict[str, Any]:
    """A row in the shape of BFCL's files."""
    argument = {"type": "float", "description": "any"}
    function = {
        "name": f"{name}.run",
        "description": f"Works on {name}.",
        "parameters": {"type": "dict", "properties": {name: argument}, "required": [name]},
    }
    return {"id": name, "question": [[{"role": "user", "content": words}]], "function": [function]}


def words_of(number: int) -> list[str]:
    """Words that no other number has."""
    letters = random.Random(number)
    return ["".join(letters.choices("bdfgklmnprstvz", k=6)) for _ in range(5)]


@pytest.fixture(scope="module")
def bfcl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bfcl")
    numbers = itertools.count()
    for category in ("simple_python", "irrelevance"):
        names = [words_of(next(numbers)) for _ in range(32)]
        rows = [json.dumps(bfcl_row(words[0], " ".join(words))) for words in names]
        (folder / f"BFCL_v4_{category}.json").write_text("\n".join(rows))
        (folder / "possible_answer").mkdir(exist_ok=True)
        if category == "simple_python":
            gold = [{"id": row[0], "ground_truth": [{f"{row[0]}.run": {row[0]: [1.5, ""]}}]} for row in names]
            (folder / "possible_answer" / "BFCL_v4_simple_python.json").write_text("\n".join(map(json.dumps, gold)))
    (folder / "BFCL_v4_web_search.json").write_text("{}")
    return folder


def when2call_row(number: int, decision: str, **changes: Any) -> dict[str, Any]:
    """A row in the shape of When2Call's test file, whose tools are JSON texts."""
    name, *words = words_of(1000 + number)
    tool = bfcl_row(name, "")["function"][0]
    row = {"uuid": str(number), "question": " ".join(words), "tools": [json.dumps(tool)], "correct_answer": decision}
    return {**row, "answers": {}, "target_tool": None, "held_out_param": None, **changes}


def test_bfcls_types_become_those_of_json_schema(per_row: Any, bfcl_folder: Path) -> None:
    rows = per_row.bfcl_rows(sorted(bfcl_folder.glob("*.json")))
    parameters = rows[0]["tools"][0]["parameters"]
    assert parameters["type"] == "object"
    assert [part["type"] for part in parameters["properties"].values()] == ["number"]
    assert {(row["domain"], row["label"]) for row in rows} == {("v1", 0), ("v1", 1)}
    assert all(bool(row["gold_calls"]) == bool(row["label"]) for row in rows)
    assert per_row.schema({"type": "any", "items": {"type": "tuple"}}) == {"items": {"type": "array"}}
    named_type = {"properties": {"type": {"type": "str"}}}
    assert per_row.schema(named_type) == {"properties": {"type": {"type": "string"}}}


@pytest.mark.parametrize(
    ("given", "kept"),
    [(["1", "2"], [1, 2]), (["-0.5", "3"], [-0.5, 3]), ([1, 2], [1, 2]), (["007", "two"], ["007", "two"])],
)
@pytest.mark.parametrize("kind", ["integer", "float"])
def test_choices_of_a_number_that_are_texts_become_numbers(per_row: Any, kind: str, given: Any, kept: Any) -> None:
    assert per_row.schema({"type": kind, "enum": given})["enum"] == kept


def test_choices_of_a_text_stay_texts(per_row: Any) -> None:
    assert per_row.schema({"type": "string", "enum": ["1", "2"]})["enum"] == ["1", "2"]


def test_a_folder_without_bfcls_files_is_refused(per_row: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none of BFCL's files is there; expected BFCL_v4_NAME\.json"):
        per_row.read_bfcl(str(tmp_path), set(), 10)
    with pytest.raises(FileNotFoundError, match=r"no folder at \./nowhere"):
        per_row.read_bfcl("./nowhere", set(), 10)


def test_when2call_calls_where_a_call_is_right(per_row: Any) -> None:
    decisions = ["tool_call", "request_for_info", "cannot_answer", "direct"]
    rows = per_row.when2call_rows([when2call_row(i, decision) for i, decision in enumerate(decisions)])
    assert [row["label"] for row in rows] == [1, 0, 0, 0]
    assert [row["domain"] for row in rows] == decisions
    assert rows[0]["tools"][0]["parameters"]["type"] == "object"
    with pytest.raises(ValueError, match="When2Call, row 0: expected question, tools and correct_answer"):
        per_row.when2call_rows([{"prompt": "x"}])


def test_rows_of_one_tool_set_stay_together_and_held_out_ones_are_never_fitted_on(
    per_row: Any, bfcl_folder: Path
) -> None:
    rows = per_row.bfcl_rows(sorted(bfcl_folder.glob("*.json")))
    for number, row in enumerate(list(rows)):
        words = [{"role": "user", "content": " ".join(words_of(2000 + number))}]
        rows.append({**row, "id": f"{row['id']}-again", "messages": words})
    held_out = per_row.keys(rows[0])
    splits = per_row.split_bfcl(rows, held_out, each=64)
    where: dict[Any, set[str]] = {}
    for name, part in splits.items():
        assert abs(sum(1 if row["label"] else -1 for row in part)) <= 2, name
        for row in part:
            for key in per_row.keys(row):
                where.setdefault(key, set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    assert all(where.get(key, {"test"}) == {"test"} for key in held_out)


@pytest.fixture(scope="module")
def per_row_results(per_row: Any, bfcl_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of a whole run: of the ten rows of When2Call one has a question that is fitted on."""
    folder = tmp_path_factory.mktemp("when2call")
    split = per_row.read_bfcl(str(bfcl_folder), set(), 30)
    per_row.write_splits(folder / "bfcl", split)
    rows = [when2call_row(i, ("tool_call", "request_for_info", "cannot_answer")[i % 3]) for i in range(9)]
    rows.append(when2call_row(9, "tool_call", question=split["train"][0]["messages"][0]["content"]))
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = ["--bfcl", str(folder / "bfcl"), "--when2call", str(folder / "test.jsonl"), "--model", str(TINY_LFM2)]
    sizes = ["--layers", "6", "--max-new-tokens", "4", "--quiet"]
    with _cut_answers():
        per_row.main([*sources, *sizes, "--output", str(folder / "out")])
    results: dict[str, Any] = json.loads((folder / "out" / "results.json").read_text())
    return results


def test_the_per_row_recipe_tests_on_what_it_did_not_fit_on(per_row_results: dict[str, Any]) -> None:
    assert per_row_results["bfcl"]["base"]["n"] == 16
    assert per_row_results["bfcl"]["base"]["gold"]["n"] == 8
    tested = per_row_results["when2call"]["asa"]["per_domain"]
    assert {name: part["n"] for name, part in tested.items()} == {
        "cannot_answer": 3,
        "request_for_info": 3,
        "tool_call": 3,
    }


@needs_shared
def test_the_samples_of_bfcl_and_when2call_are_read_and_kept_apart(per_row: Any) -> None:
    asked = per_row.read_when2call(f"{SHARED}/when2call")
    splits = per_row.read_bfcl(f"{SHARED}/bfcl", set(), 0)
    fitted = set().union(*(per_row.keys(row) for name in ("cal", "train", "valid") for row in splits[name]))
    assert [sum(row["label"] == label for row in asked) for label in (0, 1)] == [43, 30]
    assert sum(bool(per_row.keys(row) & fitted) for row in asked) == 1  # one pair of rows has the same tools
    again = per_row.split_bfcl(
        [row for part in splits.values() for row in part], set().union(*map(per_row.keys, asked)), 60
    )
    assert all(len(part) >= 20 for part in again.values())


@needs_shared
def test_the_rules_label_the_sample_of_self_instruct_as_its_makers_did(alpaca: Any, common: Any) -> None:
    rows = common.rows_of_file(Path(f"{SHARED}/self_instruct/all.jsonl"))
    kinds = [alpaca.classify(*row["instruction"].split("\n", 1)) for row in rows]
    agreed = sum(kind == (row["domain"], row["label"]) for row, kind in zip(rows, kinds, strict=True) if kind)
    assert agreed >= 0.95 * sum(kind is not None for kind in kinds)


# --- Where rows come from, and how errors look


def test_rows_come_from_a_list_and_from_lines(common: Any, tmp_path: Path) -> None:
    rows = [{"instruction": "ä"}, {"instruction": "b"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        common.rows_of(str(tmp_path / "a.json"), "train") == common.rows_of(str(tmp_path / "b.jsonl"), "train") == rows
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "neither a JSON list nor JSON lines"),
        ("a.json", "[1]", "expected JSON objects"),
        ("a.txt", "x", "expected a .json, .jsonl or .parquet file"),
        ("a.json", None, "no file at"),
    ],
)
def test_what_cannot_be_read_is_named(
    common: Any, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        common.rows_of(str(tmp_path / name), "train")


def test_without_network_a_hub_id_is_one_line_that_names_the_way_out(
    recipe: Any, common: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "nobody/alpaca", "--output", str(tmp_path)]
    assert common.run(lambda: recipe.main(words)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: cannot load 'nobody/alpaca' from the Hub")
    assert text.count("\n") == 1
    assert "give a local file" in text
