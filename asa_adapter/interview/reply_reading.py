"""What an answer did: it called, left a call in its text, announced one, or spoke."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asa_adapter.interview.chat_client import Reply
from asa_adapter.notations.tool_call import ToolCall
from asa_adapter.notations.tool_schemas import schema_errors, tool_names
from asa_adapter.tool_calls.known_formats import FORMATS
from asa_adapter.tool_calls.parser import ToolCallParser

_THOUGHT = re.compile(r"<(think|thinking)>.*?(</\1>|\Z)", re.DOTALL)
_ANNOUNCES = re.compile(
    r"\b(let me|i'll|i will|i'm going to|i am going to|allow me to|one moment|please wait|hold on)\b"
    r"[^.!?\n]{0,80}\b(use|using|call|check|look|search|calculate|compute|find|fetch|get|run|query|while)",
    re.IGNORECASE,
)
_LONGEST_ANNOUNCEMENT = 400


class Answer(NamedTuple):
    """An answer, read.

    Attributes:
        reply: what the server sent.
        calls: its calls, those in its text too.
        form: where calls stand in the text, "json" or the name of the format; "" where none does.
        words: its text without reasoning.
        announces: whether it says that it will use a tool, and does not.
        wrong: what is wrong with the arguments of its `tool_calls`, as an example; "" where nothing is.
    """

    reply: Reply
    calls: tuple[ToolCall, ...]
    form: str
    words: str
    announces: bool
    wrong: str

    @property
    def cut(self) -> bool:
        """Whether it was broken off, so that it shows nothing."""
        return self.reply.reason == "length" and not self.calls


def read_reply(reply: Reply, tools: Sequence[Mapping[str, Any]]) -> Answer:
    """Reads a reply to a chat that offered tools."""
    words = _THOUGHT.sub("", reply.content).strip()
    calls, wrong = _structured_calls(reply, tools)
    form = ""
    if not reply.calls:
        calls, form = _calls_in_text(words, tools)
    announces = not calls and len(words) <= _LONGEST_ANNOUNCEMENT and bool(_ANNOUNCES.search(words))
    return Answer(reply, tuple(calls), form, words, announces, wrong)


def _structured_calls(reply: Reply, tools: Sequence[Mapping[str, Any]]) -> tuple[list[ToolCall], str]:
    """The calls of `tool_calls`, and what is wrong with their arguments."""
    offered = {tool["function"]["name"]: tool["function"] for tool in tools}
    calls, wrong = [], ""
    for call in reply.calls:
        arguments, found = call.arguments, ""
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                found = "is no JSON"
        if not found and not isinstance(arguments, dict):
            found = "is no object"
        if not found and call.name in offered:
            found = "; ".join(schema_errors(arguments, offered[call.name])[:2])
        if found:
            wrong = wrong or f"{call.name}: {call.arguments!r:.120} ({found:.120})"
        calls.append(ToolCall(call.name, arguments if isinstance(arguments, dict) else {}))
    return calls, wrong


def _calls_in_text(words: str, tools: Sequence[Mapping[str, Any]]) -> tuple[list[ToolCall], str]:
    """The calls that stand in a text, all of offered tools, and in which form."""
    offered = tool_names(tools)
    # The formats with a marker first: only where none of them is there, JSON is bare.
    marked = [name for name, form in FORMATS.items() if form.start and form.start in words]
    for name in (*marked, "json", *(name for name in FORMATS if name not in marked)):
        calls = ToolCallParser(name).parse(words, tools)
        if calls and all(call.name in offered for call in calls):
            return calls, name
    return [], ""
