"""One Python value: read as a literal that JSON can hold, or written as one."""

import ast
import json
import math
import warnings
from typing import Any

_WORDS = {"true": True, "false": False, "null": None}


def read_literal(text: str) -> Any:
    """The value of a Python literal that JSON can hold.

    Raises:
        ValueError: not a literal, or a value that JSON cannot hold.

    Example:
        >>> read_literal("[1, {'a': true}]")
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
