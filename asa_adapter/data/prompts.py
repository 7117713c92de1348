"""From a row of data to prompt tokens: rendered with the model's own chat template and tokenised once."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from asa_adapter.data.rows import Row, row_messages, row_tools
from asa_adapter.errors import visible
from asa_adapter.notations.tool_schemas import Tools, tool_schemas
from asa_adapter.templates.call_history import Message, kept_history
from asa_adapter.tool_calls.format_detection import template_text
from asa_adapter.tool_calls.parser import ToolCallParser
from asa_adapter.tool_calls.reasoning_and_code import open_reasoning

# Variables of thinking models' chat templates, and their values here: the last prompt token decides on the call, so no
# reasoning may follow it.
_TEMPLATE_VARIABLES = {"enable_thinking": False}


_TAIL_TOKENS = 16


def check_chat_template(tokenizer: Any) -> None:
    """Refuses a tokenizer that cannot render a chat.

    Raises:
        ValueError: the tokenizer has no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        raise ValueError(
            f"the tokenizer {name!r} has no chat template; expected one, since prompts are rendered with it. "
            "Use the instruct version of the model, or set tokenizer.chat_template"
        )


def chat_template_sha256(tokenizer: Any) -> str | None:
    """SHA-256 of the tokenizer's chat template, or of all if it has several; None if it has none."""
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def with_chat_template(tokenizer: Any, template: str | None) -> Any:
    """A copy of the tokenizer with another chat template; the tokenizer itself where the template is None."""
    if template is None:
        return tokenizer
    changed = copy.copy(tokenizer)
    changed.chat_template = template
    return changed


def template_variables(tokenizer: Any) -> dict[str, Any]:
    """The variables with which prompts are rendered: those that the tokenizer's chat template mentions."""
    text = template_text(tokenizer)
    return {name: value for name, value in _TEMPLATE_VARIABLES.items() if name in text}


def encode_prompt(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Tools | None = None,
    parser: ToolCallParser | None = None,
    *,
    generation_prompt: bool = True,
) -> list[int]:
    """Token ids of a chat up to where the assistant's answer begins, with at most one BOS.

    Thinking is switched off if the template has a switch for it. Tool calls in the chat are kept even if the template
    drops them: they are then written into the turn's text, in the model's own format.

    Args:
        tokenizer: the model's tokenizer, with a chat template.
        messages: chat turns.
        tools: JSON-schema tools or Python functions.
        parser: writes the calls that the template drops; found by the tokenizer where None.
        generation_prompt: whether the words with which the template begins an answer are added.

    Raises:
        ValueError: no chat template, one that cannot render this chat, or one that leaves a reasoning block open.
    """
    check_chat_template(tokenizer)
    schemas = tool_schemas(tools) or None
    variables = template_variables(tokenizer)

    def rendered(chat: list[Message], tokenize: bool, **ending: bool) -> Any:
        return tokenizer.apply_chat_template(chat, tools=schemas, tokenize=tokenize, **ending, **variables)

    chat = kept_history(
        messages,
        lambda chat: str(rendered(chat, tokenize=False)),
        lambda calls: (parser or ToolCallParser.from_tokenizer(tokenizer)).write(calls),
    )
    try:
        encoding = rendered(chat, tokenize=True, add_generation_prompt=generation_prompt, return_dict=True)
    except (jinja2.TemplateError, TypeError) as error:
        raise ValueError(f"the tokenizer's chat template cannot render this chat: {visible(str(error))}") from error
    ids = [int(token) for token in encoding["input_ids"]]
    _check_no_open_reasoning(tokenizer, ids)
    return ids


def _check_no_open_reasoning(tokenizer: Any, ids: Sequence[int]) -> None:
    """Refuses a prompt that ends inside a reasoning block."""
    if opened := open_reasoning(tokenizer.decode(ids[-_TAIL_TOKENS:], skip_special_tokens=False)):
        raise ValueError(
            f"the prompt ends inside an open reasoning block ({opened!r}): the model would think before it "
            "decides on a call, and the last prompt token does not show that decision. Use a model that answers at "
            "once, or a chat template whose prompts close the block (ASATrainingArguments(chat_template=...))"
        )


def encode_rows(
    tokenizer: Any, rows: Sequence[Row], tools: Tools | None = None, parser: ToolCallParser | None = None
) -> list[list[int]]:
    """Prompt ids of each row; a row's own tools take precedence over those given for all."""
    return [encode_prompt(tokenizer, row_messages(row), row_tools(row, tools), parser) for row in rows]
