"""What is examined, a model with its tokenizer and tools, and what a check reports: `Patient` and `Finding`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from torch import nn

from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.data.prompts import encode_prompt, encode_rows
from asa_adapter.data.rows import Row, row_tools
from asa_adapter.modeling.forward import evaluation_mode, greedy_answers
from asa_adapter.notations.tool_schemas import Tools, unwrapped
from asa_adapter.tool_calls.call_habits import Habit, habit_of_answers
from asa_adapter.tool_calls.format_detection import detected_format
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
_SMALL_TALK = SAMPLE_PROMPTS[6:8] + SAMPLE_PROMPTS[10:]  # a greeting, thanks, and two that want a few words
_FEW_TOKENS = 24  # a needless call to small talk begins within them


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the name of the check.
        ok: whether it was made, and nothing is wrong.
        meaning: what was found, and what it means for steering.
        cure: what to do about it; "" where nothing is wrong.
        checked: whether the check could be made, and had something to look at.
        blocks: whether no adapter can be of use before this is cured.
    """

    name: str
    ok: bool
    meaning: str
    cure: str = ""
    checked: bool = True
    blocks: bool = False


class Patient:
    """A model with its tokenizer and tools; parser and answers are made when first asked for.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        tools: JSON-schema tools to offer.
        max_new_tokens: longest answer.
        named: the format of its calls, and their start and end marker, as `ToolCallParser.from_tokenizer` takes them,
            where they are named by hand.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        tools: list[dict[str, Any]],
        max_new_tokens: int,
        named: tuple[str | None, str | None, str | None] = (None, None, None),
    ) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.tools = tools
        self._max_new_tokens = max_new_tokens
        self._named = named
        self._parser: ToolCallParser | None = None
        self._answers: list[list[int]] | None = None

    def missing_for_answers(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings for which prompts cannot be rendered and answered; the checks on answers need none of them."""
        failed = [finding for finding in findings if finding.name == "prompt" and not finding.ok]
        return failed if hasattr(self.model, "generate") else [*failed, Finding("generate()", False, "there is none")]

    @property
    def parser(self) -> ToolCallParser:
        """The parser of the model's calls."""
        if self._parser is None:
            name, start, end = self._named
            self._parser = ToolCallParser.from_tokenizer(self.tokenizer, name, start=start, end=end)
        return self._parser

    @property
    def answers(self) -> list[list[int]]:
        """Token ids of the model's answers to requests that each ask for a tool."""
        if self._answers is None:
            self._answers = self._answered(_examining_requests(self.tools), self._max_new_tokens)
        return self._answers

    @functools.cached_property
    def answers_to_small_talk(self) -> list[list[int]]:
        """Token ids with which the model's answers to a few requests begin that need no tool, whatever is offered."""
        return self._answered(_SMALL_TALK, min(self._max_new_tokens, _FEW_TOKENS))

    def _answered(self, requests: Sequence[str], tokens: int) -> list[list[int]]:
        chats = ([{"role": "user", "content": request}] for request in requests)
        prompts = [encode_prompt(self.tokenizer, chat, self.tools, self.parser) for chat in chats]
        with evaluation_mode(self.model):
            return greedy_answers(self.model, self.tokenizer, prompts, tokens)

    @property
    def habit(self) -> Habit:
        """The formats in which the calls of these answers come."""
        texts = [self.text(answer) for answer in self.answers]
        return habit_of_answers(texts, [self.tools] * len(texts), self.parser.format)

    @property
    def reader(self) -> ToolCallParser:
        """The parser of the formats in which the model's calls really come; a format that was named stays."""
        if self._named[0] is not None:
            return self.parser
        return ToolCallParser.from_habit(self.tokenizer, self.habit)

    def text(self, ids: Sequence[int]) -> str:
        """Token ids as text, special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))


def habit_of_patient(
    model: Any, tokenizer: Any, rows: Sequence[Row], tools: Tools | None = None, max_new_tokens: int = 64
) -> Habit:
    """Examines in which formats a model's calls come, by its answers to some rows.

    Raises:
        ValueError: a row cannot be rendered.
    """
    prompts = encode_rows(tokenizer, rows, tools)
    with evaluation_mode(model):
        answers = greedy_answers(model, tokenizer, prompts, max_new_tokens)
    texts = [str(tokenizer.decode(answer, skip_special_tokens=False)) for answer in answers]
    return habit_of_answers(texts, [row_tools(row, tools) for row in rows], detected_format(tokenizer))


def _examining_requests(tools: list[dict[str, Any]]) -> list[str]:
    """Requests that ask a patient to use its tools."""
    if tools is PLAIN_TOOLS:
        return list(_REQUESTS)
    asked = map(unwrapped, tools[:_TRIED_TOOLS])
    return [f"Use the tool {tool.get('name')} for me now. ({tool.get('description', '')})" for tool in asked]
