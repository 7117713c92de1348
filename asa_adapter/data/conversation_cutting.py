"""`cut`: conversations that went as they should, as labelled rows, one for each state in which a call may be due."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from asa_adapter.data.rows import check_turns, plain_messages
from asa_adapter.templates.call_history import completed_history

_ROLES = ("system", "developer", "user", "assistant", "tool")


def is_trajectory(row: Any) -> bool:
    """Whether a row is a whole conversation: it has no label, and its messages end with an assistant's turn."""
    if not isinstance(row, Mapping) or row.get("label") is not None:
        return False
    messages = row.get("messages")
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            return False
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and last.get("role") == "assistant"


def cut(trajectories: Iterable[Mapping[str, Any]], *, tools: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """The states of conversations: all that was said before each turn of the assistant, and whether it then calls.

    A state is the end of the prompt of one `generate()`: after a user's turn, or after the results of all calls of the
    turn before. An assistant's turns with nothing between them are one turn. Nothing is known of what should come
    after the last turn, so that is no state unless it is an assistant's.

    Args:
        trajectories: conversations of which every turn of the assistant is right: `messages` in the OpenAI shape
            (assistants' `tool_calls`, results of the role "tool"), and optionally `domain`, `tools` and
            `conversation` (or `id`), its name; without one, a name is made of its messages.
        tools: JSON-schema tools of trajectories that have none of their own.

    Returns:
        Rows with `messages`, `label` (1: a call is due in this state), `gold_calls` (those of the next turn),
        `conversation`, `id` (the conversation and the number of the state in it, from 0), and `domain` and `tools`
        where they are known.

    Raises:
        ValueError: a trajectory that has no messages in this shape, a result without a call before it, calls without
            a result, or a name that another trajectory has; the message says which row, from 0.

    Example:
        >>> call = {"name": "weather", "arguments": {"city": "Oslo"}}
        >>> chat = [{"role": "user", "content": "Is it cold in Oslo?"}, {"role": "assistant", "tool_calls": [call]}]
        >>> chat += [{"role": "tool", "content": "-9"}, {"role": "assistant", "content": "Very."}]
        >>> [(row["messages"][-1]["role"], row["label"]) for row in cut([{"messages": chat}])]
        [('user', 1), ('tool', 0)]
    """
    rows: list[dict[str, Any]] = []
    named: dict[str, int] = {}
    for i, trajectory in enumerate(trajectories):
        states = cut_states(trajectory, f"row {i}", tools)
        name = states[0]["conversation"]
        if (first := named.setdefault(name, i)) != i and not _conversation_name(trajectory):
            states = [row | {"id": f"{row['id']}-{i}"} for row in states]  # the same conversation once more
        elif first != i:
            raise ValueError(
                f"row {i}: the conversation is called {name!r:.80}, as that of row {first}; expected a name for "
                "each, or none"
            )
        rows += states
    return rows


def cut_states(trajectory: Any, where: str, tools: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """The rows that one trajectory is cut into, as `cut` has them.

    Raises:
        ValueError: as `cut`; `where` names the trajectory.
    """
    if not isinstance(trajectory, Mapping):
        raise ValueError(f"{where}: found a {type(trajectory).__name__}; expected an object with messages")
    messages = plain_messages(trajectory.get("messages"), where)
    check_turns(messages, where)
    if not messages:
        raise ValueError(f"{where}: there are no messages; expected a conversation")
    _check_turn_order(messages, where)
    offered = tools if trajectory.get("tools") is None else trajectory["tools"]
    given = _conversation_name(trajectory)
    name = hashlib.sha256(json.dumps(messages).encode()).hexdigest()[:16] if given is None else str(given)
    rows = []
    for k, (end, calls) in enumerate(_places_to_cut(messages)):
        row = {"id": f"{name}/{k}", "conversation": name, "messages": messages[:end]}
        row |= {"label": int(bool(calls)), "gold_calls": calls}
        row |= {"domain": trajectory["domain"]} if trajectory.get("domain") is not None else {}
        rows.append(row if offered is None else row | {"tools": offered})
    if not rows:
        raise ValueError(
            f"{where}: no assistant's turn follows a user's or a tool's turn; expected a conversation in which each "
            "turn of the assistant is the right one"
        )
    return rows


def _places_to_cut(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """For each state that is cut, the number of turns before it, and the calls of the assistant's turns behind it."""
    chat = completed_history(messages)
    start = 0
    while start < len(chat):
        end = start
        while end < len(chat) and chat[end]["role"] == "assistant":
            end += 1
        if end > start and start and chat[start - 1]["role"] in ("user", "tool"):
            yield start, [call["function"] for turn in chat[start:end] for call in turn.get("tool_calls") or []]
        start = max(end, start + 1)


def _conversation_name(trajectory: Mapping[str, Any]) -> Any:
    """What a conversation is called; None where it has no name."""
    return next((trajectory[key] for key in ("conversation", "id") if trajectory.get(key) is not None), None)


def _check_turn_order(messages: Sequence[Mapping[str, Any]], where: str) -> None:
    """Refuses to cut conversations that have results without calls or calls without results."""
    waiting = 0
    for i, turn in enumerate(messages):
        role = turn["role"]
        if role not in _ROLES:
            raise ValueError(f"{where}: turn {i} of messages has the role {role!r:.80}; expected one of {_ROLES}")
        if role == "tool" and not waiting:
            raise ValueError(
                f"{where}: turn {i} of messages is a tool's result, but no call before it waits for one; expected an "
                "assistant's turn with tool_calls, and as many results as calls behind it"
            )
        # Calls may stand in several turns, one behind the other; whatever else follows waits for the results.
        goes_on = role == "assistant" and turn.get("tool_calls") and messages[i - 1]["role"] == "assistant"
        if waiting and not (role == "tool" or goes_on):
            article = "an" if role == "assistant" else "a"
            raise ValueError(
                f"{where}: turn {i} of messages is {article} {role}'s, and the calls before it lack {waiting} "
                "of their results; expected as many tool's turns as calls"
            )
        waiting += len(turn.get("tool_calls") or []) - (role == "tool")
