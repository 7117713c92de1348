"""What is examined, a model with its tokenizer and tools, and what a check reports: `Patient` and `Finding`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from asa_adapter.data.batches import pad_batch, pad_token_id
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.modeling.forward import evaluation_mode, greedy_settings, input_device
from asa_adapter.notations.schemas import unwrapped
from asa_adapter.tool_calls.parser import ToolCallParser

PLAIN_TOOLS: list[dict[str, Any]] = [
    {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
    }
    for name, description, argument in (
        ("calculator", "Compute an expression.", "expression"),
        ("web_search", "Search the web.", "query"),
        ("translator", "Translate a text into English.", "text"),
    )
]
_REQUESTS = (
    "What is 48713 times 9264? Use a tool.",
    "Search the web for the weather in Oslo tomorrow.",
    "Translate 'bonjour le monde' into English with a tool.",
)
_TRIED_TOOLS = 4


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check.
        ok: whether nothing is wrong.
        meaning: what was found, and what it means for steering.
        cure: what to do about it; "" where nothing is wrong.
    """

    name: str
    ok: bool
    meaning: str
    cure: str = ""


class Patient:
    """A model with its tokenizer and tools; parser and answers are made when first asked for."""

    def __init__(self, model: nn.Module, tokenizer: Any, tools: list[dict[str, Any]], max_new_tokens: int) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.tools = tools
        self._max_new_tokens = max_new_tokens
        self._parser: ToolCallParser | None = None
        self._answers: list[list[int]] | None = None

    def can_answer(self, findings: Sequence[Finding]) -> bool:
        """Whether prompts can be rendered and answered, so that the checks on answers can be made."""
        needed = {"chat_template", "call_format", "prompt"}
        return needed <= {finding.name for finding in findings if finding.ok} and hasattr(self.model, "generate")

    @property
    def parser(self) -> ToolCallParser:
        """The parser of the model's calls."""
        if self._parser is None:
            self._parser = ToolCallParser.from_tokenizer(self.tokenizer)
        return self._parser

    @property
    def answers(self) -> list[list[int]]:
        """Token ids of the model's answers to requests that each ask for a tool."""
        if self._answers is None:
            prompts = [
                encode_prompt(self.tokenizer, [{"role": "user", "content": request}], self.tools, self.parser)
                for request in _requests(self.tools)
            ]
            device = input_device(self.model)
            ids, mask = pad_batch(prompts, pad_token_id(self.tokenizer), "left", device)
            with evaluation_mode(self.model):
                output = self.model.generate(
                    input_ids=ids, attention_mask=mask, **greedy_settings(self.tokenizer, self._max_new_tokens)
                )
            self._answers = output[:, ids.shape[1] :].tolist()
        return self._answers

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def _requests(tools: list[dict[str, Any]]) -> list[str]:
    if tools is PLAIN_TOOLS:
        return list(_REQUESTS)
    asked = map(unwrapped, tools[:_TRIED_TOOLS])
    return [f"Use the tool {tool.get('name')} for me now. ({tool.get('description', '')})" for tool in asked]
