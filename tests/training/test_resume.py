"""A training run that was killed, broken off, or given other inputs."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkout import DATA, ROOT, TINY_LFM2

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.measurement import measurements
from asa_adapter.report_schema import VARIATIONS

# Whole trainings.
pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "layers": (4, 6),
    "alphas": (1.0,),
    "taus": (0.5, 0.7),
    "betas": (0.5,),
    "Cs": (0.1,),
    "finalists": 2,
    "max_new_tokens": 64,
    "progress": False,
}


@pytest.fixture(scope="module")
def few(splits: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: list(rows)[::4] for name, rows in splits.items()}


def outcome(report: dict[str, Any]) -> dict[str, Any]:
    """A report without what may differ between runs."""
    return {key: value for key, value in report.items() if key not in ("seconds", "arguments")}


@pytest.fixture(scope="module")
def whole(tiny_lfm2: Any, few: Any) -> tuple[ASAAdapter, dict[str, Any]]:
    """What a run without a break, and without a folder, comes to."""
    trainer = ASATrainer(*tiny_lfm2, few, ASATrainingArguments(**SMALL))
    adapter = trainer.train()
    trainer.evaluate("test")
    return adapter, outcome(trainer.report)


KILLED_AT = """
import os, signal, sys
from asa_adapter.measurement.stage_files import Stages

keep = Stages._keep
done = []

def killed(self, *args):
    keep(self, *args)
    done.append(args[1])
    if len(done) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

Stages._keep = killed
from test_resume import run
run(sys.argv[2])
"""


def run(folder: str) -> None:
    """What the killed process does."""
    import transformers

    from asa_adapter import load_splits

    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_LFM2)
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_LFM2, dtype=torch.float32)
    few = {name: list(rows)[::4] for name, rows in load_splits(DATA).items()}
    trainer = ASATrainer(model, tokenizer, few, ASATrainingArguments(**SMALL, output_dir=folder))
    trainer.train()
    trainer.evaluate("test")


def test_a_killed_run_goes_on_and_comes_to_the_same(
    tiny_lfm2: Any, few: Any, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [ROOT / "tests" / "support", ROOT / "tests" / "training", ROOT, os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, map(str, places)))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT, "6", str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "asa_config.json").exists()
    kept = {p.name: p.read_bytes() for p in (tmp_path / "stages").iterdir()}
    assert len(kept) == 6

    trainer = ASATrainer(*tiny_lfm2, few, ASATrainingArguments(**SMALL, output_dir=tmp_path))
    adapter = trainer.train()
    trainer.evaluate("test")
    assert len(trainer._measured.reused) == 6
    assert outcome(trainer.report) == whole[1]
    assert adapter.digest() == whole[0].digest()
    assert {p.name: p.read_bytes() for p in (tmp_path / "stages").iterdir() if p.name in kept} == kept
    loaded = ASAAdapter.from_pretrained(tmp_path)
    assert loaded.digest() == adapter.digest()
    assert outcome(loaded.report or {}) == whole[1]

    def asked(*_: Any, **__: Any) -> dict[str, list[str]]:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(Evaluation, "answers_of_each", asked)
    again = ASATrainer(*tiny_lfm2, few, ASATrainingArguments(**SMALL, output_dir=tmp_path))
    again.train()
    again.evaluate("test")
    assert outcome(again.report) == whole[1]


def test_answers_are_kept_some_rows_at_a_time(
    tiny_lfm2: Any, few: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurements, "_ROWS_OF_A_STAGE", 7)
    arguments = ASATrainingArguments(**SMALL, output_dir=tmp_path)
    trainer = ASATrainer(*tiny_lfm2, {**few, "valid": few["valid"][:17]}, arguments)
    measured = trainer._measured
    measured.begin(tmp_path / "stages")
    expected = measured._evaluation.answers(few["valid"][:17])
    answers_of_each, asked = Evaluation.answers_of_each, list[int]()

    def dies_behind_two(self: Evaluation, rows: Any, *args: Any, **keywords: Any) -> dict[str, list[str]]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(rows))
        return answers_of_each(self, rows, *args, **keywords)

    with monkeypatch.context() as broken:
        broken.setattr(Evaluation, "answers_of_each", dies_behind_two)
        with pytest.raises(KeyboardInterrupt):
            measured.answers("valid", {"base": None})
    measured.begin(tmp_path / "stages")
    found = measured.answers("valid", {"base": None})["base"]
    pad = trainer.tokenizer.pad_token  # how many end an answer depends on its batch
    assert [a.replace(pad, "") for a in found] == [a.replace(pad, "") for a in expected]
    assert (asked, measured.reused) == ([7, 7], ["answers-valid"] * 2)


@pytest.fixture
def finished(tiny_lfm2: Any, few: Any, tmp_path: Path) -> Path:
    ASATrainer(*tiny_lfm2, few, ASATrainingArguments(**SMALL, output_dir=tmp_path)).train()
    return tmp_path


def reused(model: Any, tokenizer: Any, rows: Any, folder: Path, **changes: Any) -> set[str]:
    """Which stages a run with some change takes from the one before."""
    trainer = ASATrainer(model, tokenizer, rows, ASATrainingArguments(**{**SMALL, "output_dir": folder, **changes}))
    trainer.train()
    return set(trainer._measured.reused)


def test_a_changed_input_invalidates_what_depends_on_it_alone(tiny_lfm2: Any, few: Any, finished: Path) -> None:
    fitted_on = {"states-cal", "states-cal-varied", "states-train", "states-train-varied"}
    states = {*fitted_on, "states-valid", *(f"states-valid-{name}" for name in VARIATIONS)}
    everything = {"habit", *states, "first-tokens-train", "first-tokens-valid", "answers-valid"}
    model, tokenizer = tiny_lfm2
    assert reused(model, tokenizer, few, finished) == everything
    # Other taus: nothing that the model is asked changes, unless another setting becomes a finalist.
    assert reused(model, tokenizer, few, finished, taus=(0.5, 0.7), resamples=500) == everything
    assert reused(model, tokenizer, few, finished, max_new_tokens=48) == everything - {"habit", "answers-valid"}
    valid = [{**row, "instruction": row["instruction"] + " now"} for row in few["valid"]]
    assert reused(model, tokenizer, {**few, "valid": valid}, finished) == {
        "habit",
        *fitted_on,
        "first-tokens-train",
    }


def test_ctrl_c_leaves_what_is_finished_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from asa_adapter.cli.entrypoint import main

    answers_of_each = Evaluation.answers_of_each

    def stop(self: Evaluation, rows: Any, variants: Any, **keywords: Any) -> dict[str, list[str]]:
        if len(variants) > 1:  # the finalists; before them the bare model is asked how it calls
            raise KeyboardInterrupt
        return answers_of_each(self, rows, variants, **keywords)

    monkeypatch.setattr(Evaluation, "answers_of_each", stop)
    data = tmp_path / "data"
    data.mkdir()
    for name in ("cal", "train", "valid", "test"):
        lines = (DATA / f"{name}.jsonl").read_text().splitlines()
        (data / f"{name}.jsonl").write_text("\n".join(lines[::4]))
    (data / "tools.json").write_text((DATA / "tools.json").read_text())
    words = ["train", "--model", str(TINY_LFM2), "--data", str(data), "--output", str(tmp_path / "out"), "--quiet"]
    words += ["--layers", "6", "--alphas", "1", "--taus", "0.5", "--betas", "0.5", "--vary-tools"]
    assert main(words) == 130
    assert "finished stages are kept in" in (message := capsys.readouterr().err)
    assert message.endswith("out/stages: run the same command to go on\n")
    kept = sorted(p.name.rsplit("-", 1)[0] for p in (tmp_path / "out" / "stages").iterdir())
    states = ["states-cal", "states-cal-varied", "states-train", "states-train-varied", "states-valid"]
    assert kept == ["first-tokens-train", "habit", *states]
