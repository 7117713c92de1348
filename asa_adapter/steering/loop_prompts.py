"""One run of transformers' loop inside a generate() call: which prompt it was given, read from its first pass."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.modeling.residual_stream import last_prompt_index


class Prompt(NamedTuple):
    """The prompt of a generate() call or of one run of its loop.

    Attributes:
        last: (rows,) index of the last prompt token in each row of the tokens that are fed to the model.
        width: number of prompt tokens that are fed in each row.
        before: number of tokens in each row that are not fed, since a cache holds them.
        mask: the attention mask that tells the last tokens; None where there is none, or another one tells them.
    """

    last: NDArray[np.int64]
    width: int
    before: int
    mask: torch.Tensor | None = None


class Loop(NamedTuple):
    """What transformers says about a run before its first pass.

    Attributes:
        length: length of its rows without draft tokens, where these or chunks are to come; None where they are not.
        chunked: the prompt is fed in chunks.
        mask: (rows, tokens) attention mask of the whole prompt, where it is chunked.
    """

    length: int | None = None
    chunked: bool = False
    mask: torch.Tensor | None = None


def prompt_of_loop(
    given: Prompt,
    inputs: Mapping[str, Any],
    asked: Mapping[str, Any],
    count: int,
    loop: Loop | None,
    drafts: bool,
    first: bool,
) -> Prompt:
    """The prompt of a run of the loop.

    Args:
        given: the prompt that generate() was given.
        inputs: what prepare_inputs_for_generation() returned for the first pass.
        asked: its arguments by name.
        count: number of tokens in each row of the pass.
        loop: what transformers said about the run; None if it said nothing.
        drafts: generate() was asked for draft tokens.
        first: it is the first run of the call.

    Returns:
        The prompt; its rows are those of the pass, or those that generate() was given.
    """
    if loop is not None and loop.chunked:
        longer = (loop.length or 0) - given.width - given.before
        if not loop.length or not longer:
            return given
        width = given.width + longer
        return Prompt(_last_in_loop(loop.mask, width, len(given.last)), width, given.before)
    embedded = inputs.get("inputs_embeds") is not None
    rows = asked.get("inputs_embeds" if embedded else "input_ids")
    length = max(count, rows.shape[1]) if isinstance(rows, torch.Tensor) and rows.ndim >= 2 else count
    if loop is not None:
        drafted = 0 if loop.length is None or embedded else max(0, length - loop.length)
    else:
        drafted = max(0, count - given.width) if drafts else 0
    if first and count < length and not given.before:
        return given  # tokens are left out, though no filled cache was seen
    width, mask = count - drafted, asked.get("attention_mask")
    fed = inputs["inputs_embeds"] if embedded else inputs["input_ids"]
    as_given = (width, length - count, fed.shape[0]) == (given.width, given.before, len(given.last))
    if as_given and not drafted and mask is not None and mask is given.mask:
        return given  # it was looked at when generate() was called
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and drafted:
        mask = mask[:, :-drafted]
    return Prompt(_last_in_loop(mask, width, fed.shape[0]), width, length - count)


def shared_by_beams(last: NDArray[np.int64], rows: int, given: int) -> NDArray[np.int64]:
    """(B,) the indices of the rows that generate() was given, where their beams share them; else `last`, (rows,)."""
    if len(last) == rows != given and rows % given == 0:
        grouped = last.reshape(given, -1)
        if (grouped == grouped[:, :1]).all():
            return grouped[:, 0]
    return last


def _last_in_loop(mask: Any, width: int, rows: int) -> NDArray[np.int64]:
    """(rows,) last prompt tokens of a loop's rows, in the last `width` columns of its mask; None is all ones."""
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and mask.shape[1] >= width:
        return last_prompt_index(mask[:, -width:]).numpy()
    return np.full(rows, width - 1)


def whole_prompts_of_loop(
    inputs: Mapping[str, Any], asked: Mapping[str, Any], loop: Loop | None, rows: int
) -> torch.Tensor | None:
    """The (rows, T) token ids of the prompts of a run of the loop; None where they cannot be seen.

    Args:
        inputs: what prepare_inputs_for_generation() returned for the first pass.
        asked: its arguments by name.
        loop: what transformers said about the run.
        rows: number of prompts; their beams follow each other.
    """
    tokens = asked.get("input_ids")
    if inputs.get("inputs_embeds") is not None or (loop is not None and loop.chunked):
        return None
    return tokens[:: len(tokens) // rows] if isinstance(tokens, torch.Tensor) and tokens.ndim == 2 else None
