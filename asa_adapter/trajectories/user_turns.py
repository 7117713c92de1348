"""The user's turns of gold conversations: what was said before each, and which calls are needed with which results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asa_adapter.notations.tool_call import ToolCall, given_call
from asa_adapter.notations.tool_schemas import Tools


@dataclass(frozen=True)
class Needed:
    """A call that a user's turn needs.

    Attributes:
        call: the call.
        result: what the tool answered.
        step: number of the assistant's turn that makes it; calls of one turn have no order.
    """

    call: ToolCall
    result: str
    step: int


@dataclass(frozen=True)
class UserTurn:
    """A user's turn and all that is needed until the assistant has answered it.

    Attributes:
        conversation: index of its conversation.
        history: the messages up to the user's, which is the last.
        needed: the calls, in their order.
        tools: JSON-schema tools that the conversation offers; None for those given for all.
    """

    conversation: int
    history: tuple[Mapping[str, Any], ...]
    needed: tuple[Needed, ...]
    tools: Tools | None = None


def user_turns(conversations: Iterable[Mapping[str, Any]]) -> list[UserTurn]:
    """The user's turns of conversations in which every turn of the assistant is right.

    A user's turn that the assistant does not answer, such as the last message, is left out.

    Args:
        conversations: each with `messages` in the OpenAI shape: assistants' `tool_calls`, results of the role "tool";
            and optionally `tools`.

    Raises:
        ValueError: there are none, or one is not of this shape; the message says which, from 0.
    """
    found = [turn for i, one in enumerate(conversations) for turn in _user_turns_of(one, i)]
    if not found:
        raise ValueError("there are no conversations in which an assistant answers a user")
    return found


def _user_turns_of(conversation: Mapping[str, Any], i: int) -> list[UserTurn]:
    """The user's turns of one conversation."""
    messages = conversation.get("messages") if isinstance(conversation, Mapping) else None
    if not isinstance(messages, list) or not all(isinstance(turn, Mapping) for turn in messages):
        raise ValueError(f"conversation {i} has no messages; expected a list of turns with role and content")
    ends = [k for k, turn in enumerate(messages) if turn.get("role") == "user"]
    found = []
    for begin, end in zip(ends, [*ends[1:], len(messages)], strict=True):
        answers = messages[begin + 1 : end]
        if any(turn.get("role") == "assistant" for turn in answers):
            history = tuple(messages[: begin + 1])
            found.append(UserTurn(i, history, tuple(_needed_calls(answers, i)), conversation.get("tools")))
    return found


def _needed_calls(answers: Sequence[Mapping[str, Any]], i: int) -> list[Needed]:
    """The calls of some turns with their results, which stand behind them in the same order or name them by id."""
    calls: list[tuple[Any, ToolCall, int]] = []
    results: list[Mapping[str, Any]] = []
    for step, turn in enumerate(answers):
        if turn.get("role") == "tool":
            results.append(turn)
        for given in turn.get("tool_calls") or []:
            inner = given.get("function", given) if isinstance(given, Mapping) else given
            if (call := given_call(inner)) is None:
                raise ValueError(f"conversation {i} has the call {given!r:.80}; expected a name and arguments")
            calls.append((given.get("id"), call, step))
    if len(results) != len(calls):
        raise ValueError(
            f"conversation {i} has {len(calls)} calls and {len(results)} results between two turns of the user; "
            "expected a result for each call, since these answer the model's own calls"
        )
    by_id = {turn.get("tool_call_id"): turn for turn in results}
    named = len(by_id) == len(results) and {key for key, _, _ in calls} == set(by_id) != {None}
    ordered = [by_id[key] for key, _, _ in calls] if named else results
    return [Needed(call, _text(turn), step) for (_, call, step), turn in zip(calls, ordered, strict=True)]


def _text(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    return content if isinstance(content, str) else str(content if content is not None else "")
