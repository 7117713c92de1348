"""Asking vLLM: what its two processes are given, and what their answers come to. tests/serving runs it with vLLM."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import CPU, controller

from asa_adapter import ASAAdapter
from asa_adapter.verification import asking_vllm
from asa_adapter.verification.sample_record import Where
from asa_adapter.verification.samples import neutral_samples
from asa_adapter.vllm.injection import Injection

WHERE = {"engine": "vLLM 0.33.0", "device": "cpu", "dtype": "float32", "quantised": ""}


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The specs and environments of the processes that would run; they answer with the number of their kind."""
    started: list[tuple[dict[str, Any], dict[str, str]]] = []

    def run(command: list[str], env: dict[str, str], **options: Any) -> SimpleNamespace:
        spec = json.loads(Path(command[-1]).read_text())
        started.append((spec, env))
        n = len(spec["prompts"])
        found = {"answers": [[1 + spec["steered"]]] * n, "decided": [[1.0, 0.75, -1.0]] * n, "where": WHERE}
        found["seconds"] = {"off": 0.25, **({"steered": 0.5} if spec["steered"] else {})}
        Path(spec["output"]).write_text(json.dumps(found))
        return SimpleNamespace(returncode=0, stdout="")

    monkeypatch.setattr(subprocess, "run", run)
    return started


def test_an_engine_with_the_adapter_and_one_without_are_asked(
    processes: list[tuple[dict[str, Any], dict[str, str]]],
    tiny_lfm2: Any,
    tiny_adapter: ASAAdapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASA_ADAPTER", "another")
    samples = neutral_samples()[:2]
    record, seconds = asking_vllm.ask_vllm(
        tiny_adapter, "folder", tiny_lfm2[1], samples, {"model": "m", "max_num_seqs": 3}
    )
    (steered, with_it), (bare, without) = processes
    assert (with_it["ASA_ADAPTER"], without.get("ASA_ADAPTER")) == ("folder", None)
    assert steered["prompts"] == bare["prompts"] == [s.prompt(tiny_lfm2[1], tiny_adapter.config) for s in samples]
    length = max(map(len, steered["prompts"])) + 32
    assert steered["engine"] == {"model": "m", "max_num_seqs": 3, "max_model_len": length}
    assert seconds == {"bare": 0.25, "off": 0.25, "steered": 0.5}
    assert record.where == Where(**WHERE)
    one = record.seen[0]
    assert (one.domain, one.p_tool, one.gate) == (tiny_adapter.config.domains[1], 0.75, -1)
    assert (one.steered, one.bare) == ([2], [1])


def test_a_prompt_that_the_plug_in_left_alone_is_told_as_such(
    tiny_lfm2: Any, tiny_adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"answers": [[1]], "decided": [None], "where": WHERE, "seconds": {"off": 0.25}}
    monkeypatch.setattr(asking_vllm, "_run_engine", lambda *_: found)
    seen = asking_vllm.ask_vllm(tiny_adapter, "folder", tiny_lfm2[1], neutral_samples()[:1], {})[0].seen[0]
    assert (seen.gate, seen.reason) == (0, "left alone by the plug-in")


def test_the_direction_of_a_domain_s_own_is_told_by_the_domain(
    tiny_lfm2: Any, tiny_adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = len(tiny_adapter.config.domains)
    found = {"answers": [[1]], "decided": [[count + 1.0, 0.9, 1.0]], "where": WHERE, "seconds": {"off": 0.25}}
    monkeypatch.setattr(asking_vllm, "_run_engine", lambda *_: found)
    seen = asking_vllm.ask_vllm(tiny_adapter, "folder", tiny_lfm2[1], neutral_samples()[:1], {})[0].seen[0]
    assert seen.domain == tiny_adapter.config.domains[1]


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("INFO start\nRuntimeError: no memory\nsome end", "RuntimeError: no memory"),
        ("(EngineCore pid=3) asa_adapter.errors.IncompatibleModelError: other weights", "other weights"),
        ("killed", "killed"),
        ("", "it wrote nothing"),
    ],
)
def test_an_engine_that_fails_is_told_by_its_last_error(
    log: str, told: str, tiny_lfm2: Any, tiny_adapter: ASAAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: Callable[..., Any] = lambda *_, **__: SimpleNamespace(returncode=1, stdout=log)  # noqa: E731
    monkeypatch.setattr(subprocess, "run", failed)
    with pytest.raises(RuntimeError, match=f"^vLLM with the adapter: .*{told}$"):
        asking_vllm.ask_vllm(tiny_adapter, "folder", tiny_lfm2[1], neutral_samples(), {"model": "m"})


def test_a_workers_latest_decision_is_read() -> None:
    injection = Injection(controller(), slots=2, device=CPU)
    injection.decided[0] = torch.tensor([1.0, 0.25, -1.0])
    assert asking_vllm._decided_in_worker(torch.nn.ModuleList([injection])) == [1.0, 0.25, -1.0]
    assert asking_vllm._decided_in_worker(torch.nn.ModuleList([injection])) is None  # the next prompt was left alone
    assert asking_vllm._decided_in_worker(torch.nn.Linear(1, 1)) is None
