"""Prompts of several lengths as batches: padded, and sorted so that there is little padding."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

# Tokens in one pass above which more tokens hardly make it more efficient, but padding makes it slower.
_ENOUGH_TOKENS = 256


def pad_token_id(tokenizer: Any) -> int:
    """The id to pad with. It is masked out everywhere, so any will do where the tokenizer has none."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def pad_batch(
    prompts: Sequence[Sequence[int]], pad_id: int, side: str, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of several lengths as ids and mask, both (B, T) int64, padded on one side ("left" or "right")."""
    rows = [torch.tensor(prompt, dtype=torch.int64) for prompt in prompts]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_id, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return ids.to(device), mask.to(device)


def batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of all prompts in batches of similar length, the longest first, so that lack of memory shows at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def batches_by_tokens(lengths: Sequence[int], rows: int, tokens: int) -> list[list[int]]:
    """Indices of all lengths, the longest first, in batches of at most `rows` rows and `tokens` padded tokens.

    A batch that is large enough to run efficiently takes no row that needs much padding. A length above `tokens` is a
    batch of its own.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        last = batches[-1] if batches else []
        longest = lengths[last[0]] if last else 0
        fits = len(last) < rows and (len(last) + 1) * longest <= tokens
        if last and fits and (8 * lengths[i] >= 7 * longest or len(last) * longest < _ENOUGH_TOKENS):
            last.append(i)
        else:
            batches.append([i])
    return batches
