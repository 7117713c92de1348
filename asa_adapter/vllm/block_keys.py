"""Keys for vLLM's prefix cache: a block that holds a steered token is not shared with other conversations.

Steering changes what the layers above the steered one cache of a prompt's last token. vLLM names a block of its cache
by the tokens in it and all before it; a longer prompt that begins with the same tokens, such as the next turn of a
chat, would continue from the steered block. So that block, and with it every later one, gets a name of its own; the
earlier ones stay shared.
"""

from typing import Any

from asa_adapter.vllm.requests import steering_factor

_FUNCTION = "generate_block_hash_extra_keys"


def steered_block_key(request: Any, start: int, end: int, digest: str) -> tuple[str, str] | None:
    """The key of a request's block; None where the adapter changes nothing in it.

    Args:
        request: vLLM's, with `num_prompt_tokens` and `sampling_params`.
        start: index of the block's first token.
        end: index of its last token, plus 1.
        digest: that of the adapter.
    """
    last = request.num_prompt_tokens - 1
    if not start <= last < end or request.sampling_params is None:
        return None
    factor = steering_factor(request.sampling_params.extra_args)
    return ("asa", f"{digest}:{factor!r}:{last - start}") if factor else None


def install_block_keys(digest: str) -> None:
    """Adds the keys to vLLM's own, in this process.

    Args:
        digest: that of the adapter.

    Raises:
        RuntimeError: vLLM's functions are not as expected, or the keys do not change its block hashes.
    """
    from vllm.v1.core import block_pool, kv_cache_utils

    original = getattr(kv_cache_utils, _FUNCTION)

    def with_steering(request: Any, start: int, end: int, start_mm_idx: int) -> tuple[tuple[Any, ...] | None, int]:
        keys, next_mm_idx = original(request, start, end, start_mm_idx)
        key = steered_block_key(request, start, end, digest)
        return (keys if key is None else (*(keys or ()), key)), next_mm_idx

    for module in (kv_cache_utils, block_pool):  # the second imports the function by name
        if getattr(module, _FUNCTION, None) is not original:
            raise RuntimeError(f"{module.__name__} has another {_FUNCTION} than vLLM's; its blocks cannot be named")
        setattr(module, _FUNCTION, with_steering)
    _check_block_keys()


def _check_block_keys() -> None:
    """Hashes a prompt that ends in its second block as vLLM does, with steering and without.

    Raises:
        RuntimeError: the first blocks differ, or one of the later ones does not.
    """
    from vllm.sampling_params import SamplingParams
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.request import Request

    if not hasattr(kv_cache_utils, "NONE_HASH"):  # the engine sets it again, with its own hash function
        kv_cache_utils.init_none_hash(_readable_key)
    hasher = kv_cache_utils.get_request_block_hasher(4, _readable_key)

    def hashes(extra_args: dict[str, Any]) -> list[Any]:
        params = SamplingParams(max_tokens=1, extra_args=extra_args)
        request = Request("asa", list(range(8)), params, None, block_hasher=hasher)
        request.append_output_token_ids(list(range(4)))
        return list(request.block_hashes)

    alike = [a == b for a, b in zip(hashes({"asa": 0}), hashes({"asa": 1}), strict=True)]
    if alike != [True, False, False]:
        raise RuntimeError(
            f"vLLM's block hashes with and without steering are alike in {alike}; expected [True, False, False], or "
            "steered blocks would be reused by others. This vLLM cannot be steered with a prefix cache"
        )


def _readable_key(value: Any) -> bytes:
    return repr(value).encode()
