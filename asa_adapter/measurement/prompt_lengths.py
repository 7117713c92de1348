"""Which prompts a model has room for."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import Row
from asa_adapter.modeling.residual_stream import text_config
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.tool_calls.parser import ToolCallParser


def room_for_prompt(model: nn.Module, tokenizer: Any, answer: int = 0) -> int | None:
    """How many tokens a prompt may have beside an answer; None where neither model nor tokenizer has a limit."""
    limits = (
        getattr(text_config(model), "max_position_embeddings", None),
        getattr(tokenizer, "model_max_length", None),
    )
    most = min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)
    return None if most is None else most - answer


def check_lengths(lengths: Mapping[str, int], most: int | None, answer: int, cure: str = "") -> None:
    """Refuses prompts that are too long.

    Args:
        lengths: tokens of each prompt, by a name for errors.
        most: what `room_for_prompt` returned.
        answer: tokens of the longest answer.
        cure: what can be done beside shortening them.

    Raises:
        ValueError: a prompt and the longest answer have more tokens than `most`.
    """
    too_long = [name for name, n in lengths.items() if most is not None and n + answer > most]
    if too_long:
        raise ValueError(
            f"{len(too_long)} of {len(lengths)} prompts are too long: the model takes {most} tokens, the longest "
            f"prompt has {max(lengths.values())}, and an answer up to {answer} (max_new_tokens). Shorten or leave out "
            f"{', '.join(too_long[:5])}" + (f" and {len(too_long) - 5} more" if len(too_long) > 5 else "") + cure
        )


def usable_prompts(
    tokenizer: Any, rows: Sequence[Row], tools: Tools | None, parser: ToolCallParser, most: int | None
) -> dict[int, list[int]]:
    """Prompts as token ids by the index of the row, of the rows that the template renders in at most `most` tokens."""
    found = {}
    for i, row in enumerate(rows):
        try:
            [ids] = encode_rows(tokenizer, [row], tools, parser)
        except ValueError:  # the template cannot render it
            continue
        if most is None or len(ids) <= most:
            found[i] = ids
    return found
