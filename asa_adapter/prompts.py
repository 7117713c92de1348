"""From a row of data to prompt tokens, by the model's own chat template, tokenised once."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

Row = Mapping[str, Any]
Tools = Sequence[Mapping[str, Any]]

DEFAULT_DOMAIN = "general"


def row_messages(row: Row) -> list[dict[str, Any]]:
    """The chat of a row: its `messages`, or its `instruction` as one user turn.

    Raises:
        ValueError: it has neither.
    """
    if messages := row.get("messages"):
        return list(messages)
    if isinstance(instruction := row.get("instruction"), str) and instruction.strip():
        return [{"role": "user", "content": instruction}]
    raise ValueError(f"row {row.get('id', '?')!r} has no instruction and no messages; expected one of them")


def row_domain(row: Row) -> str:
    """The domain of a row; "general" where it names none."""
    return str(row.get("domain") or DEFAULT_DOMAIN)


def row_tools(row: Row, tools: Tools | None) -> list[dict[str, Any]] | None:
    """The tools offered in a row: its own, else those given for all rows."""
    own = row.get("tools")
    offered = tools if own is None else own
    return None if offered is None else [dict(tool) for tool in offered]


def check_chat_template(tokenizer: Any) -> None:
    """Refuses a tokenizer that cannot render a chat.

    Raises:
        ValueError: it has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ValueError(
            f"the tokenizer {name!r} has no chat template; expected one, since prompts are rendered with it. "
            "Use the instruct version of the model, or set tokenizer.chat_template"
        )


def chat_template_sha256(tokenizer: Any) -> str | None:
    """SHA-256 of the tokenizer's chat template; None where it has none."""
    template = getattr(tokenizer, "chat_template", None)
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None


def encode_prompt(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Tools | None = None) -> list[int]:
    """Token ids of a chat up to where the assistant's answer begins, with one BOS at the most.

    Raises:
        ValueError: no chat template.
    """
    check_chat_template(tokenizer)
    encoding = tokenizer.apply_chat_template(
        list(messages),
        tools=list(tools) if tools else None,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    return list(encoding["input_ids"])


def encode_rows(tokenizer: Any, rows: Sequence[Row], tools: Tools | None = None) -> list[list[int]]:
    """Prompt ids of each row; a row's own tools come before those given for all."""
    return [encode_prompt(tokenizer, row_messages(row), row_tools(row, tools)) for row in rows]


def pad_token_id(tokenizer: Any) -> int:
    """The id to pad with: masked out everywhere, so any will do where the tokenizer names none."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def pad_batch(
    prompts: Sequence[Sequence[int]], pad_id: int, side: str, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of several lengths as ids and mask, both (B, T) int64, padded on one side ("left" or "right")."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), longest) if side == "left" else slice(0, len(prompt))
        ids[row, place] = torch.tensor(prompt)
        mask[row, place] = 1
    return ids.to(device), mask.to(device)


def batches_by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of all prompts in batches of similar length, the longest first: what does not fit fails at once."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
