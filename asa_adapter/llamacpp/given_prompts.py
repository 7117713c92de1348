"""The prompts that generate() is given, without their padding."""

from typing import Any

import torch

from asa_adapter.modeling.residual_stream import last_prompt_index


def prompts_and_lasts(ids: torch.Tensor, mask: torch.Tensor | None) -> tuple[list[list[int]], list[int]]:
    """The tokens of each of (B, T) rows without its padding, and the index of its last prompt token.

    Raises:
        ValueError: no batch of token ids, or a mask of another shape.
    """
    _check_ids(ids, mask)
    if mask is None:
        return ids.tolist(), [ids.shape[1] - 1] * len(ids)
    whole = [row[present.bool()].tolist() for row, present in zip(ids, mask, strict=True)]
    return whole, [int(last) for last in last_prompt_index(mask)]


def _check_ids(ids: Any, mask: Any) -> None:
    """Refuses what is no batch of token ids, or a mask of another shape."""
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2 or 0 in ids.shape or ids.is_floating_point():
        raise ValueError(f"input_ids is {_shape_in_words(ids)}; expected whole numbers of shape (rows, tokens)")
    if mask is not None and (not isinstance(mask, torch.Tensor) or mask.shape != ids.shape):
        raise ValueError(
            f"attention_mask is {_shape_in_words(mask)}; expected the shape of input_ids, {tuple(ids.shape)}"
        )


def _shape_in_words(found: Any) -> str:
    """What a tensor is, or what is there in its place."""
    if not isinstance(found, torch.Tensor):
        return f"a {type(found).__name__}"
    return f"a tensor of shape {tuple(found.shape)} and {found.dtype}"
