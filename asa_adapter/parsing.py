"""`ToolCallParser`: finds and reads the tool calls in a model's answer. Malformed text is data, never an exception."""

import ast
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema
import referencing

_MAX_CALL_CHARACTERS = 100_000


@dataclass(frozen=True)
class ToolCall:
    """One call as the model wrote it: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolCallFormat:
    """How a family of models writes calls: the markers around them, and Pythonic or JSON inside."""

    start: str
    end: str
    pythonic: bool


FORMATS = {
    "lfm2": ToolCallFormat("<|tool_call_start|>", "<|tool_call_end|>", pythonic=True),
    "hermes": ToolCallFormat("<tool_call>", "</tool_call>", pythonic=False),
}


class ToolCallParser:
    """Reads tool calls in one format.

    Args:
        format: "lfm2" (LFM2, LFM2.5: a Pythonic list of calls between special tokens) or "hermes" (Qwen 2.5/3,
            Hermes: one JSON object per block).

    Raises:
        ValueError: another format.

    Example:
        >>> parser = ToolCallParser("lfm2")
        >>> parser.parse('<|tool_call_start|>[add(a=1, b="x")]<|tool_call_end|>')
        [ToolCall(name='add', arguments={'a': 1, 'b': 'x'})]
    """

    def __init__(self, format: str) -> None:
        if format not in FORMATS:
            raise ValueError(f"tool-call format {format!r} is not known; expected one of {', '.join(FORMATS)}")
        self.format = format
        self.start = FORMATS[format].start
        self.end = FORMATS[format].end

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> "ToolCallParser":
        """The parser whose start marker the tokenizer has as a token, or its chat template writes.

        Raises:
            ValueError: neither names a known marker.
        """
        vocabulary = tokenizer.get_vocab()
        template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else ""
        for name, known in FORMATS.items():
            if known.start in vocabulary or known.start in template:
                return cls(name)
        raise ValueError(
            "the tokenizer has no tool-call marker that is known here "
            f"({', '.join(known.start for known in FORMATS.values())}); give ToolCallParser a format by name"
        )

    def triggered(self, text: str) -> bool:
        """Whether a tool call begins anywhere in the text (decoded with its special tokens)."""
        return self.start in text

    def parse(self, text: str) -> list[ToolCall]:
        """The calls that could be read, in their order; [] where there are none."""
        return [call for payload in self._payloads(text) for call in self._read(payload)[0]]

    def check(self, text: str, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Holds one answer against the offered tools.

        Args:
            text: the answer, decoded with its special tokens.
            tools: JSON-schema tools, bare or wrapped in {"type": "function", "function": ...}.

        Returns:
            triggered, format (every payload could be read), tool_name (every call names an offered tool), arguments
            (every call's arguments fit the tool's schema), and errors: what was wrong, in words.
        """
        payloads = self._payloads(text)
        read = [self._read(payload) for payload in payloads]
        flat = [call for calls, _ in read for call in calls]
        offered = {schema.get("name"): schema for schema in map(unwrapped, tools)}
        errors = [
            f"not readable as a call: {payload:.80}"
            for payload, (calls, whole) in zip(payloads, read, strict=True)
            if not (calls and whole)
        ]
        readable = bool(flat) and not errors
        unknown = [call.name for call in flat if call.name not in offered]
        errors += [f"no such tool: {name}" for name in unknown]
        misfits = [
            f"{call.name}: {misfit}"
            for call in flat
            if call.name in offered
            for misfit in _schema_errors(call.arguments, offered[call.name])
        ]
        return {
            "triggered": self.triggered(text),
            "format": readable,
            "tool_name": readable and not unknown,
            "arguments": readable and not unknown and not misfits,
            "errors": errors + misfits,
        }

    def _payloads(self, text: str) -> list[str]:
        """What stands behind each start marker, up to the end marker or the end of the text."""
        return [part.split(self.end, 1)[0].strip() for part in text.split(self.start)[1:]]

    def _read(self, payload: str) -> tuple[list[ToolCall], bool]:
        """The calls of one payload, and whether that is all of it."""
        if len(payload) > _MAX_CALL_CHARACTERS:
            return [], False
        calls, whole = _pythonic_calls(payload) if FORMATS[self.format].pythonic else ([], False)
        if not calls and (found := _json_calls(payload)):
            return found, True
        return calls, whole


def unwrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The bare schema of a tool given bare or as {"type": "function", "function": ...}."""
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<name>[^\W\d][\w.-]*)|(?P<number>\d[\w.]*)|(?P<other>.)""",
    re.DOTALL,
)


def _pythonic_calls(payload: str) -> tuple[list[ToolCall], bool]:
    """Reads `[f(a="x"), g(b=[1])]`, list or bare, up to the first call that cannot be read.

    Models write it loosely: keywords as argument names, line ends inside strings, numbers with leading zeros.
    """
    calls = []
    texts, whole = _split_calls(payload)
    for text in texts:
        try:
            calls.append(_read_call(text))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return calls, False
    return calls, whole


def _split_calls(payload: str) -> tuple[list[str], bool]:
    """The texts of the calls in a list, and whether the list ends where it should."""
    inner = payload[1:] if payload.startswith("[") else f"{payload}]"
    texts, start, depth = [], 0, 0
    for token in _TOKEN.finditer(inner):
        symbol = token["other"]
        if symbol in ("(", "[", "{"):
            depth += 1
        elif depth and symbol in (")", "]", "}"):
            depth -= 1
        elif not depth and symbol in (",", "]"):
            texts.append(inner[start : token.start()].strip())
            start = token.end()
            if symbol == "]":
                return [text for text in texts if text], not inner[start:].strip()
        elif symbol in ('"', "'"):
            return texts, False  # a string that does not end
    return [*texts, inner[start:].strip()], False


def _read_call(text: str) -> ToolCall:
    """Reads one `name(keyword=value, ...)` with the syntax tree alone: nothing is evaluated.

    Names are taken out first, so that `send-mail(from="x")` is as good as any.
    """
    names: dict[str, str] = {}
    parts = []
    tokens = [(str(token.lastgroup), token[0]) for token in _TOKEN.finditer(text)]
    for i, (kind, part) in enumerate(tokens):
        following = next((other for _, other in tokens[i + 1 :] if other.strip()), "")
        if kind == "name" and following in ("(", "="):
            names[f"name_{i}"] = part
            part = f"name_{i}"
        elif kind == "string":
            part = part.replace("\r", "\\r").replace("\n", "\\n")
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
        arguments[name] = _literal(keyword.value)
    return ToolCall(names[node.func.id], arguments)


_WORDS = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr) -> Any:
    """A literal's value; JSON's true, false and null are read too."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("expected plain keys")
        return {
            str(ast.literal_eval(key)): _literal(value)
            for key, value in zip(node.keys, node.values, strict=True)
            if key
        }
    value = ast.literal_eval(node)
    if not isinstance(value, str | int | float | bool | None):
        raise ValueError("expected a JSON value")
    return value


def _json_calls(payload: str) -> list[ToolCall]:
    """Reads one {"name", "arguments"} object or a list of them; `parameters` is taken for `arguments`."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return []
    calls = []
    for item in value if isinstance(value, list) else [value]:
        arguments = item.get("arguments", item.get("parameters", {})) if isinstance(item, dict) else None
        if not isinstance(arguments, dict) or not isinstance(item.get("name"), str):
            return []
        calls.append(ToolCall(item["name"], arguments))
    return calls


def _schema_errors(arguments: dict[str, Any], tool: Mapping[str, Any]) -> list[str]:
    """What the tool's schema finds wrong; unknown names and empty required strings are wrong too."""
    schema = tool.get("parameters") or {}
    try:
        # An empty registry: a schema may refer to its own parts, never to a file or an address.
        validator = jsonschema.Draft202012Validator(dict(schema), registry=referencing.Registry())
        found = [error.message[:120] for error in validator.iter_errors(arguments)]
        properties = dict(schema.get("properties") or {})
        if schema.get("additionalProperties") is None:
            found += [f"unknown argument {name!r}" for name in arguments if name not in properties]
        return found + [f"{name!r} is empty" for name in schema.get("required") or [] if arguments.get(name) == ""]
    # A tool's schema is a stranger's text; there is no end to the ways in which it can be broken.
    except Exception as error:
        return [f"cannot be held against the tool's schema: {type(error).__name__}: {str(error)[:120]}"]
