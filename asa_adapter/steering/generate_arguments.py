"""What the arguments of a generate() call say about its prompts: their last tokens, draft tokens, a filled cache."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.modeling.forward import given_cache
from asa_adapter.modeling.residual_stream import last_prompt_index


def visible_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The (B, T) token ids of whole prompts in the arguments of a generate() call.

    None where they cannot be seen: embeddings were given, or only the tokens behind those in a cache.
    """
    given = (kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1])
    tokens = next((value for value in given if value is not None), None)
    if kwargs.get("inputs_embeds") is not None or not isinstance(tokens, torch.Tensor):
        return None
    if tokens.ndim != 2 or tokens.is_floating_point() or not tokens.shape[1]:
        return None
    mask = kwargs.get("attention_mask")
    behind = isinstance(mask, torch.Tensor) and mask.shape[-1] > tokens.shape[1]
    return None if behind else tokens


def prompt_tokens(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[NDArray[np.int64], int, int]:
    """Finds the last prompt tokens in the arguments of a generate() call.

    Args:
        model: the model whose generate() is called.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        last: (B,) index of the last prompt token in each row of the tokens that the call feeds to the model.
        width: number of prompt tokens that the call feeds in each row.
        cached: number of tokens in each given row that the cache already holds; they are not fed again.

    Raises:
        TypeError: the prompt is not a tensor of shape (rows, tokens), or the attention mask not one of two dimensions.
        ValueError: draft tokens together with a filled cache, or a row of the attention mask without a token.
    """
    given = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1])
    tokens = next((value for value in given if value is not None), None)
    if tokens is None:
        return np.zeros(1, dtype=np.int64), 1, 0  # generate() starts from one BOS token
    if not isinstance(tokens, torch.Tensor) or tokens.ndim < 2:
        found = tuple(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise TypeError(f"generate() was given {found}; expected a tensor of token ids, shape (rows, tokens)")
    rows, length = tokens.shape[:2]
    mask = kwargs.get("attention_mask")
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2):
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"attention_mask is {found}; expected a tensor of shape (rows, tokens)")
    if mask is None:
        mask = _inferred_mask(model, args, kwargs, tokens)
    width = length
    cached = _cached_length(given_cache(kwargs))
    if cached and drafts_tokens(model, args, kwargs):
        raise ValueError(
            "generate() was given a filled cache together with draft tokens (assistant_model, "
            "prompt_lookup_num_tokens or assistant_early_exit); transformers then feeds the cached tokens again, so "
            "the answer cannot be steered. Leave out one of the two"
        )
    if mask is None or mask.shape[1] == length:
        # The rows include the tokens in the cache. Where they do not, the mask is longer than the rows.
        width -= cached
    last = np.full(rows, width - 1) if mask is None else last_prompt_index(mask[:, -width:]).numpy()
    return last, width, length - width


def drafts_tokens(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a generate() call asks for draft tokens."""
    if kwargs.get("assistant_model") is not None:
        return True
    names = ("prompt_lookup_num_tokens", "assistant_early_exit")
    return any(_setting_of_call(name, model, args, kwargs) for name in names)


def drafts_for_another(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a generate() call makes the draft tokens of another one."""
    return bool(_setting_of_call("is_assistant", model, args, kwargs))


def _cached_length(cache: Any) -> int:
    """Number of tokens in a cache; 0 for None."""
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except ValueError:  # a cache with recurrent states only does not count tokens
        return 0


def _inferred_mask(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], tokens: torch.Tensor
) -> torch.Tensor | None:
    """The (B, T) mask that generate() makes where it is given none: without pad tokens, unless these are EOS too."""
    if tokens.ndim != 2 or tokens.is_floating_point():
        return None
    pad, eos = (_setting_of_call(name, model, args, kwargs) for name in ("pad_token_id", "eos_token_id"))
    ends = eos.tolist() if isinstance(eos, torch.Tensor) else eos
    if pad is None or pad == ends or (isinstance(ends, list) and pad in ends):
        return None
    mask = tokens.ne(pad)
    return None if bool(mask.all()) else mask.long()


def _setting_of_call(name: str, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A setting as generate() resolves it: its own argument, else the given generation_config, else the model's."""
    configs = (kwargs.get("generation_config"), *args[1:2], getattr(model, "generation_config", None))
    values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
    return next((value for value in values if value is not None), None)


def named_arguments(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, also those given by position."""
    if not args:
        return kwargs
    positions = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [name for name, taken in inspect.signature(original).parameters.items() if taken.kind in positions]
    return {**dict(zip(names, args, strict=False)), **kwargs}
