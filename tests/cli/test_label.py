"""`asa-adapter label`: splits with labels, one by one, that the same command goes on with."""

import json
from pathlib import Path
from typing import Any

import pytest
from checkout import TINY_LFM2
from rows import words, write

from asa_adapter import load_splits
from asa_adapter.cli import commands
from asa_adapter.cli.entrypoint import main
from asa_adapter.evaluation.answers import Evaluation

FILES = ("cal", "train", "valid", "test")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A folder of rows without labels, whose first domain the scripted model knows."""
    (tmp_path / "rows").mkdir()
    for name in FILES:
        parts = [
            {"instruction": f"{name} {words(len(name) + 7 * i)}", "answer": i, "domain": ("easy", "hard")[i % 2]}
            for i in range(4)
        ]
        write(tmp_path / "rows" / f"{name}.jsonl", parts)
    tools = [{"name": "counter", "parameters": {"type": "object", "properties": {}}}]
    (tmp_path / "rows" / "tools.json").write_text(json.dumps(tools))
    return tmp_path / "rows"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The model is not run; the list gets the number of prompts of each time it would be."""
    counts: list[int] = []

    def answers(self: Evaluation, prompts: Any, **_: Any) -> list[str]:
        counts.append(len(prompts))
        # Rows 0 and 2 of each split are answered.
        return [f"{i % 4}<|im_end|>" if i % 2 == 0 else "I cannot say.<|im_end|>" for i in range(len(prompts))]

    monkeypatch.setattr(Evaluation, "answers", answers)
    return counts


def run(data: Path, output: Path, *more: str) -> list[str]:
    return ["label", str(TINY_LFM2), str(data), "--output", str(output), "--quiet", *more]


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 2
    return capsys.readouterr().err


def test_it_writes_splits_that_can_be_trained_on_and_a_table_by_domain(
    rows: Path, asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "labelled"
    assert main(run(rows, output, "--times", "3")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| domain | rows | need a tool | share |",
        "|---|---:|---:|---:|",
        "| easy | 8 | 0 | 0.000 |",
        "| hard | 8 | 8 | 1.000 |",
        "| all | 16 | 8 | 0.500 |",
        "",
        f"saved in {output}",
    ]
    assert asked == [4, 8] * 4
    splits = load_splits(output)
    assert {name: part["label"] for name, part in splits.items()} == {name: [0, 1, 0, 1] for name in FILES}
    assert splits["cal"][0]["tools"][0]["name"] == "counter"
    first = json.loads((output / "cal.jsonl").read_text().splitlines()[0])
    assert first["answer"] == 0
    assert first["tried"] == {"failures": 0.0, "right": [True] * 3, "answers": ["0"] * 3}


def test_as_json_it_counts_both_labels_of_each_split(
    rows: Path, asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(run(rows, tmp_path / "labelled", "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == {name: {"easy": [2, 0], "hard": [0, 2]} for name in FILES}


def test_after_a_break_it_goes_on_with_the_missing_splits_and_then_asks_no_more(
    rows: Path, asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "labelled"
    label_by_trying = commands.label_by_trying

    def interrupted(*given: Any, **more: Any) -> Any:
        if len(asked) == 4:  # of the first two splits
            raise KeyboardInterrupt
        return label_by_trying(*given, **more)

    monkeypatch.setattr(commands, "label_by_trying", interrupted)
    assert main(run(rows, output)) == 130
    assert f"finished splits are kept in {output}: run the same command to go on" in capsys.readouterr().err
    assert sorted(path.name for path in output.glob("*.jsonl")) == ["cal.jsonl", "train.jsonl"]
    monkeypatch.undo()
    monkeypatch.setattr(Evaluation, "answers", lambda self, prompts, **_: ["2<|im_end|>"] * len(prompts))
    assert main(run(rows, output)) == 0
    labels = {name: part["label"] for name, part in load_splits(output).items()}
    assert labels == {"cal": [0, 1, 0, 1], "train": [0, 1, 0, 1], "valid": [1, 1, 0, 1], "test": [1, 1, 0, 1]}
    monkeypatch.setattr(commands, "load_model", lambda *_: pytest.fail("the model was loaded"))
    assert main(run(rows, output)) == 0


def test_labels_of_two_kinds_are_not_mixed(
    rows: Path, asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "labelled"
    assert main(run(rows, output)) == 0
    capsys.readouterr()
    assert f"{output} holds labels made with n 5, this run has 3; give another output" in failure(
        run(rows, output, "--times", "3"), capsys
    )
    write(rows / "cal.jsonl", [{"instruction": "Another row", "answer": 1}])
    assert "holds labels made with data_sha256" in failure(run(rows, output), capsys)


def test_a_folder_of_other_rows_is_not_overwritten(
    rows: Path, asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (rows / "cal.jsonl").read_bytes()
    message = failure(run(rows, rows), capsys)
    assert f"{rows} holds cal.jsonl, but no labels.json that says how it was made" in message
    assert (rows / "cal.jsonl").read_bytes() == before
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "labels.json").write_text("{")
    assert "labels.json: not valid JSON" in failure(run(rows, tmp_path / "spoilt"), capsys)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--answers", "truth"], "cal.jsonl, line 1: there is no 'truth'; expected a column with the right answer"),
        (["--times", "0"], "n, the number of answers to each row, is 0; expected 1 or more"),
        (["--fails", "6"], "k, the failures that make label 1, is 6; expected 1 to n = 5"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_the_model_is_loaded(
    rows: Path,
    tmp_path: Path,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commands, "load_model", lambda *_: pytest.fail("the model was loaded"))
    assert message in failure(run(rows, tmp_path / "labelled", *more), capsys)
    assert not (tmp_path / "labelled").exists()


def test_one_set_is_labelled_and_then_split(
    asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "all.jsonl"
    write(data, [{"instruction": words(i), "answer": i % 4, "domain": "one"} for i in range(56)])
    output = tmp_path / "labelled"
    assert main(run(data, output, "--times", "1")) == 0
    assert asked == [56]
    assert {name: len(part) for name, part in load_splits(output).items()} == {
        "cal": 16, "train": 16, "valid": 8, "test": 16,
    }  # fmt: skip


def test_a_split_with_one_label_is_told_of(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Evaluation, "answers", lambda self, prompts, **_: ["no idea"] * len(prompts))
    assert main(run(rows, tmp_path / "labelled")) == 0
    assert "valid: every label is 1; training expects rows of both labels" in capsys.readouterr().out
