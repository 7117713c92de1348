"""Names of cache blocks, and vLLM's block hashes with our keys."""

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from engines import fake, sampling

from asa_adapter.vllm.block_keys import install_block_keys, steered_block_key


def test_only_the_block_with_the_steered_token_gets_a_key() -> None:
    request = SimpleNamespace(num_prompt_tokens=6, sampling_params=sampling())
    keys = [steered_block_key(request, start, start + 4, "d") for start in (0, 4, 8)]
    assert keys == [None, ("asa", "d:1.0:1"), None]


def test_keys_tell_adapters_factors_and_places_apart() -> None:
    def key(digest: str, tokens: int, **extra: Any) -> Any:
        return steered_block_key(
            SimpleNamespace(num_prompt_tokens=tokens, sampling_params=sampling(**extra)), 0, 8, digest
        )

    keys = [key("a", 5), key("b", 5), key("a", 6), key("a", 5, asa_factor=0.5)]
    assert len(set(keys)) == len(keys)
    assert None not in keys
    assert key("a", 5, asa=1) == key("a", 5, asa_factor=1) == key("a", 5)


def test_a_request_that_is_not_steered_has_no_key() -> None:
    for params in (sampling(asa=0), sampling(asa_factor=0), None):
        request = SimpleNamespace(num_prompt_tokens=6, sampling_params=params)
        assert steered_block_key(request, 4, 8, "d") is None


class HashedRequest:
    """A request of vLLM's whose blocks are hashed as they fill."""

    def __init__(
        self,
        name: str,
        tokens: list[int],
        sampling_params: Any,
        pooling_params: Any,
        block_hasher: Callable[[Any], Any],
    ) -> None:
        self.num_prompt_tokens, self.tokens, self.sampling_params = len(tokens), list(tokens), sampling_params
        self._hasher = block_hasher

    def append_output_token_ids(self, tokens: list[int]) -> None:
        self.tokens += tokens

    @property
    def block_hashes(self) -> list[Any]:
        return self._hasher(self)


def fake_block_hashes(monkeypatch: pytest.MonkeyPatch, reads_keys: bool = True) -> tuple[ModuleType, ModuleType]:
    """vLLM's two modules that name blocks, by chained hashes."""

    def own_keys(request: Any, start: int, end: int, start_mm_idx: int) -> Any:
        return (("image",) if start == 0 else None), start_mm_idx

    def hasher(size: int, hash_function: Callable[[Any], bytes]) -> Callable[[Any], list[bytes]]:
        def hashes(request: Any) -> list[bytes]:
            found = [b""]
            for start in range(0, len(request.tokens), size):
                function = utils.generate_block_hash_extra_keys if reads_keys else own_keys
                keys, _ = function(request, start, start + size, 0)
                found.append(hash_function((found[-1], request.tokens[start : start + size], keys)))
            return found[1:]

        return hashes

    name = "vllm.v1.core.kv_cache_utils"
    utils = fake(monkeypatch, name, generate_block_hash_extra_keys=own_keys, get_request_block_hasher=hasher)
    vars(utils)["init_none_hash"] = lambda function: setattr(utils, "NONE_HASH", function(0))
    pool = fake(monkeypatch, "vllm.v1.core.block_pool", generate_block_hash_extra_keys=own_keys)
    fake(monkeypatch, "vllm.v1.request", Request=HashedRequest)
    fake(monkeypatch, "vllm.sampling_params", SamplingParams=lambda max_tokens, extra_args: sampling(**extra_args))
    return utils, pool


def test_vllm_names_a_steered_block_by_its_own_keys_and_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = fake_block_hashes(monkeypatch)
    install_block_keys("d")
    request = SimpleNamespace(num_prompt_tokens=6, sampling_params=sampling())
    for module in modules:
        assert module.generate_block_hash_extra_keys(request, 0, 8, 3) == (("image", ("asa", "d:1.0:5")), 3)
        assert module.generate_block_hash_extra_keys(request, 4, 8, 3) == ((("asa", "d:1.0:1"),), 3)
        assert module.generate_block_hash_extra_keys(request, 0, 4, 3) == (("image",), 3)


def test_block_hashes_that_do_not_read_the_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_block_hashes(monkeypatch, reads_keys=False)
    with pytest.raises(
        RuntimeError, match=r"without steering are alike in \[True, True, True\]; expected \[True, False"
    ):
        install_block_keys("d")


def test_a_block_pool_with_another_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = fake_block_hashes(monkeypatch)
    monkeypatch.setattr(pool, "generate_block_hash_extra_keys", lambda *args: (None, 0))
    message = r"vllm\.v1\.core\.block_pool has another generate_block_hash_extra_keys than"
    with pytest.raises(RuntimeError, match=message):
        install_block_keys("d")
