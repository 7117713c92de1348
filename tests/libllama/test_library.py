"""Another library, another build and another file are refused, each with one clear error."""

import ctypes.util
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from gguf_models import needs_llamacpp

from asa_adapter import IncompatibleModelError
from asa_adapter.libllama import library
from asa_adapter.libllama.library import Library, open_library


def test_without_the_wheel_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise PackageNotFoundError

    monkeypatch.delenv("ASA_LLAMA_LIBRARY", raising=False)
    monkeypatch.setattr(library, "version", missing)
    with pytest.raises(
        IncompatibleModelError, match=r'need the package xllamacpp: install .* `pip install "asa-adapter'
    ):
        open_library()


@pytest.mark.parametrize("version", ["2026.5.9093", "2027.1.12000", "0.2.14"])
def test_another_build_in_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.delenv("ASA_LLAMA_LIBRARY", raising=False)
    monkeypatch.setattr(library, "version", lambda _: version)
    with pytest.raises(IncompatibleModelError, match=rf"xllamacpp {version} has another build .*tested \(b11549\)"):
        open_library()


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "libllama.so"
    path.write_text("not a library")
    with pytest.raises(IncompatibleModelError, match="cannot be loaded as a shared library"):
        open_library(path)


def test_another_library_is_refused_by_the_first_function_that_it_lacks() -> None:
    name = ctypes.util.find_library("z") or ctypes.util.find_library("c")
    with pytest.raises(
        IncompatibleModelError, match="has no function llama_backend_init: it is another library, an o"
    ):
        Library(Path(str(name)))


@needs_llamacpp
def test_another_layout_is_refused_by_a_default_value(monkeypatch: pytest.MonkeyPatch) -> None:
    path = open_library().path
    monkeypatch.setitem(library._CONTEXT_DEFAULTS, "type_k", 8)
    with pytest.raises(IncompatibleModelError, match=r"llama_context_params.type_k is 1 by default; expected 8"):
        Library(path)


@needs_llamacpp
def test_the_environment_names_another_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASA_LLAMA_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(IncompatibleModelError, match=r"none\.so cannot be loaded"):
        open_library()
