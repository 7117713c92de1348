"""The house: each module imports only from lower floors, lazy imports included."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asa_adapter

PACKAGE = Path(asa_adapter.__file__).parent
FLOORS = [
    {
        "errors",
        "progress",
        "arrays",
        "forward",
        "processes",
        "metrics",
        "untrusted",
        "markdown",
        "duplicates",
        "toolcalls",
        "tools",
        "terminal",
    },
    {"pythonic", "gold", "report"},
    {"payloads"},
    {"tags"},
    {"formats"},
    {"detection", "history"},
    {"parsing"},
    {"prompts"},
    {"files", "residual", "hub", "intervals", "prefix"},
    {"prefilled", "config", "data", "states", "stages", "audit", "fingerprint"},
    {"vectors", "classifiers", "screen", "arguments", "weaknesses", "verify", "plots"},
    {"controller", "fitting", "card", "controls"},
    {"plan", "storage", "selection"},
    {"hook"},
    {"explain", "checks"},
    {"diagnosis"},
    {"adapter"},
    {"evaluate", "inspection", "ablation"},
    {"measurements"},
    {"search"},
    {"trainer"},
    {"commands"},
    {"cli"},
    {"vllm.requests", "vllm.refusals", "vllm.weights"},
    {"vllm.keys", "vllm.injection"},
    {"vllm.runners", "vllm.layers", "vllm.plugin"},
    {"vllm.models", "vllm.entry"},
    {"vllm.__init__"},
    {"__init__"},
]


def floor_of(module: str) -> int:
    for level, names in enumerate(FLOORS):
        if module in names:
            return level
    raise AssertionError(f"{module} has no floor: add it to FLOORS, above everything that it imports")


def imported(source: str) -> set[str]:
    """Modules of ours that some code imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asa_adapter"):
            found.add((node.module or "").partition(".")[2] or "__init__")
        elif isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] or "__init__" for a in node.names if a.name.startswith("asa_adapter")}
    return found


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=module_of)
def test_a_module_imports_from_lower_floors_only(path: Path) -> None:
    floor = floor_of(module_of(path))
    upward = {name for name in imported(path.read_text()) if floor_of(name) >= floor}
    assert upward == set()


def test_the_check_sees_a_lazy_import() -> None:
    assert imported("def f():\n    from asa_adapter.cli import main\n    import asa_adapter.hook") == {"cli", "hook"}


@pytest.mark.parametrize("module", ["torch", "transformers", "sklearn", "datasets", "numpy", "huggingface_hub"])
def test_importing_the_package_does_not_import(module: str) -> None:
    code = f"import sys, asa_adapter; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("module", ["datasets", "matplotlib", "vllm", "asa_adapter.vllm"])
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
    assert not {path.stem for path in PACKAGE.glob("*.py")} & set(asa_adapter.__all__)
