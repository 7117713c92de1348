"""Which tool-call format a model writes: by how its chat template writes a call, else by its markers."""

from collections.abc import Container
from typing import Any

from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.tool_calls.call_format import ToolCallFormat
from asa_adapter.tool_calls.known_formats import FORMATS

SAMPLE_CALL = ToolCall("probe_tool", {"text": "probe text"})
_SAMPLE_SCHEMA = {
    "type": "function",
    "function": {
        "name": SAMPLE_CALL.name,
        "description": "Takes a text.",
        "parameters": {
            "type": "object",
            "properties": {"text": {"type": "string", "description": "A text."}},
            "required": ["text"],
        },
    },
}
_QUESTION = {"role": "user", "content": "A question."}


def detected_format(tokenizer: Any) -> str | None:
    """The name in `FORMATS` of the format that a tokenizer's model writes; None where it is unknown.

    A chat template that writes calls into the history shows the format: the one that reads such a call back. If the
    template drops calls, the markers in the template decide, then those in the vocabulary.
    """
    written = written_sample_call(tokenizer)
    if SAMPLE_CALL.name in written:
        readers = [name for name, known in FORMATS.items() if _format_reads(known, written)]
        signed = _format_by_signs(written)
        return (
            signed
            if signed in readers
            else next(iter(sorted(readers, key=lambda name: _rank_of_format(name, written))), None)
        )
    template = template_text(tokenizer)
    vocabulary = tokenizer.get_vocab()
    return _format_by_signs(template) or _format_by_signs(vocabulary)


def written_sample_call(tokenizer: Any) -> str:
    """An assistant's turn of one call, as the chat template renders it; "" where it cannot."""
    for arguments in (SAMPLE_CALL.arguments, '{"text": "probe text"}'):
        call = {"id": "000000000", "type": "function", "function": {"name": SAMPLE_CALL.name, "arguments": arguments}}
        turn = {"role": "assistant", "content": "", "tool_calls": [call]}
        try:
            before = _rendered_sample(tokenizer, [_QUESTION], add_generation_prompt=True)
            after = _rendered_sample(tokenizer, [_QUESTION, turn], add_generation_prompt=False)
        # A template is a stranger's program; that it cannot render this chat means nothing else.
        except Exception:
            continue
        return written_after(before, after)
    return ""


def template_text(tokenizer: Any) -> str:
    """The tokenizer's chat template, all of them where it has several; "" where it has none."""
    template = getattr(tokenizer, "chat_template", None) or ""
    return template if isinstance(template, str) else "\n".join(map(str, template.values()))


def written_after(before: str, after: str) -> str:
    """The end of the second text behind what both begin with; a marker that they share in part is kept whole."""
    shared = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    begun = [
        opened
        for opens, closes in ("<>", "[]")
        if (opened := before.rfind(opens, 0, shared)) > before.rfind(closes, 0, shared)
    ]
    return after[min([shared, *begun]) :]


def _rendered_sample(tokenizer: Any, messages: list[dict[str, Any]], add_generation_prompt: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            messages, tools=[_SAMPLE_SCHEMA], add_generation_prompt=add_generation_prompt, tokenize=False
        )
    )


def _format_reads(known: ToolCallFormat, written: str) -> bool:
    """Whether a format reads the sample call in what the template wrote."""
    blocks = known.blocks(written)
    return len(blocks) == 1 and blocks[0].whole and blocks[0].calls == [SAMPLE_CALL]


def _rank_of_format(name: str, written: str) -> int:
    """How likely a format that reads a call is the one meant, the least first: most read JSON without their marker."""
    if FORMATS[name].start and FORMATS[name].start in written:
        return 0
    return {"json": 1 if '"arguments"' in written else 3, "llama3": 2, "llama4": 2}.get(name, 4)


def _format_by_signs(text: str | Container[str]) -> str | None:
    """The format with the most signs in a text or a vocabulary, since several formats share a start marker."""
    found = {}
    for name, known in FORMATS.items():
        present = [
            signs
            for signs in known.signs or ((known.start,),) * bool(known.start)
            if all(sign in text for sign in signs)
        ]
        found[name] = max(map(len, present), default=0)
    best = max(found, key=lambda name: found[name])
    return best if found[best] else None
