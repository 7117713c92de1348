"""One JSON value: read from a position in a text, or written as chat templates write it."""

import json
from typing import Any

from asa_adapter.strict_json import finite_number, no_constant

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
