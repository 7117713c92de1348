"""The recipes, on the tiny model and on small files of the same shape as the data that they were written for."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, TINY_LFM2, load_script

from asa_adapter import load_splits
from asa_adapter.prompts import encode_prompt, with_chat_template

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
        assert (
            f"between <|tool_call_start|> and <|tool_call_end|> tokens. Available tools:\n{dumped}<|im_end|>" in text
        )
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert text.count('"calculator"') == 1


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
    with pytest.warns(UserWarning, match="near duplicates stand in two splits"):  # the texts differ by a number
        recipe.main([*words, *sizes, "--short-pools", "placeholders"])
    return folder / "out"


def test_the_recipe_measures_base_port_and_own_choice(measured: Path) -> None:
    results = json.loads((measured / "results.json").read_text())["liquid"]
    assert [name.split(" (")[0] for name in results["test"]] == ["base", "port's procedure", "asa_adapter"]
    assert {metrics["n"] for metrics in results["test"].values()} == {48}
    assert list(results["settings"]) == ["current (tau 0.5, alpha 1)", "paper (tau 0.6, alpha 4)"]
    assert results["without_made_up"]["base"]["n"] == 48 - 5


def test_the_recipe_leaves_adapter_and_data_that_name_their_origin(measured: Path) -> None:
    card = (measured / "liquid" / "README.md").read_text()
    assert "Alpaca is CC BY-NC 4.0" in card and "weak: keyword rules" in card
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
