"""Reads and writes Pythonic lists of calls, `[f(a="x"), g(b=[1])]`, as LFM2, LFM2.5 and Llama 4 write them.

The syntax tree is read, nothing is evaluated. Models write loosely, so much is let through: keywords as argument
names, hyphens and dots in names, line ends and unescaped quotes inside strings, leading zeros, true/false/null.
"""

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any

from asa_adapter.tool_calls.as_json import read_json_sequence
from asa_adapter.tool_calls.call import Reading, ToolCall, skip_space
from asa_adapter.tool_calls.values import literal_text, literal_value

_MAX_CALL_CHARACTERS = 100_000

_REST = r"|(?P<name>[^\W\d][\w.-]*)|(?P<number>\d[\w.]*)|(?P<other>.)"
_STRICT = re.compile(r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""" + _REST, re.DOTALL)
# A quote that nothing follows which could follow a string belongs to the text: 'it's so'.
_LOOSE = re.compile(
    r"""(?P<string>(?P<quote>["'])(?:\\.|[^\\])*?(?P=quote)(?=\s*(?:[,)\]}:]|\Z)))""" + _REST, re.DOTALL
)


def read_pythonic(text: str, begin: int, limit: int) -> Reading:
    """Reads a list of calls, or calls without brackets around them, up to the first that cannot be read."""
    strict = _read_list(text, begin, len(text), _STRICT)
    if strict.whole:
        return strict
    # Loose strings end late or never, so they stay within the block.
    loose = _read_list(text, begin, limit, _LOOSE)
    return loose if loose.whole else strict


def write_pythonic(calls: Sequence[ToolCall]) -> str:
    """The calls as LFM2.5's own documentation writes them.

    Example:
        >>> write_pythonic([ToolCall("f", {"a": "x", "n": 3}), ToolCall("g", {})])
        '[f(a="x", n=3), g()]'
    """
    written = [
        f"{call.name}({', '.join(f'{name}={literal_text(value)}' for name, value in call.arguments.items())})"
        for call in calls
    ]
    return f"[{', '.join(written)}]"


def _read_list(text: str, begin: int, stop: int, tokens: re.Pattern[str]) -> Reading:
    calls: list[ToolCall] = []
    texts, whole, end = _split_calls(text, begin, stop, tokens)
    for part in texts:
        try:
            calls.append(_read_call(part, tokens))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Reading(calls, False, begin)
    return Reading(calls, whole, end)


def _split_calls(text: str, begin: int, stop: int, tokens: re.Pattern[str]) -> tuple[list[str], bool, int]:
    """The texts of the calls, whether they end where they should, and where that is."""
    start = skip_space(text, begin)
    listed = text.startswith("[", start)
    start += listed
    texts: list[str] = []
    depth = 0
    for token in tokens.finditer(text, start, stop):
        symbol = token["other"]
        if symbol in ("(", "[", "{"):
            depth += 1
        elif depth and symbol in (")", "]", "}"):
            depth -= 1
            following = skip_space(text, token.end())
            if not depth and not listed and not text.startswith(",", following):
                return [*texts, text[start : token.end()].strip()], True, token.end()
        elif not depth and symbol in (",", "]"):
            texts.append(text[start : token.start()].strip())
            start = token.end()
            if symbol == "]":
                return [part for part in texts if part], listed, token.end()
        elif symbol in ('"', "'", "<", "\\"):
            stop = token.start()  # a string that does not end, or a marker before the list does
            break
    cut = text[start:stop].strip()
    return [*texts, cut] if cut and listed and not depth else texts, False, begin


def _read_call(text: str, tokens: re.Pattern[str]) -> ToolCall:
    """Reads one `name(keyword=value, ...)` with the syntax tree alone.

    Names are taken out first, so that `send-mail(from="x")` is as good as any.
    """
    if len(text) > _MAX_CALL_CHARACTERS:
        raise ValueError("too long")
    names: dict[str, str] = {}
    parts = []
    found = [(str(token.lastgroup), token[0]) for token in tokens.finditer(text)]
    for i, (kind, part) in enumerate(found):
        following = next((other for _, other in found[i + 1 :] if other.strip()), "") if kind == "name" else ""
        if following in ("(", "=") and kind == "name":
            names[f"name_{i}"] = part
            part = f"name_{i}"
        elif kind in ("string", "quote"):
            part = _python_string(part)
        elif kind == "number" and part.isdecimal():
            part = part.lstrip("0") or "0"
        parts.append(part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\\d" in a model's string is no fault of the user's
        node = ast.parse("".join(parts).strip(), mode="eval").body
    if not isinstance(node, ast.Call) or node.args or not isinstance(node.func, ast.Name):
        raise ValueError("expected name(keyword=value, ...)")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        name = names.get(keyword.arg or "")
        if name is None or name in arguments:
            raise ValueError("expected each keyword once")
        arguments[name] = literal_value(keyword.value)
    return ToolCall(names[node.func.id], arguments)


def _python_string(text: str) -> str:
    """A string as Python takes it: its line ends, and the quotes that were left bare inside, are escaped."""
    quote, inner = text[0], text[1:-1]
    escaped = re.sub(rf"\\.|{quote}", lambda m: m[0] if len(m[0]) == 2 else f"\\{quote}", inner, flags=re.DOTALL)
    return quote + escaped.replace("\r", "\\r").replace("\n", "\\n") + quote


def read_pythonic_or_json(text: str, begin: int, limit: int) -> Reading:
    """Reads a Pythonic list of calls, or JSON in its place, which a system prompt can ask for."""
    reading = read_json_sequence(text, begin, limit)
    return reading if reading.whole else read_pythonic(text, begin, limit)


def read_llama3(text: str, begin: int, limit: int) -> Reading:
    """Reads JSON objects, or the call of a built-in tool, `brave_search.call(query="x")`."""
    calls, whole, end = read_pythonic_or_json(text, begin, limit)
    return Reading([ToolCall(call.name.removesuffix(".call"), call.arguments) for call in calls], whole, end)
