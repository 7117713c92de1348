"""What rules say to the model: a sentence in the system prompt, a question, the beginning of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from asa_adapter.data.rows import Row, row_messages

SENTENCES = (
    "Call a tool only if the request cannot be answered well without one; otherwise answer directly.",
    "First decide whether one of the tools is needed. If it is, call it at once; if it is not, answer in plain words.",
)
# How an answer begins where the gate is +1, and where it is -1.
BEGINNINGS = (
    ("I will call a tool for this.\n", "I can answer this without a tool.\n"),
    ("This request needs a tool: ", "This request needs no tool. "),
)
QUESTION = "Is one of the tools needed to answer this request? Say only Yes or No."
YES, NO = (tuple(f"{space}{word}" for space in ("", " ") for word in (w, w.lower())) for w in ("Yes", "No"))


def with_sentence(row: Row, sentence: str, role: str = "system") -> Row:
    """A row with a sentence at the end of its system turn, or at the beginning of its first user turn.

    Args:
        row: the row.
        sentence: what it says.
        role: "system", which adds that turn where there is none, or "user".
    """
    turns = row_messages(row)
    if role == "system" and turns[0].get("role") != "system":
        return {**row, "messages": [{"role": "system", "content": sentence}, *turns]}
    i = next((i for i, turn in enumerate(turns) if turn.get("role") == role), 0)
    return {**row, "messages": _turns_with_wording(turns, i, sentence, before=role == "user")}


def with_question(row: Row) -> Row:
    """A row that asks whether its request needs a tool, at the end of its last user turn."""
    turns = row_messages(row)
    last = max((i for i, turn in enumerate(turns) if turn.get("role") == "user"), default=len(turns) - 1)
    return {**row, "messages": _turns_with_wording(turns[: last + 1], last, QUESTION, before=False)}


def _turns_with_wording(
    turns: Sequence[Mapping[str, Any]], i: int, text: str, *, before: bool
) -> list[dict[str, Any]]:
    """The turns with a text before or behind the content of one of them."""
    content = turns[i].get("content") or ""
    if isinstance(content, str):
        parts = [text, content] if before else [content, text]
        content = "\n\n".join(part for part in parts if part)
    else:
        part = {"type": "text", "text": text}
        content = [part, *content] if before else [*content, part]
    return [{**turn, "content": content} if j == i else dict(turn) for j, turn in enumerate(turns)]
