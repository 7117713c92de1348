"""The command `verify`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT, TINY_LFM2

from asa_adapter import ASAAdapter
from asa_adapter.cli import loading, verify_command
from asa_adapter.cli.entrypoint import main
from asa_adapter.verification.asking_model import ask

MODEL = ["--model", str(TINY_LFM2)]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped adapter, without samples."""
    adapter = ASAAdapter.from_pretrained(ROOT / "examples" / "tiny_lfm2_asa")
    assert adapter.report is not None
    del adapter.report["samples"]
    return adapter.save_pretrained(tmp_path_factory.mktemp("without") / "adapter")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, without: Path, tiny_lfm2: Any) -> Path:
    """The same with samples."""
    folder = tmp_path_factory.mktemp("kept") / "adapter"
    shutil.copytree(without, folder)
    assert main(["verify", str(folder), *MODEL, "--store", "--quiet"]) == 0
    return folder


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints to stderr when it ends with status 2: one line."""
    capsys.readouterr()
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err


def test_an_adapter_that_does_here_what_it_did_passes(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(kept), *MODEL, "--quiet"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("| | |\n|---|---|\n| adapter | adapter (")
    assert "| compared with | transformers" in text
    assert text.count("| same | same | same |") == 12
    assert text.endswith("No difference by the adapter.\n")


def test_a_difference_has_the_status_1_and_is_named(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_command, "step_seconds", lambda *_, **__: {"bare": 0.25})
    adapter = ASAAdapter.from_pretrained(kept)
    assert adapter.report is not None
    for row in adapter.report["samples"]["rows"][:2]:
        row |= {"gate": -1, "p_tool": 0.3}
    folder = adapter.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert main(["verify", str(folder), *MODEL, "--quiet", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    assert [row["differs"] for row in found["rows"][:3]] == ["decision", "decision", ""]
    assert found["seconds"] == {"bare": 0.25}


def test_storing_changes_the_report_and_its_checksum_alone(without: Path, kept: Path) -> None:
    names = sorted(path.relative_to(kept) for path in kept.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(without) for path in without.rglob("*") if path.is_file())
    changed = [str(name) for name in names if (kept / name).read_bytes() != (without / name).read_bytes()]
    assert changed == ["asa_config.json", "report.json"]
    before, after = (json.loads((folder / "report.json").read_text()) for folder in (without, kept))
    assert len(after.pop("samples")["rows"]) == 12
    assert after == before


def test_the_shipped_adapter_keeps_what_storing_would_keep(kept: Path) -> None:
    shipped, stored = (
        json.loads((folder / "report.json").read_text())["samples"]
        for folder in (ROOT / "examples" / "tiny_lfm2_asa", kept)
    )
    answers = [{**row, "p_tool": round(row["p_tool"], 4)} for row in shipped["rows"]]
    assert answers == [{**row, "p_tool": round(row["p_tool"], 4)} for row in stored["rows"]]


def test_an_adapter_of_an_earlier_version_loads_and_is_told_of(
    tiny_adapter: ASAAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_adapter.save_pretrained(tmp_path / "old")
    told = failure(["verify", str(folder), *MODEL], capsys)
    assert "the adapter keeps no samples to compare with, as those of earlier versions; fit it again, or keep" in told


def test_vllm_is_compared_with_transformers_where_nothing_is_kept(
    tiny_adapter: ASAAdapter,
    tiny_lfm2: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[Any] = []

    def ask_vllm(adapter: Any, folder: str, tokenizer: Any, samples: Any, engine: Any) -> Any:
        asked.append((folder, engine))
        return ask(adapter, *tiny_lfm2, samples), {"bare": 0.1}

    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    monkeypatch.setattr(verify_command, "ask_vllm", ask_vllm)
    monkeypatch.setattr(verify_command, "step_seconds", lambda *_, **__: {})
    folder = tiny_adapter.save_pretrained(tmp_path / "old")
    words = ["--engine", "vllm", "--engine-args", '{"block_size": 32}', "--dtype", "float32", "--quiet"]
    assert main(["verify", str(folder), *MODEL, *words]) == 0
    assert "asked now, since the adapter keeps no samples" in capsys.readouterr().out
    names = {"model": str(TINY_LFM2), "revision": None, "tokenizer": str(TINY_LFM2), "tokenizer_revision": None}
    assert asked == [(str(folder), {**names, "dtype": "float32", "block_size": 32})]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "gguf"], "--engine gguf does not run"),
        (["--engine-args", '{"a": 1}'], "--engine-args: for vllm; leave out what does nothing"),
        (["--engine", "vllm", "--engine-args", "{"], "--engine-args is not valid JSON"),
        (["--engine", "vllm", "--engine-args", "3"], "--engine-args is '3'; expected an object"),
    ],
)
def test_what_means_nothing_is_one_line(
    words: list[str], told: str, kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    assert told in failure(["verify", str(kept), *MODEL, *words], capsys)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--device", "cuda:1"], "--device"),
        (["--threads", "0"], "--threads"),
        (["--n-ctx", "512"], "--n-ctx"),
        (["--allow-mismatch"], "--allow-mismatch"),
        (["--device", "cpu", "--threads", "2"], "--device and --threads"),
    ],
)
def test_options_that_vllm_would_not_heed_are_refused(
    words: list[str], name: str, kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_command, "ask_vllm", None)
    told = failure(["verify", str(kept), *MODEL, "--engine", "vllm", *words], capsys)
    assert f"{name}: not of vLLM (--engine-args has its own arguments); leave out what does nothing" in told


def test_vllm_that_is_not_installed_is_named(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert "vLLM is not installed here" in failure(["verify", str(kept), *MODEL, "--engine", "vllm"], capsys)


def test_samples_are_stored_in_folders_alone(
    tiny_adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ASAAdapter, "from_pretrained", lambda *_, **__: tiny_adapter)
    told = failure(["verify", "user/a", *MODEL, "--store"], capsys)
    assert "--store writes into a folder, and 'user/a' is none; download the adapter first" in told
