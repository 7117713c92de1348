"""Chats with tool calls, in a form of which the model's chat template keeps every call.

Some templates silently drop `tool_calls` (LFM2, LFM2.5, Granite 3), some write only the first of a turn (gpt-oss) or
refuse a second (Llama 3.1). Rendering shows what a template does, so no list of models is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asa_adapter.notations.tool_call import ToolCall, given_call

Message = dict[str, Any]
Render = Callable[[list[Message]], str]
Write = Callable[[Sequence[ToolCall]], str]


def kept_history(messages: Sequence[Mapping[str, Any]], render: Render, write: Write) -> list[Message]:
    """The chat in a form of which the template keeps the tool calls.

    Calls stay as they are if the template writes them; else each gets a turn of its own; else they are written into
    the turn's text in the model's own format. An assistant's turn without text gets an empty one.

    Args:
        messages: chat turns; an assistant's may have `tool_calls`, in OpenAI's shape or bare.
        render: renders a chat with the chat template.
        write: writes calls in the model's format.

    Raises:
        ValueError: tool calls have another shape.
    """
    chat = completed_history(messages)
    if not any(turn.get("tool_calls") for turn in chat):
        return chat
    for candidate in (chat, _one_call_a_turn(chat)):
        if _keeps_calls(candidate, render):
            return candidate
    return [_with_written_calls(turn, write) for turn in chat]


def calls_of(turn: Mapping[str, Any]) -> list[ToolCall]:
    """The tool calls of a turn that `kept_history` returned."""
    return [ToolCall(call["function"]["name"], call["function"]["arguments"]) for call in turn.get("tool_calls") or []]


def check_turn_calls(turn: Mapping[str, Any]) -> None:
    """Refuses a turn of a chat's history whose `tool_calls` are not calls.

    Raises:
        ValueError: they have another shape.
    """
    if calls := turn.get("tool_calls"):
        for call in _listed_calls(calls):
            _whole_call(call, "")


def completed_history(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The chat with text in each assistant's turn and complete tool calls: wrapped, with ids, arguments as objects.

    Results without an id belong to the calls before them, in the same order.
    """
    chat: list[Message] = []
    waiting: list[str] = []
    count = 0
    for message in messages:
        turn = {key: value for key, value in message.items() if value is not None}
        if turn.get("role") == "assistant":
            turn.setdefault("content", "")
        if calls := turn.pop("tool_calls", None):
            turn["tool_calls"] = [
                _whole_call(call, f"call{count + i:05d}") for i, call in enumerate(_listed_calls(calls))
            ]
            waiting = [call["id"] for call in turn["tool_calls"]]
            count += len(waiting)
        elif turn.get("role") == "tool" and waiting:
            turn.setdefault("tool_call_id", waiting[0])
            waiting = [name for name in waiting if name != turn["tool_call_id"]]
        chat.append(turn)
    return chat


def _listed_calls(calls: Any) -> list[Any]:
    if not isinstance(calls, list):
        raise ValueError(f"tool_calls is {calls!r:.80}; expected a list of calls with a name and arguments")
    return calls


def _whole_call(call: Any, name: str) -> dict[str, Any]:
    """A call of the history in OpenAI's shape; `name` is its id where it has none."""
    found = given_call(call.get("function", call)) if isinstance(call, Mapping) else None
    if found is None:
        raise ValueError(f"a tool call is {call!r:.80}; expected a name and an object of arguments")
    return {
        "id": str(call.get("id") or name),
        "type": "function",
        "function": {"name": found.name, "arguments": found.arguments},
    }


def _one_call_a_turn(chat: Sequence[Message]) -> list[Message]:
    """The chat with each call in a turn of its own, directly followed by its result."""
    split: list[Message] = []
    results = {turn.get("tool_call_id"): turn for turn in chat if turn.get("role") == "tool"}
    placed: set[int] = set()
    for turn in chat:
        calls = turn.get("tool_calls") or []
        if len(calls) < 2:
            split += [] if id(turn) in placed else [turn]
            continue
        for i, call in enumerate(calls):
            split.append({**turn, "content": turn["content"] if i == 0 else "", "tool_calls": [call]})
            if (result := results.get(call["id"])) is not None:
                split.append(result)
                placed.add(id(result))
    return split


def _keeps_calls(chat: Sequence[Message], render: Render) -> bool:
    """Whether leaving out any one of the calls changes the rendered chat."""
    # A template is a stranger's program; if it fails on a chat, it does not keep its calls.
    try:
        whole = render(list(chat))
    except Exception:
        return False
    for i, turn in enumerate(chat):
        calls = turn.get("tool_calls") or []
        for k in range(len(calls)):
            rest = {**turn, "tool_calls": calls[:k] + calls[k + 1 :]}
            if not rest["tool_calls"]:
                del rest["tool_calls"]
            try:
                if render([*chat[:i], rest, *chat[i + 1 :]]) == whole:
                    return False
            except Exception:
                continue  # the template fails without this call, so it reads it
    return True


def _with_written_calls(turn: Message, write: Write) -> Message:
    """The turn with its calls written into its text."""
    calls = calls_of(turn)
    if not calls:
        return turn
    text, written = turn["content"], write(calls)
    content = [*text, {"type": "text", "text": written}] if isinstance(text, list) else f"{text}{written}"
    return {key: value for key, value in turn.items() if key != "tool_calls"} | {"content": content}
