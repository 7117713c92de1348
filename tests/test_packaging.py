"""What a user installs: types that a strict checker takes, a wheel and an sdist that are whole, few assumptions."""

import ast
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from checkout import ROOT
from models import fitted_adapter

import asa_adapter

USER_SCRIPT = ROOT / "tests" / "user_script.py"
# The wings that have a README.
TOLD = (
    *("choice", "cli", "comparison", "data", "hub", "interview", "llamacpp", "server", "steering", "tool_calls"),
    *("trajectories", "vllm"),
)


# --- Types


# The checker reads this package and not what lies below it, which takes minutes and is not what is asked.
MYPY = """\
[mypy]
strict = true
follow_imports = silent
[mypy-torch.*,transformers.*,datasets.*,sklearn.*,scipy.*,threadpoolctl.*,skops.*,huggingface_hub.*,numpy.*]
follow_imports = skip
"""


def test_a_users_script_passes_a_strict_type_check_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "mypy.ini").write_text(MYPY)
    (tmp_path / "good.py").write_text(USER_SCRIPT.read_text())
    wrong = "from asa_adapter import ASAConfig\n\nASAConfig(hidden_size='4', num_layers=2, layer=1, domains=())\n"
    (tmp_path / "bad.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "good.py", "bad.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.split(":")[:2] for line in errors] == [["bad.py", "3"]], done.stdout + done.stderr
    assert '"hidden_size"' in errors[0]


def test_the_users_script_uses_everything_that_is_exported() -> None:
    tree = ast.parse(USER_SCRIPT.read_text())
    (names,) = (
        [alias.name for alias in node.names] for node in tree.body if getattr(node, "module", "") == "asa_adapter"
    )
    assert sorted(names) == sorted(asa_adapter.__all__)


# --- Wheel and sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in the extra [test]")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    info = f"asa_adapter-{asa_adapter.__version__}.dist-info"
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "asa_adapter").rglob("*.py")}
    modules.remove("asa_adapter/vllm/entry.py")
    assert {name for name in names if not name.startswith(info)} == {
        *modules,
        "asa_adapter_vllm.py",  # that entry point: vLLM imports it, and it must not import the package
        "asa_adapter/py.typed",
        "asa_adapter/model_card_template.md",
        *(f"asa_adapter/{wing}/README.md" for wing in TOLD),
        *(
            f"asa_adapter/sample_data/{folder}{name}"
            for folder in ("", "conversations/")
            for name in ("cal.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl", "tools.json")
        ),
    }
    assert {f"{info}/METADATA", f"{info}/entry_points.txt", f"{info}/licenses/LICENSE"} <= names


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    with tarfile.open(sdist) as archive:
        # The first releases of Python 3.11 know no filter; the archive is our own.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (source,) = tmp_path.iterdir()
    assert {"README.md", "LICENSE", "PKG-INFO", "pyproject.toml", "asa_adapter", "tests", "examples"} <= {
        path.name for path in source.iterdir()
    }
    linked = ("asa_adapter/vllm/README.md", "tests/benchmarks/README.md", ".github/CONTRIBUTING.md", ".ci/check")
    assert [name for name in linked if not (source / name).is_file()] == []
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "again"],
        capture_output=True,
        text=True,
        cwd=source,
    )
    assert done.returncode == 0, done.stderr
    (again,) = (source / "again").glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_unpacked_wheel_works_away_from_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    folder = fitted_adapter().save_pretrained(tmp_path / "adapter")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import asa_adapter.cli.entrypoint as c; print(c.__file__); c.main(['inspect', {str(folder)!r}])",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "wheel")},
    )
    assert done.returncode == 0, done.stderr
    place, first, *_ = done.stdout.splitlines()
    assert Path(place).parent == tmp_path / "wheel" / "asa_adapter" / "cli"
    assert first == f"ASA adapter {folder}"
