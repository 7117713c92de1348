"""Answers that are guessed: one pass tells whether an answer is that of another row, in place of one for each token.

The bare model and the adapters that are compared mostly come to the same few answers to a prompt.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from asa_adapter.answering.prefill import Prefilled, alike_logits
from asa_adapter.engine.prefix_tree import Prompt
from asa_adapter.modeling.forward import forward
from asa_adapter.modeling.prefix_cache import SharedPrefix, copied_cache, unusable_cache_ignored

# Tokens of which a sample shows whether several can be read at once behind a cache.
_SAMPLE = 4
# Settings of a model that change no logits of greedy answers, or that `greedy_settings` sets.
_HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("transformers_version", "_from_model_config", "use_cache", "max_length", "max_new_tokens"),
    *("do_sample", "num_beams", "temperature", "top_p", "top_k", "min_p", "typical_p", "num_return_sequences"),
    *("repetition_penalty", "no_repeat_ngram_size", "guidance_scale", "return_dict_in_generate"),
}


def can_guess(model: nn.Module, short: Prompt, long: Prompt, prefix: SharedPrefix, pad_id: int) -> bool:
    """Whether guesses can be confirmed: several tokens at once, behind a padded batch's cache, have right logits."""
    settings = getattr(model, "generation_config", None)
    if settings is None or {key for key, value in settings.to_diff_dict().items() if value is not None} - _HARMLESS:
        return False
    begins = [list(prompt[: len(prompt) - _SAMPLE]) for prompt in (short, long)]
    if min(map(len, begins)) <= prefix.length:
        return False
    with unusable_cache_ignored():
        begun = Prefilled(model, begins, prefix, pad_id)
        rest = torch.tensor([list(prompt[-_SAMPLE - 1 : -1]) for prompt in (short, long)], device=begun.ids.device)
        mask = torch.cat([begun.mask, begun.mask.new_ones(2, _SAMPLE - 1)], dim=1)
        found = forward(model, rest, mask, begun.branch(), use_cache=True, logits_to_keep=_SAMPLE).logits
        whole = Prefilled(model, [short[:-1], long[:-1]], None, pad_id).logits(model)
        return found.shape[1] >= _SAMPLE and alike_logits(model, found[:, -1].float(), whole)
    return False  # the cache cannot be used


def confirmed_guesses(
    model: nn.Module, mask: torch.Tensor, cache: Any, answers: Sequence[Sequence[int]]
) -> list[bool]:
    """Whether greedy decoding would come to these guessed answers.

    Args:
        model: a causal language model.
        mask: (B, T), 1 where there is a token, up to the first of each answer.
        cache: after all tokens but those; it stays as it is.
        answers: B answers of at least two tokens, the first of which is known to be right.
    """
    width = max(map(len, answers)) - 1
    padded = torch.tensor([[*answer, *[0] * (width + 1 - len(answer))] for answer in answers], device=mask.device)
    seen = torch.cat([mask, mask.new_ones(len(mask), width - 1)], dim=1)
    # Padding comes behind the answer, and a causal model does not attend to it.
    output = forward(model, padded[:, :-1], seen, copied_cache(cache), use_cache=True, logits_to_keep=width)
    right = output.logits[:, -width:].argmax(dim=2) == padded[:, 1:]
    return [bool(row[: len(answer) - 1].all()) for row, answer in zip(right, answers, strict=True)]
