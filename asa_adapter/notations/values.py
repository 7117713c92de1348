"""One JSON or Python value: read from a position in a text, or written as chat templates write it."""

import ast
import json
import math
import warnings
from typing import Any

from asa_adapter.files import finite_number, no_constant

_WORDS = {"true": True, "false": False, "null": None}
# Line ends inside strings are accepted; NaN and infinity, which no JSON can hold, are not.
_JSON = json.JSONDecoder(strict=False, parse_float=finite_number, parse_constant=no_constant)


def json_value(text: str, begin: int, limit: int | None = None) -> tuple[Any, int]:
    """The JSON object or list at a position in a text, and where it ends.

    Args:
        text: the text.
        begin: the position.
        limit: where the next marker begins, which may be inside a string.

    Raises:
        ValueError: there is no JSON object or list, or it is nested too deep.
    """
    if not text.startswith(("{", "["), begin):
        raise ValueError("expected { or [")
    end = len(text) if limit is None else limit
    while True:
        # Only a piece of the text: for each error json counts the lines of the whole text that it was given.
        piece = text[begin:end]
        try:
            value, length = _JSON.raw_decode(piece)
            return value, begin + length
        except json.JSONDecodeError as error:
            ran_out = error.msg.startswith("Unterminated string") or error.pos >= len(piece)
            if not ran_out or end >= len(text):
                raise
            end += len(piece) + 64
        except RecursionError as error:
            raise json.JSONDecodeError("nested too deep", piece, len(piece)) from error


def whole_json(text: str) -> Any:
    """The value of a text that is JSON from beginning to end.

    Raises:
        ValueError: not JSON, or nested too deep.
    """
    try:
        return json.loads(text, parse_float=finite_number, parse_constant=no_constant)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def json_text(value: Any) -> str:
    """JSON as chat templates write it."""
    return json.dumps(value, ensure_ascii=False)


def literal(text: str) -> Any:
    """The value of a Python literal that JSON can hold.

    Raises:
        ValueError: not a literal, or a value that JSON cannot hold.

    Example:
        >>> literal("[1, {'a': true}]")
        [1, {'a': True}]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return literal_value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a literal: {text:.80}") from error


def literal_value(node: ast.expr) -> Any:
    """The value of a literal; JSON's true, false and null are read too."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [literal_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("expected plain keys")
        return {
            str(ast.literal_eval(key)): literal_value(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key
        }
    value = ast.literal_eval(node)
    infinite = isinstance(value, float) and not math.isfinite(value)
    if infinite or not isinstance(value, str | int | float | bool | None):
        raise ValueError("expected a JSON value")
    return value


def literal_text(value: Any) -> str:
    """A value as a Python literal, its strings in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal_text(k)}: {literal_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal_text, value)) + "]"
    return repr(value)
