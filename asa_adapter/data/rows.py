"""One labelled row: its values made plain, its columns filled in, and what cannot be used refused by its number."""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asa_adapter.files import read_data_text
from asa_adapter.notations.tool_schemas import Tools, parameters_fault, tool_name, tool_schemas, unwrapped
from asa_adapter.strict_json import strict_json
from asa_adapter.templates.call_history import check_turn_calls
from asa_adapter.tool_calls.gold_calls import gold_names, matches_gold

Row = Mapping[str, Any]

DEFAULT_DOMAIN = "general"
COLUMNS = ("id", "instruction", "messages", "label", "domain", "tools", "gold_calls")
CONVERSATION = "conversation"  # the name of what a row is cut from
_NESTED = ("messages", "tools", "gold_calls")
_MOST_LEVELS = 64  # of nesting; an adapter's config holds no deeper tools
_MOST_BITS = 4096  # Python writes no number of more than 4,300 digits


def complete_row(row: Any, where: str, name: str, tools: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A row with all columns, its conversation and plain values; nested ones may be JSON text, as on the Hub.

    Args:
        row: a mapping with some of `COLUMNS`; numbers, lists and texts may be of numpy or torch.
        where: how errors name the row.
        name: the id of a row that has none.
        tools: tools for a row that has none of its own.

    Raises:
        ValueError: the row cannot be used; the message says which column and why.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: found a {type(row).__name__}; expected an object with an instruction and a label")
    given = {str(column): value for column, value in row.items()}
    _check_column_names(given, where)
    whole = {column: _plain_value(given.get(column), f"{where}, {column}") for column in COLUMNS}
    whole |= {column: _parsed_column(whole[column], f"{where}, {column}") for column in _NESTED}
    if isinstance(whole["label"], bool):
        whole["label"] = int(whole["label"])
    check_row(whole, where, tuple(column for column in given if column not in COLUMNS))
    _check_gold_calls(whole["gold_calls"], where)
    offered = tools if whole["tools"] is None else whole["tools"]
    check_gold_tools(whole["gold_calls"], offered, where)
    domain = whole["domain"]
    for column in ("id", "domain"):
        if isinstance(whole[column], dict | list):
            raise ValueError(f"{where}: {column} is {whole[column]!r:.80}; expected a text")
    named = given.get(CONVERSATION)  # data sets also call a list of turns so, which is not read
    return whole | {
        CONVERSATION: str(named) if isinstance(named, str | int) and named != "" else None,
        "id": name if whole["id"] is None else str(whole["id"]),
        "domain": _domain_of_tools(offered) if domain is None or domain == "" else str(domain),
        "tools": offered,
    }


def check_row(row: Mapping[str, Any], where: str, others: Sequence[str] = ()) -> None:
    """Refuses a row that has no prompt, no label or no sound tools.

    Args:
        row: the row.
        where: how errors name it.
        others: columns that are not read; an error names them, since one of them may be the missing one.

    Raises:
        ValueError: no prompt, one that is not text, messages that are not chat turns, a label that is neither 0 nor 1,
            or tools that are not a list of JSON-schema tools.
    """
    hint = (
        f"; the row also has {', '.join(map(repr, others))}, which no prompt or label is read from" if others else ""
    )
    instruction, label = row.get("instruction"), row.get("label")
    if instruction is not None and not isinstance(instruction, str):
        raise ValueError(f"{where}: instruction is {instruction!r:.80}; expected a text")
    _check_messages(row.get("messages"), where)
    if not row_text(row).strip():
        raise ValueError(f"{where}: no instruction and no messages; expected one of them{hint}")
    if type(label) is not int or label not in (0, 1):
        raise ValueError(f"{where}: label is {label!r:.80}; expected 0 (no tool needed) or 1 (tool needed){hint}")
    if row.get("tools") is not None:
        check_tools(row["tools"], f"{where}, tools")


def check_tools(tools: Any, where: str) -> None:
    """Refuses a row's tools to which no call could be right; Python functions among them are not looked at.

    Raises:
        ValueError: not a list, a tool without a name, or one whose `parameters` are no JSON schema.
    """
    if not isinstance(tools, list | tuple):
        raise ValueError(f"{where}: expected a list of JSON-schema tools, each with a name; found {tools!r:.80}")
    for tool in tools:
        if callable(tool):
            continue
        name = unwrapped(tool).get("name") if isinstance(tool, Mapping) else None
        if not isinstance(name, str) or not name.isprintable() or name.strip() != name or not name:
            raise ValueError(f"{where}: expected a list of JSON-schema tools, each with a name; found {tool!r:.80}")
        if fault := _tool_fault(json.dumps(unwrapped(tool), default=str)):
            raise ValueError(f"{where}: {tool_name(tool)!r:.80} {fault}")


@functools.lru_cache(maxsize=4096)
def _tool_fault(tool: str) -> str | None:
    """The `parameters_fault` of a tool given as JSON text; a data set offers the same tools in many rows."""
    return parameters_fault(json.loads(tool))


def read_tools(path: Path) -> list[dict[str, Any]]:
    """Reads a JSON file of tools that rows offer.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not a list of tools with a name, or a tool's `parameters` are no JSON schema.
    """
    try:
        tools = strict_json(read_data_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error
    tools = _plain_value(tools, str(path))
    check_tools(tools, str(path))
    return list(tools)


def row_messages(row: Row) -> list[dict[str, Any]]:
    """The chat of a row: its `messages`, or its `instruction` as one user turn.

    Raises:
        ValueError: the row has neither.
    """
    if messages := row.get("messages"):
        return list(messages)
    if isinstance(instruction := row.get("instruction"), str) and instruction.strip():
        return [{"role": "user", "content": instruction}]
    raise ValueError(f"row {row.get('id', '?')!r} has no instruction and no messages; expected one of them")


def row_domain(row: Row) -> str:
    """The domain of a row; "general" where it has none."""
    return str(row.get("domain") or DEFAULT_DOMAIN)


def row_tools(row: Row, tools: Tools | None) -> list[dict[str, Any]] | None:
    """The tools that a row offers, as JSON schemas: its own, else those given for all rows."""
    own = row.get("tools")
    offered = tools if own is None else own
    return None if offered is None else tool_schemas(offered)


def row_labels(rows: Sequence[Row]) -> NDArray[np.int64]:
    """(N,) int64 labels of rows: 1 where a row needs a tool, else 0."""
    return np.array([int(row["label"]) for row in rows])


def row_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The id of each row, or "row" and its number."""
    return [str(row["id"]) if row.get("id") is not None else f"row {i}" for i, row in enumerate(rows)]


def row_text(row: Mapping[str, Any]) -> str:
    """The text of a row's prompt: its instruction, or all of its turns."""
    if row.get("messages"):
        return "\n".join(str(turn.get("content") or "") for turn in row["messages"])
    return str(row.get("instruction") or "")


def last_request(row: Row) -> str:
    """The words of a row's last turn of the user."""
    turns = row_messages(row)
    last = next((turn for turn in reversed(turns) if turn.get("role") == "user"), turns[-1])
    content = last.get("content") or ""
    parts = content if isinstance(content, list) else [{"text": content}]
    return " ".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def plain_messages(messages: Any, where: str) -> Any:
    """Chat turns with plain values; they may be JSON text.

    Raises:
        ValueError: not JSON, or a value that JSON cannot hold.
    """
    return _parsed_column(_plain_value(messages, f"{where}, messages"), f"{where}, messages")


def check_turns(messages: Any, where: str) -> None:
    """Refuses a row's messages that are not chat turns; none at all are fine.

    Raises:
        ValueError: not a list of turns with a role and content, or tool calls of another shape.
    """
    if not messages:
        return
    if not (isinstance(messages, list) and all(isinstance(turn, Mapping) for turn in messages)):
        raise ValueError(f"{where}: messages is {messages!r:.80}; expected a list of chat turns with role and content")
    for i, turn in enumerate(messages):
        if not isinstance(turn.get("role"), str) or not isinstance(turn.get("content"), str | list | None):
            raise ValueError(
                f"{where}: turn {i} of messages is {turn!r:.80}; expected a role and content, both texts (content may "
                "also be a list of parts, or missing beside tool_calls)"
            )
        parts = turn["content"] if isinstance(turn.get("content"), list) else []
        if wrong := [part for part in parts if not isinstance(part, Mapping)]:
            raise ValueError(
                f"{where}: turn {i} of messages has the part {wrong[0]!r:.80}; expected parts such as "
                '{"type": "text", "text": ...}'
            )
        try:
            check_turn_calls(turn)
        except ValueError as error:
            raise ValueError(f"{where}: turn {i} of messages: {error}") from error


def _check_messages(messages: Any, where: str) -> None:
    """Refuses a row's messages that are not chat turns, or end with an assistant's."""
    check_turns(messages, where)
    if messages and messages[-1]["role"] == "assistant":
        raise ValueError(
            f"{where}: messages ends with an assistant's turn, which is what the model shall say; expected a user's "
            "or a tool's turn as the last"
        )


def _check_gold_calls(gold: Any, where: str) -> None:
    """Refuses a row's gold calls that are not calls."""
    if gold is None:
        return
    if not isinstance(gold, list):
        raise ValueError(f"{where}: gold_calls is {gold!r:.80}; expected a list of calls with a name and arguments")
    try:
        matches_gold([], gold)
    except ValueError as error:
        raise ValueError(f"{where}, gold_calls: {error}") from error


def check_gold_tools(gold: Any, tools: Sequence[Any] | None, where: str) -> None:
    """Refuses a row's gold calls of tools that are not offered: no answer could match them.

    Raises:
        ValueError: there is such a call.
    """
    offered = {getattr(tool, "__name__", "") if callable(tool) else tool_name(tool) for tool in tools or []}
    if unknown := [name for name in gold_names(gold or []) if tools is not None and name not in offered]:
        raise ValueError(
            f"{where}: gold_calls calls {unknown[0]!r:.80}, which is not among the offered tools "
            f"({', '.join(sorted(offered)) or 'none'}); expected calls of these"
        )


def _check_column_names(row: Mapping[str, Any], where: str) -> None:
    """Refuses a column that is one of ours but for capitals and dashes, which would be ignored without a word."""
    for column in row:
        plain = "".join(filter(str.isalnum, column.lower()))
        for known in COLUMNS:
            if column not in COLUMNS and known not in row and plain == known.replace("_", ""):
                raise ValueError(f"{where}: the column {column!r} is not read; expected it to be named {known!r}")


def _plain_value(value: Any, where: str, depth: int = 0) -> Any:
    """A row's value as JSON has them: numbers and arrays of numpy and torch become Python's.

    Raises:
        ValueError: a number that is not finite or has too many digits, text that UTF-8 cannot hold, a key that is not
            text, an object of another kind, or values nested too deep.
    """
    if depth > _MOST_LEVELS:
        raise ValueError(f"{where}: values are nested in each other; expected at most {_MOST_LEVELS} levels")
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{where}: an object has the key {wrong[0]!r:.80}; expected texts as keys")
        return {_plain_value(key, where): _plain_value(part, where, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(part, where, depth + 1) for part in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where}: {value!a:.80} holds half of a surrogate pair ({value[error.start]!a}); expected text that "
                "UTF-8 can hold"
            ) from error
        return str(value)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{where}: found a number of {value.bit_length()} bits; expected at most {_MOST_BITS}")
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: found {value}; expected finite numbers")
        return float(value)
    if hasattr(value, "tolist"):  # numpy's and torch's
        return _plain_value(value.tolist(), where, depth)
    raise ValueError(f"{where}: found a {type(value).__name__}, {value!r:.80}; expected what JSON can hold")


def _parsed_column(value: Any, where: str) -> Any:
    """The value of a row's column that may be JSON text."""
    if not isinstance(value, str):
        return value
    if not value.strip():  # an empty cell of a table of texts
        return None
    try:
        return _plain_value(strict_json(value), where)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {value!r:.80} is not valid JSON: {error}") from error


def _domain_of_tools(tools: Sequence[Mapping[str, Any]] | None) -> str:
    """The domain of a row that names none, by the offered tools: the name of a single one, else the default."""
    return tool_name(tools[0])[:64] if tools and len(tools) == 1 else DEFAULT_DOMAIN
