"""`ToolCallParser`: finds and reads the tool calls in a model's answer. Malformed text is data, never an exception."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jsonschema

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
        return [call for payload in self._payloads(text) for call in self._read(payload)]

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
        calls = [self._read(payload) for payload in payloads]
        flat = [call for group in calls for call in group]
        offered = {schema.get("name"): schema for schema in map(unwrapped, tools)}
        errors = [
            f"not readable as a call: {payload:.80}"
            for payload, group in zip(payloads, calls, strict=True)
            if not group
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

    def _read(self, payload: str) -> list[ToolCall]:
        if len(payload) > _MAX_CALL_CHARACTERS:
            return []
        if FORMATS[self.format].pythonic:
            return _pythonic_calls(payload) or _json_calls(payload)
        return _json_calls(payload)


def unwrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The bare schema of a tool given bare or as {"type": "function", "function": ...}."""
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _pythonic_calls(payload: str) -> list[ToolCall]:
    """Reads `[f(a="x"), g(b=[1])]` with the syntax tree alone: nothing is evaluated."""
    source = payload if payload.startswith("[") else f"[{payload}]"
    try:
        tree = ast.parse(source, mode="eval").body
        if not isinstance(tree, ast.List):
            return []
        return [_call_from_node(node) for node in tree.elts]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


_WORDS = {"true": True, "false": False, "null": None}


def _call_from_node(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args or not re.fullmatch(r"[\w.]+", ast.unparse(node.func)):
        raise ValueError("expected name(keyword=value, ...)")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError("expected each keyword once")
        arguments[keyword.arg] = _literal(keyword.value)
    return ToolCall(ast.unparse(node.func), arguments)


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
    if not isinstance(schema, Mapping):
        return [f"the tool's parameters are {schema!r:.40}, not a JSON schema"]
    try:
        found = [error.message[:120] for error in jsonschema.Draft202012Validator(dict(schema)).iter_errors(arguments)]
    except (jsonschema.SchemaError, jsonschema.exceptions.UnknownType, TypeError, RecursionError) as error:
        return [f"the tool's schema cannot be used: {str(error)[:120]}"]
    properties = schema.get("properties") or {}
    if schema.get("additionalProperties") is None:
        found += [f"unknown argument {name!r}" for name in arguments if name not in properties]
    found += [f"{name!r} is empty" for name in schema.get("required") or [] if arguments.get(name) == ""]
    return found
