"""The entry point that vLLM calls."""

import subprocess
import sys
from pathlib import Path

import pytest

import asa_adapter

ENTRY = Path(asa_adapter.__file__).parent / "vllm" / "entry.py"


def run_entry(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Calls the entry point as vLLM does, in a process of its own, and names what of ours and vLLM's it imported."""
    (tmp_path / "asa_adapter_vllm.py").write_text(ENTRY.read_text())
    code = (
        "import sys, asa_adapter_vllm; asa_adapter_vllm.register()\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'asa_adapter', 'torch', 'vllm'}))"
    )
    path = f"{tmp_path}:{ENTRY.parents[2]}"
    return subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path, **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize("environment", [{}, {"ASA_ADAPTER": ""}])
def test_without_an_adapter_nothing_is_imported(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run_entry(tmp_path, **environment).stdout == "[]\n"


def test_with_an_adapter_whatever_is_wrong_is_raised(tmp_path: Path) -> None:
    (tmp_path / "vllm.py").write_text("raise ImportError('a broken vLLM')")
    done = run_entry(tmp_path, ASA_ADAPTER="somewhere")
    assert done.returncode == 1
    assert "a broken vLLM" in done.stderr
