"""What the plug-in leans on in vLLM, looked at before anything is changed."""

import logging
from pathlib import Path

import pytest
from vllm_source import write_vllm

from asa_adapter.vllm.source_check import POINTS, check_vllm, source_differences

RUNNER = "v1/worker/gpu_model_runner.py"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return write_vllm(tmp_path)


def changed(package: Path, module: str, before: str, after: str) -> Path:
    """The package with a piece of one module's text replaced."""
    path = package / module
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    return package


def test_a_vllm_with_all_that_is_leaned_on_differs_in_nothing(package: Path) -> None:
    assert source_differences(package) == []


def test_a_tried_version_is_served_without_a_word(package: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        check_vllm(package, "0.32.4+cpu")
    assert caplog.messages == []


@pytest.mark.parametrize("version", ["0.33.0", "0.320.0", "1.0.0", "dev"])
def test_another_version_that_looks_the_same_is_served_with_one_line(
    version: str, package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_vllm(package, version)
    (line,) = caplog.messages
    assert line == (
        f"asa_adapter was not tried with vLLM {version}, but all {len(POINTS)} points that it leans on look as in "
        "0.32: it is served. `asa-adapter verify` compares its answers"
    )


@pytest.mark.parametrize(
    ("module", "before", "after", "told"),
    [
        (
            RUNNER,
            "def _model_forward(",
            "def _forward_model(",
            "vllm.v1.worker.gpu_model_runner has no GPUModelRunner._model_forward",
        ),
        (
            RUNNER,
            "self._model_forward()",
            "self.model()",
            "vllm.v1.worker.gpu_model_runner GPUModelRunner.execute_model does not call self._model_forward",
        ),
        (
            RUNNER,
            "query_start_loc: int",
            "query_starts: int",
            "vllm.v1.worker.gpu_model_runner GPUModelRunner has no query_start_loc",
        ),
        (
            "v1/core/kv_cache_utils.py",
            "end_token_idx, start_mm_idx",
            "end_token_idx, start_mm_idx, group",
            "vllm.v1.core.kv_cache_utils generate_block_hash_extra_keys takes (request, start_token_idx, "
            "end_token_idx, start_mm_idx, group); expected (request, start_token_idx, end_token_idx, start_mm_idx)",
        ),
        (
            "v1/core/kv_cache_utils.py",
            "hash_block_size",
            "size",
            "vllm.v1.core.kv_cache_utils get_request_block_hasher takes (size, caching_hash_fn); expected "
            "(hash_block_size, caching_hash_fn, ...)",
        ),
        (
            "v1/core/block_pool.py",
            "generate_block_hash_extra_keys",
            "block_hash_keys",
            "vllm.v1.core.block_pool itself has no generate_block_hash_extra_keys",
        ),
    ],
)
def test_what_differs_is_named_and_refused(module: str, before: str, after: str, told: str, package: Path) -> None:
    changed(package, module, before, after)
    assert source_differences(package) == [told]
    with pytest.raises(RuntimeError) as error:
        check_vllm(package, "0.32.0")
    assert str(error.value) == (
        f"this is vLLM 0.32.0, which asa_adapter cannot steer: {told}. Install a version that was tried (0.32), "
        "or unset ASA_ADAPTER to serve the bare model"
    )


def test_a_module_that_is_gone_is_named(package: Path) -> None:
    (package / "forward_context.py").unlink()
    assert set(source_differences(package)) == {"vllm.forward_context is not there"}


def test_what_a_method_sets_and_what_a_condition_defines_is_found(package: Path) -> None:
    """As vLLM's runner sets its buffers, and as types are defined below TYPE_CHECKING."""
    changed(package, RUNNER, "    query_start_loc: int", "    def __init__(self):\n        self.query_start_loc = 1")
    changed(package, "forward_context.py", "class ForwardContext:", "if True:\n  class ForwardContext:")
    assert source_differences(package) == []
