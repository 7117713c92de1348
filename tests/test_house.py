"""The house: which way imports run, how large wings are, what each may do, and how little an import brings along."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asa_adapter

PACKAGE = Path(asa_adapter.__file__).parent
ROOT = PACKAGE.parent
EXAMPLES = ROOT / "examples"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


INSIDE_A_WING = re.compile(rf"(?:from|import) asa_adapter\.(?:{'|'.join(WINGS)})\.\w+")


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path: Path) -> dict[str, int]:
    """The functions of a file with their lines, those of the docstring left out."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            docstring = (first.end_lineno or 0) - first.lineno + 1 if told else 0
            found[f"{node.name}, line {node.lineno}"] = (node.end_lineno or 0) - node.lineno + 1 - docstring
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_at_most_350_lines(name: str) -> None:
    assert lines(PACKAGE / name) <= 350


@pytest.mark.parametrize("name", FILES)
def test_a_function_has_at_most_40_lines_without_its_docstring(name: str) -> None:
    assert {n: count for n, count in functions(PACKAGE / name).items() if count > 40} == {}


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_has_at_most_11_files_and_1500_lines(wing: str) -> None:
    files = [path for path in (PACKAGE / wing).rglob("*.py") if path.name != "__init__.py"]
    assert len(files) <= 11
    assert sum(map(lines, files)) <= 1500


def test_imports_run_downwards() -> None:
    """The contract in pyproject.toml, as `lint-imports` checks it."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run([sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_module_that_tests_share_has_the_name_of_one_of_the_examples() -> None:
    """Both folders lie on the path when scripts of the examples are loaded: the first of two would win."""
    shared, examples = ({path.stem for path in folder.rglob("*.py")} for folder in (ROOT / "tests/support", EXAMPLES))
    assert shared & examples == set()


# What changes a module for as long as it is there: a hook, or another forward().
CHANGES = re.compile(r"\.register_\w*hook\(|\bforward = |\"forward\"\] = |setattr\([^)]*forward")


def test_only_two_files_register_hooks_or_replace_a_forward() -> None:
    """vLLM's wing is apart: it makes the steered layer a class of its own."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "vllm" and CHANGES.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"modeling/recording.py", "steering/hook.py"}


def test_one_file_knows_what_transformers_calls_a_cache() -> None:
    named = [path for path in PACKAGE.rglob("*.py") if "past_key_values" in path.read_text(encoding="utf-8")]
    assert [path.relative_to(PACKAGE).as_posix() for path in named] == ["modeling/forward.py"]


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_says_what_it_is(wing: str) -> None:
    assert ast.get_docstring(ast.parse((PACKAGE / wing / "__init__.py").read_text(encoding="utf-8")))


def test_examples_import_from_the_package_a_wing_or_a_file_beside_them() -> None:
    """What is inside a wing may move; what a wing names in its `__init__` stays."""
    texts = {
        path.relative_to(EXAMPLES).as_posix(): path.read_text(encoding="utf-8")
        for pattern in ("*.py", "*.ipynb", "*.md")
        for path in EXAMPLES.rglob(pattern)
    }
    inside = {name: found for name, text in texts.items() if (found := INSIDE_A_WING.findall(text))}
    assert texts
    assert inside == {}


@pytest.mark.parametrize("name", [wing for wing in WINGS if wing != "vllm"])
def test_what_a_wing_names_is_there(name: str) -> None:
    wing = importlib.import_module(f"asa_adapter.{name}")
    assert [n for n in getattr(wing, "__all__", []) if getattr(wing, n, None) is None] == []


@pytest.mark.parametrize("module", ["torch", "transformers", "sklearn", "datasets", "numpy", "huggingface_hub"])
def test_importing_the_package_does_not_import(module: str) -> None:
    code = f"import sys, asa_adapter; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", ["datasets", "matplotlib", "vllm", "asa_adapter.vllm", "asa_adapter.llamacpp"])
def test_using_the_package_does_not_import(module: str) -> None:
    code = f"import sys; from asa_adapter import *; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_importing_the_package_opens_no_connection() -> None:
    code = (
        "import socket\n"
        "def refuse(*args): raise SystemExit('opened a connection')\n"
        "socket.socket.connect = refuse\n"
        "from asa_adapter import *"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("name", asa_adapter.__all__)
def test_everything_exported_is_there(name: str) -> None:
    assert getattr(asa_adapter, name) is not None
    assert name in dir(asa_adapter)


def test_what_is_exported_lazily_is_what_types_are_checked_with() -> None:
    source = (PACKAGE / "__init__.py").read_text()
    seen = {
        alias.name: (node.module or "").partition(".")[2]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asa_adapter")
        for alias in node.names
    }
    assert seen == asa_adapter._MODULES
    assert {*seen, "__version__"} == set(asa_adapter.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'asa_adapter' has no attribute 'ASATrainr'"):
        _ = asa_adapter.ASATrainr


def test_no_exported_name_is_a_module_too() -> None:
    """Importing the module would put it in the place of what is exported."""
    assert not {path.stem for path in PACKAGE.rglob("*.py")} & set(asa_adapter.__all__)
