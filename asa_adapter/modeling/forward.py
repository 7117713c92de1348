"""How a model is run: its mode, device and precision, the keywords it accepts, settings for greedy decoding.

Also which of its parts were compiled by torch.compile().
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin

from asa_adapter.engine.padded_batches import pad_batch, pad_token_id

# Names of a model's cache in transformers, both as an argument and as an attribute of the output. 5.24 renamed it: the
# older names still work there, with a warning.
CACHE_NAMES = ("cache", "past_key_values", "cache_params")
# The name in the installed version.
_TAKEN = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = next(name for name in CACHE_NAMES if name in _TAKEN)


def given_cache(keywords: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a call, under any of its names; None if there is none."""
    return next((keywords[name] for name in CACHE_NAMES if keywords.get(name) is not None), None)


def forward(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, cache: Any = None, **keywords: Any) -> Any:
    """One forward pass. A cache that is given is updated in place.

    Args:
        model: a causal language model, or its decoder without the head.
        ids: (B, T) token ids.
        mask: (B, P + T), non-zero where there is a token; P is the number of tokens in the cache.
        cache: the cache of an earlier pass, which holds the P tokens before `ids`; None if there are none.
        keywords: further keyword arguments, such as `use_cache`; those that the model does not accept are left out.

    Returns:
        The model's output. Models that accept `logits_to_keep` compute the logits of the last token only,
        where nothing else is asked for.
    """
    # The same positions as in generate(); without them some models, such as RoBERTa, would count differently.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    keywords = forward_keywords(model, **{"position_ids": positions, "logits_to_keep": 1, **keywords})
    if cache is not None:
        keywords[CACHE] = cache
    return model(input_ids=ids, attention_mask=mask, **keywords)


@contextlib.contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients inside the `with` block; afterwards each module has its own mode again.

    A model that another engine runs has no modes.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not inference_mode: tensors that a model caches, such as rotary tables, must stay usable in training.
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def input_device(model: nn.Module) -> torch.device:
    """The device on which the model expects its token ids."""
    device = getattr(model, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device


def rounding(model: nn.Module) -> float:
    """Relative difference that rounding in the model's dtype can make between two ways of running one prompt."""
    dtype = next(model.parameters()).dtype
    if not dtype.is_floating_point:
        return 0.1  # packed weights: quantised models
    eps = torch.finfo(dtype).eps
    if dtype == torch.float32:  # products may be allowed fewer bits: TF32 has the ten of half precision
        reduced = {"high": torch.float16, "medium": torch.bfloat16}.get(torch.get_float32_matmul_precision())
        eps = torch.finfo(reduced or dtype).eps
    return 8 * eps


def forward_keywords(model: nn.Module, **keywords: Any) -> dict[str, Any]:
    """Those of the keywords that the model's `forward` accepts."""
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in keywords.items() if name in taken}


def greedy_settings(tokenizer: Any, max_new_tokens: int) -> dict[str, Any]:
    """Keywords of generate() for greedy decoding, whatever the model's own generation_config says."""
    return {**_GREEDY, "max_new_tokens": max_new_tokens, "pad_token_id": pad_token_id(tokenizer)}


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, **more: Any
) -> list[list[int]]:
    """The token ids of greedy answers to some prompts, run as one batch; padded to one length.

    Args:
        model: a causal language model in evaluation mode, also one that another engine runs.
        tokenizer: its tokenizer.
        prompts: prompts as token ids.
        max_new_tokens: most tokens of an answer.
        more: further keywords of generate().
    """
    ids, mask = pad_batch(prompts, pad_token_id(tokenizer), "left", input_device(model))
    settings = greedy_settings(tokenizer, max_new_tokens) | more
    output = model.generate(input_ids=ids, attention_mask=mask, **settings)
    answers: list[list[int]] = output[:, ids.shape[1] :].tolist()
    return answers


_GREEDY = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "num_return_sequences": 1,
    "guidance_scale": None,
    "return_dict_in_generate": False,
}


def greedy_logits(
    model: nn.Module, ids: torch.Tensor, mask: torch.Tensor, cache: Any = None, steps: int = 2
) -> torch.Tensor:
    """Logits of the first tokens that generate() decodes greedily.

    Args:
        model: a causal language model.
        ids: (B, T) token ids.
        mask: (B, T), 1 where there is a token.
        cache: holds all tokens but the last; None runs the whole prompts. It is changed.
        steps: number of tokens.

    Returns:
        (B, steps, V) float32.
    """
    settings = {**_GREEDY, "max_new_tokens": steps, "min_new_tokens": steps, "pad_token_id": 0}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    if cache is not None:
        settings[CACHE] = cache
    output = model.generate(input_ids=ids, attention_mask=mask, **settings)  # type: ignore[operator]
    return torch.stack(output.logits, dim=1).float()


def compiled_parts(model: Any) -> list[str]:
    """Names of the modules that were compiled with torch.compile(), by the user or by an earlier generate()."""
    return [
        name or type(module).__name__
        for name, module in (model.named_modules() if isinstance(model, nn.Module) else ())
        if "_compiled_call" in module.__dict__
        or hasattr(module, "_orig_mod")
        or module._compiled_call_impl is not None
        or hasattr(module.__dict__.get("forward"), "_torchdynamo_orig_callable")
    ]
