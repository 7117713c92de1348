"""Reads and writes tool calls as Python, `[f(a="x"), g(b=[1])]`.

The syntax tree is read; nothing is evaluated. Models write loosely, so much is accepted: keywords as argument names,
hyphens and dots in names, line ends and unescaped quotes inside strings, leading zeros, true/false/null.
"""

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Any

from asa_adapter.notations.json_calls import read_json_sequence, read_tagged_json
from asa_adapter.notations.python_literals import literal_text, literal_value
from asa_adapter.notations.tool_call import Reading, ToolCall, skip_space

_MAX_CALL_CHARACTERS = 100_000

_REST = r"|(?P<name>[^\W\d][\w.-]*)|(?P<number>\d[\w.]*)|(?P<other>.)"
_STRICT = re.compile(r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""" + _REST, re.DOTALL)
# A quote belongs to the text where what follows it cannot follow a string: 'it's so'.
_LOOSE = re.compile(
    r"""(?P<string>(?P<quote>["'])(?:\\.|[^\\])*?(?P=quote)(?=\s*(?:[,)\]}:]|\Z)))""" + _REST, re.DOTALL
)


def read_pythonic(text: str, begin: int, limit: int) -> Reading:
    """Reads `[f(a="x"), g()]`, with or without the brackets, up to the first call that cannot be read."""
    strict = _read_list(text, begin, len(text), _STRICT)
    if strict.whole:
        return strict
    # A loose string may end late or never, so it must not leave the block.
    loose = _read_list(text, begin, limit, _LOOSE)
    return loose if loose.whole else strict


def read_pythonic_or_json(text: str, begin: int, limit: int) -> Reading:
    """Reads `[f(a="x"), g()]`, or JSON, which a system prompt can ask for instead (LFM2, LFM2.5, Llama 4)."""
    reading = read_json_sequence(text, begin, limit)
    return reading if reading.whole else read_pythonic(text, begin, limit)


def read_llama3(text: str, begin: int, limit: int) -> Reading:
    """Reads JSON, `<function=f>{json}</function>`, or `brave_search.call(query="x")` of a built-in tool (Llama 3)."""
    if text.startswith("<function=", skip_space(text, begin)):
        return read_tagged_json(text, begin, limit)
    calls, whole, end = read_pythonic_or_json(text, begin, limit)
    return Reading([ToolCall(call.name.removesuffix(".call"), call.arguments) for call in calls], whole, end)


def write_pythonic(calls: Sequence[ToolCall]) -> str:
    """Writes calls as one Python list (LFM2, LFM2.5, Llama 4).

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
    """Reads a list of calls with one of the two token patterns."""
    calls: list[ToolCall] = []
    texts, whole, end = _split_python_calls(text, begin, stop, tokens)
    for part in texts:
        try:
            calls.append(_read_python_call(part, tokens))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return Reading(calls, False, begin)
    return Reading(calls, whole, end)


def _split_python_calls(text: str, begin: int, stop: int, tokens: re.Pattern[str]) -> tuple[list[str], bool, int]:
    """The texts of the calls in Python, whether they end as they should, and where they end."""
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


def _read_python_call(text: str, tokens: re.Pattern[str]) -> ToolCall:
    """Reads one `name(keyword=value, ...)` with the syntax tree alone.

    Names are replaced first, so that names Python does not allow can be read: `send-mail(from="x")`.
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
        warnings.simplefilter("ignore")  # of "\\d" in a string, which the model wrote, not the user
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
    """A string literal with its line ends and its inner quotes escaped."""
    quote, inner = text[0], text[1:-1]
    escaped = re.sub(rf"\\.|{quote}", lambda m: m[0] if len(m[0]) == 2 else f"\\{quote}", inner, flags=re.DOTALL)
    return quote + escaped.replace("\r", "\\r").replace("\n", "\\n") + quote
