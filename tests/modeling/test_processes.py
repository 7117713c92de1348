import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import TINY_LFM2

from asa_adapter import ASAAdapter
from asa_adapter.hub.folder import read_folder
from asa_adapter.modeling.processes import Processes, launched_processes

SECTIONS = ("blind_layers", "chosen", "evaluations", "screen", "valid")


class OneOfThree(Processes):
    """A process whose fellows say what they would."""

    def __init__(self, index: int, fellows: list[bytes]) -> None:
        self.index, self.count, self.fellows = index, 3, fellows

    def _all(self, content: bytes) -> list[bytes]:
        return [*self.fellows[: self.index], content, *self.fellows[self.index :]]


def test_a_single_process_does_everything() -> None:
    processes = Processes()
    assert (processes.index, processes.count, processes.is_main) == (0, 1, True)
    assert processes.part(3) == [0, 1, 2]
    assert processes.texts(["a", "b"], 2) == ["a", "b"]
    assert processes.from_main(lambda: b"x") == b"x"
    assert processes.from_main(lambda: None) is None


def test_the_rows_of_all_processes_are_put_in_order() -> None:
    whole = np.arange(2 * 7 * 3, dtype=np.float32).reshape(2, 7, 3)
    others = [np.ascontiguousarray(whole[:, i::3]).tobytes() for i in (0, 2)]
    processes = OneOfThree(1, others)
    assert processes.part(7) == [1, 4]
    assert np.array_equal(processes.arrays(whole[:, [1, 4]], 7), whole)


def test_the_texts_of_all_processes_are_put_in_order() -> None:
    processes = OneOfThree(2, [b'["a", "d"]', b'["b", "e"]'])
    assert processes.texts(["c"], 5) == ["a", "b", "c", "d", "e"]


def test_fewer_rows_than_processes_are_done_by_each() -> None:
    processes = OneOfThree(1, [b'["a", "b"]', b'["a", "b"]'])
    assert processes.part(2) == [0, 1]
    assert processes.texts(["a", "b"], 2) == ["a", "b"]


def test_only_the_main_process_looks() -> None:
    def fail() -> bytes:
        raise AssertionError("the second process read")

    assert OneOfThree(1, [b"1kept", b""]).from_main(fail) == b"kept"
    assert OneOfThree(1, [b"", b""]).from_main(fail) is None


def test_without_a_launcher_nothing_is_joined() -> None:
    with launched_processes() as processes:
        assert processes.count == 1


def trained(output: Path, data: Path, *launcher: str) -> str:
    """What `train` prints, run in a process of its own or by a launcher."""
    words = ["--model", TINY_LFM2, "--data", data, "--output", output, "--layers", "4", "6", "--alphas", "1"]
    words += ["--taus", "0.6", "--betas", "0", "--finalists", "2", "--max-new-tokens", "64", "--json"]
    module = ["-m", "asa_adapter.cli", "train", *map(str, words)]
    command = [sys.executable, *(["-m", *launcher] if launcher else []), *module]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_two_processes_come_to_the_adapter_of_one(tmp_path: Path, data: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    printed = [trained(tmp_path / "one", data), trained(tmp_path / "two", data, *launcher)]
    results = [json.loads(text) for text in printed]  # one result each: the second process printed nothing
    assert results[0]["test"] == results[1]["test"]
    one, two = (read_folder(tmp_path / name) for name in ("one", "two"))
    steps = [parts.report["chosen"].pop("absolute_step") for parts in (one, two)]
    assert steps[1] == pytest.approx(steps[0], rel=1e-4)
    for section in SECTIONS:
        assert two.report[section] == one.report[section]
    adapters = [ASAAdapter.from_pretrained(tmp_path / name) for name in ("one", "two")]
    assert [a.config.layer for a in adapters] == [adapters[0].config.layer] * 2
    for name in ("weight", "bias", "direction"):
        first, second = (getattr(a._controller, name).numpy() for a in adapters)
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-4 * np.abs(first).max())
