"""The three short scripts, on the tiny LFM2 and a part of its data."""

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from answers import lfm2
from checkout import ROOT, load_script
from hub import LocalHub
from PIL import Image

from asa_adapter import ASAAdapter, ToolCallParser

EXAMPLES = ROOT / "examples"
SHORT = ["load_and_generate", "fit_and_push", "inspect_decisions"]
NAME = "alice/tiny-asa"


def script(name: str) -> Any:
    return load_script(EXAMPLES / f"{name}.py")


@pytest.mark.parametrize("name", SHORT)
def test_it_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) < 60


SCRIPTS = [
    path
    for folder in ("examples", "tests/benchmarks", "tests/serving")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if '__name__ == "__main__"' in path.read_text("utf-8")
]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_prints_its_help_and_needs_no_server_or_page_for_that(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library in ("openai", "gradio", "vllm"):
        monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.syspath_prepend(path.parent)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_quick_start_shows_a_call_only_if_it_is_also_right() -> None:
    start, parser = script("quickstart"), ToolCallParser("lfm2")
    tools = json.loads((EXAMPLES / "data" / "tools.json").read_text("utf-8"))
    row = {"label": 1, "tools": tools, "gold_calls": [{"name": "calculator", "arguments": {"expression": "1 + 1"}}]}
    answers = {
        lfm2('[calculator(expression="1 + 1")]'): True,
        lfm2('[web_search(query="1 + 1")]'): False,
        lfm2('[calculator(expression="1 + 2")]'): False,
        "It is 2.": False,
    }
    assert {answer: start.is_right(parser, answer, row) for answer in answers} == answers
    idle = {"label": 0, "tools": tools, "gold_calls": []}
    assert [start.is_right(parser, answer, idle) for answer in answers] == [False, False, False, True]


def test_the_readmes_picture_is_the_one_that_its_command_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = script("picture").main(["--output", str(tmp_path / "new.png")])
    assert capsys.readouterr().out == f"the picture is in {drawn}\n"
    old, new = (
        np.asarray(Image.open(path).convert("RGB"), int) for path in (EXAMPLES / "before_and_after.png", drawn)
    )
    assert old.shape == new.shape
    assert abs(old - new).mean() < 1


def test_a_picture_of_what_was_not_measured_is_refused(tiny_adapter: ASAAdapter, tmp_path: Path) -> None:
    ASAAdapter(tiny_adapter.config, tiny_adapter.vectors, tiny_adapter.router, tiny_adapter.probes).save_pretrained(
        tmp_path
    )
    with pytest.raises(SystemExit, match="has no evaluation of TEST"):
        script("picture").main([str(tmp_path)])


@pytest.fixture(scope="module")
def saved(tiny_adapter: ASAAdapter, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_adapter.save_pretrained(tmp_path_factory.mktemp("adapter")))


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("load_and_generate", ["--adapter", "./none"], "no adapter folder at ./none"),
        ("load_and_generate", ["--tools", "none.json"], "No such file or directory: 'none.json'"),
        ("inspect_decisions", ["--adapter", "./none"], "no adapter folder at ./none"),
        ("inspect_decisions", ["--data", "none.jsonl"], "no data file at none.jsonl"),
        ("fit_and_push", ["--data", "none.jsonl"], "no data file at none.jsonl"),
        ("fit_and_push", ["--output", f"{__file__}/out"], f"cannot write into {__file__}/out: Not a directory"),
        ("chat_with_tools", ["--adapter", "./none"], "no adapter folder at ./none"),
    ],
)
def test_what_is_missing_is_named_in_one_line(
    name: str, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        script(name).main(words)
    assert re.fullmatch(f"error: .*{message}", str(stop.value))


def test_the_quick_start_asks_for_a_folder_that_it_can_write_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=f"^error: cannot write into {tmp_path}/file/out: Not a directory$"):
        script("quickstart").main(tmp_path / "file" / "out")


# --- load_and_generate


def test_load_and_generate_shows_the_decision_and_both_answers(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    answers = script("load_and_generate").main(["--adapter", saved])
    decision, base, steered = capsys.readouterr().out.splitlines()
    assert "p(tool)" in decision
    assert "gate" in decision
    assert (base, steered) == (f"base     {answers['base']}", f"steered  {answers['steered']}")


def test_load_and_generate_steers_as_explain_does(saved: str, tiny_adapter: ASAAdapter, tiny_lfm2: Any) -> None:
    prompt = "what is the spanish word for table"
    explained = tiny_adapter.explain(*tiny_lfm2, prompt)
    answers = script("load_and_generate").main(["--adapter", saved, "--prompt", prompt])
    assert answers == {name: explained[name]["answer"] for name in ("base", "steered")}


def test_as_they_stand_they_take_the_adapter_that_is_shipped() -> None:
    answers = script("load_and_generate").main([])
    marker = "<|tool_call_start|>"
    assert marker not in answers["base"]
    assert marker in answers["steered"]


# --- inspect_decisions


def test_inspect_decisions_lists_the_worst_first_and_explains_it(
    saved: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = script("inspect_decisions").main(["--adapter", saved, "--rows", "12"])
    wrong = [abs(row["label"] - decision.p_tool) for row, decision in pairs]
    assert len(wrong) == 12
    assert wrong == sorted(wrong, reverse=True)
    heading, *table = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert heading.split() == ["needed", "p(tool)", "gate", "domain", "routed", "to", "prompt"]
    signs = {1: "+1", 0: "0", -1: "-1"}
    assert [line.split()[:3] for line in table] == [
        [str(row["label"]), f"{decision.p_tool:.3f}", signs[decision.gate]] for row, decision in pairs
    ]


def test_inspect_decisions_shows_an_explanation_of_the_worst(saved: str, capsys: pytest.CaptureFixture[str]) -> None:
    [(_, worst), *_] = script("inspect_decisions").main(["--adapter", saved, "--rows", "4"])
    explanation = capsys.readouterr().out.partition("\n\n")[2]
    assert f"p(tool)      {worst.p_tool:.3f};" in explanation
    assert "Answer, steered: " in explanation


# --- fit_and_push


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in; what one run has measured there, the next need not measure again."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def fit(workplace: Path, few_rows: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The script in that folder, with some words, at one layer only."""
    monkeypatch.chdir(workplace)
    words = ["--data", str(few_rows), "--layers", "6", "--output", "mine"]
    return lambda *more: str(script("fit_and_push").main([*words, *more]))


@pytest.mark.slow
def test_fit_and_push_saves_in_a_folder_and_prints_what_it_measured(
    fit: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit() == "mine"
    report = ASAAdapter.from_pretrained("mine").report or {}
    printed = capsys.readouterr().out
    assert report["chosen"]["why"] in printed
    for name in ("base", "asa"):
        assert f"| {name} | {report['evaluations']['test'][name]['precision']:.3f} |" in printed


def test_fit_and_push_pushes_what_it_saved(
    fit: Callable[..., str], hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    url = fit("--repo", NAME, "--private", "--license", "mit")
    repo = hub.repos[NAME]
    assert url == f"{hub.url}/{NAME}/commit/{repo.refs['main']}"
    assert repo.private
    pushed, saved = ASAAdapter.from_pretrained(NAME), ASAAdapter.from_pretrained("mine")
    assert pushed.digest() == saved.digest()
    assert pushed.report == saved.report
    assert huggingface_hub.ModelCard(repo.files()["README.md"].decode()).data.license == "mit"
