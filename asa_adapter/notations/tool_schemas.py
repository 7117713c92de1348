"""The tools that a prompt offers: their JSON schemas, and whether a call's arguments fit one."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import jsonschema
import referencing
import referencing.exceptions
from referencing.jsonschema import DRAFT202012

from asa_adapter.notations.schema_contradictions import contradiction

Tools = Sequence[Mapping[str, Any] | Callable[..., Any]]

# What a regular expression of a schema may be, so that no text makes it try more than one way for each of its
# characters: single characters and classes, each once or a given number of times, and one of them at most as often
# as it likes.
_ATOM = r"(?:\\(?:[dDwWsS]|\W)|\[\^?(?:[^\[\]\\]|\\.)+\]|[^\\()\[\]{}*+?|^$])"
_FIXED = rf"(?:{_ATOM}(?:\{{\d{{1,3}}\}})?)*"
_PLAIN_PATTERN = re.compile(rf"\^?{_FIXED}(?:{_ATOM}(?:[*+?]|\{{\d{{1,3}},\d{{0,3}}\}}){_FIXED})?\$?")
_LONGEST_PATTERN = 200
# To compile a range of many characters takes milliseconds: so many may be in a schema's patterns together.
_MOST_RANGES = 100
_MOST_CHARACTERS = 20_000  # of a schema's patterns that are compiled
_WIDE = re.compile(r"[^\x00-\x7f]|\\[uUN]")
_MOST_STEPS = 20_000


def tool_schemas(tools: Tools | None) -> list[dict[str, Any]]:
    """The tools as JSON schemas; Python functions are described by their type hints and Google-style docstrings.

    Raises:
        TypeError: a tool is neither a schema nor a function.
        ValueError: a function lacks a docstring, or an argument its type or description.
    """
    return [_tool_schema(tool) for tool in tools or []]


def unwrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The bare schema of a tool given bare or as {"type": "function", "function": ...}.

    Example:
        >>> unwrapped({"type": "function", "function": {"name": "f"}})
        {'name': 'f'}
    """
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def properties(tool: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The schemas of a tool's arguments, by name; {} if they are missing or malformed."""
    parameters = (tool or {}).get("parameters")
    found = parameters.get("properties") if isinstance(parameters, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def schema_errors(arguments: dict[str, Any], tool: Mapping[str, Any]) -> list[str]:
    """The errors by the tool's schema; unknown arguments and empty required strings are errors too.

    A schema is a stranger's text, so it is read in bounded time: at most 20,000 of its keywords are tried on the
    arguments, and a `pattern` that could make the search explode is left out.

    Example:
        >>> tool = {"parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}
        >>> schema_errors({"n": "3", "m": 1}, tool)
        ["'3' is not of type 'integer'", "unknown argument 'm'"]
    """
    schema = tool.get("parameters") or {}
    try:
        # An empty registry: a schema may refer to its own parts, never to a file or a URL.
        plain = _with_plain_patterns(dict(schema), _SchemaEffort())
        in_parts = schema.get("additionalProperties") is None and bool(_PARTS & schema.keys())
        if in_parts and plain.get("patternProperties") == schema.get("patternProperties"):
            plain = {"unevaluatedProperties": False, **plain}
        validator = _Validator(plain, registry=referencing.Registry())
        _steps.set(iter(range(_MOST_STEPS)))
        found = [error.message[:120] for error in validator.iter_errors(arguments)]
        known = dict(schema.get("properties") or {})
        if schema.get("additionalProperties") is None and not in_parts:
            found += [f"unknown argument {name!r}" for name in arguments if name not in known]
        return found + [f"{name!r} is empty" for name in schema.get("required") or [] if arguments.get(name) == ""]
    # A tool's schema is a stranger's text, which can be malformed in any way.
    except Exception as error:
        return [f"cannot be held against the tool's schema: {type(error).__name__}: {str(error)[:120]}"]


# Words of JSON Schema that may name arguments beside `properties`.
_PARTS = {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas"}
_PARTS |= {"patternProperties"}

_steps: ContextVar[Iterator[int]] = ContextVar("steps")


def _counted_keyword(keyword: Callable[..., Any]) -> Callable[..., Any]:
    """A keyword of the validator that counts how often it is tried: references to references double at each."""

    def tried(*given: Any) -> Any:
        if next(_steps.get(), None) is None:
            raise RuntimeError(f"more than {_MOST_STEPS} of its keywords would have to be tried")
        return keyword(*given)

    return tried


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {name: _counted_keyword(keyword) for name, keyword in jsonschema.Draft202012Validator.VALIDATORS.items()},
)


class _SchemaEffort:
    """How much of a schema's patterns may still be compiled."""

    def __init__(self) -> None:
        self._ranges, self._characters = _MOST_RANGES, _MOST_CHARACTERS

    def compiles(self, pattern: str) -> bool:
        """Whether a pattern was compiled; False where that could take long.

        Raises:
            re.error: it is not a regular expression.
        """
        self._ranges -= pattern.count("-") if _WIDE.search(pattern) else 0
        self._characters -= len(pattern)
        if self._ranges < 0 or self._characters < 0:
            return False
        re.compile(pattern)
        return True


def _with_plain_patterns(schema: Any, effort: _SchemaEffort) -> Any:
    """A schema without the patterns that are not plain, and without `$schema`, which would choose another validator.

    Raises:
        re.error: a short pattern is not a regular expression.
    """
    if isinstance(schema, list):
        return [_with_plain_patterns(part, effort) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for name, value in schema.items():
        if isinstance(value, str) and (
            name == "$schema" or (name == "pattern" and not _is_plain_pattern(value, effort))
        ):
            continue
        if name == "patternProperties" and isinstance(value, dict):
            value = {pattern: part for pattern, part in value.items() if _is_plain_pattern(pattern, effort)}
        kept[name] = _with_plain_patterns(value, effort)
    return kept


def _is_plain_pattern(pattern: str, effort: _SchemaEffort) -> bool:
    short = len(pattern) <= _LONGEST_PATTERN and effort.compiles(pattern)
    return short and _PLAIN_PATTERN.fullmatch(pattern) is not None


# Words of JSON Schema of which an object's schema has one at its top.
_KEYWORDS = {"type", "properties", "required", "additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf"}
_KEYWORDS |= {"propertyNames", "minProperties", "maxProperties", "$ref", "$defs", "definitions", "$schema"}
_TYPES = {
    "str",
    "int",
    "float",
    "bool",
    "list",
    "dict",
    "string",
    "number",
    "integer",
    "boolean",
    "array",
    "object",
    "null",
}
# Words that no check of arguments reads, so that a mistake in them does no harm.
_REMARKS = {"description", "title", "default", "examples", "format", "deprecated", "readOnly", "writeOnly", "$comment"}
_OF_VALUES = _REMARKS | {"enum", "const"}
# Words whose objects have schemas under names that are not words of JSON Schema.
_OF_SCHEMAS = {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
_OTHER_NAMES = ("input_schema", "inputSchema", "parameters_schema")


def parameters_fault(tool: Mapping[str, Any]) -> str | None:
    """Why no call of a tool can be valid, in words that go on after the tool's name; None where calls can.

    Example:
        >>> parameters_fault({"name": "f", "parameters": {"city": "string"}})[:47]
        "has parameters with 'city', but no word of JSON"
        >>> parameters_fault({"name": "f", "parameters": {"type": "object"}}) is None
        True
    """
    expected = '; expected {"type": "object", "properties": {...}}'
    parameters = tool.get("parameters")
    if other := [name for name in _OTHER_NAMES if name in tool and parameters is None]:
        return f"has its schema under {other[0]!r}; expected it under 'parameters'"
    if parameters is None:
        return None
    if not isinstance(parameters, Mapping):
        return f"has parameters that are no JSON schema: {parameters!r:.80}{expected}"
    if parameters and not _KEYWORDS & parameters.keys():
        return f"has parameters with {next(iter(parameters))!r:.80}, but no word of JSON Schema{expected}"
    kind = parameters.get("type", "object")
    if "object" not in (kind if isinstance(kind, list) else [kind]):
        return f"has parameters of type {kind!r:.80}{expected}"
    loose = [name for name in parameters.keys() - _KEYWORDS - _REMARKS if _describes_argument(parameters[name])]
    if loose and "properties" not in parameters:
        return f"has parameters with {min(loose)!r:.80} outside `properties`{expected}"
    meta = jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA)
    for error in meta.iter_errors(dict(parameters)):
        path = [str(part) for part in error.absolute_path]
        if not _is_harmless_mistake(path, error.instance):
            place = ".".join(path) or "its top"
            return f"has parameters that are no JSON schema: {error.instance!r:.80} at {place}{expected}"
    return _impossible_parameters(parameters)


def _impossible_parameters(parameters: Mapping[str, Any]) -> str | None:
    """Why no arguments could fit a JSON schema, or could not be held against it; None where they can."""
    parts = list(_schema_parts(parameters))
    effort = _SchemaEffort()
    for pattern in (part["pattern"] for part in parts if isinstance(part.get("pattern"), str)):
        try:
            effort.compiles(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            return f"has the pattern {pattern!r:.80}, which Python does not read ({error}); write it otherwise"
    if not any("$id" in part for part in parts):  # an id changes what references mean
        resolver = referencing.Registry().resolver_with_root(DRAFT202012.create_resource(dict(parameters)))
        for reference in (part["$ref"] for part in parts if isinstance(part.get("$ref"), str)):
            try:
                resolver.lookup(reference)
            except (referencing.exceptions.Unresolvable, ValueError):
                return f"refers to {reference!r:.80}, which is not in its parameters; expected such as '#/$defs/name'"
    if "additionalProperties" not in parameters and not _PARTS & parameters.keys():
        for name in parameters.get("required") or []:
            if name not in (parameters.get("properties") or {}):
                return f"requires {name!r:.80}, which is not among its `properties`"
    fault = contradiction(parameters, _fits_schema)
    return f"has parameters that no call can fit: it {fault}" if fault else None


def _fits_schema(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits a schema; True where that cannot be told."""
    try:
        _steps.set(iter(range(_MOST_STEPS)))
        return bool(
            _Validator(_with_plain_patterns(dict(schema), _SchemaEffort()), registry=referencing.Registry()).is_valid(
                value
            )
        )
    # A tool's schema is a stranger's text, which can be malformed in any way.
    except Exception:
        return True


def _schema_parts(schema: Any, word: str = "") -> Iterator[Mapping[str, Any]]:
    """A schema and those in it; values, such as those of `enum`, are none."""
    if isinstance(schema, Mapping):
        if word not in _OF_SCHEMAS:
            yield schema
        for name, inner in schema.items():
            if word in _OF_SCHEMAS or name not in _OF_VALUES:
                yield from _schema_parts(inner, "" if word in _OF_SCHEMAS else name)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _schema_parts(inner)


def _describes_argument(value: Any) -> bool:
    """Whether a value says of which type an argument is."""
    return value in _TYPES if isinstance(value, str) else isinstance(value, Mapping) and "type" in value


def _is_harmless_mistake(path: Sequence[str], value: Any) -> bool:
    """Whether a mistake in a schema leaves calls valid: in a remark, or an argument's own `required: true`."""
    if not path or path[-2:-1] == ["properties"]:
        return False
    if path[-1] == "required" and isinstance(value, bool) and len(path) > 1:
        return True
    return any(word in _REMARKS and path[i - 1 : i] != ["properties"] for i, word in enumerate(path))


def _tool_schema(tool: Any) -> dict[str, Any]:
    """A tool as a JSON schema."""
    if isinstance(tool, Mapping):
        return dict(tool)
    if not callable(tool):
        raise TypeError(f"a tool is {tool!r:.80}; expected a JSON schema (dict) or a Python function")
    from transformers.utils import get_json_schema  # type: ignore[attr-defined]

    try:
        return dict(get_json_schema(tool))
    # transformers raises three exceptions of its own here, some of them from private modules.
    except Exception as error:
        name = getattr(tool, "__name__", repr(tool))
        raise ValueError(f"the function {name!r} cannot be offered as a tool: {error}") from error


def tool_names(tools: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """The names of JSON-schema tools."""
    return [str(unwrapped(tool).get("name")) for tool in tools or []]


def tool_name(tool: Mapping[str, Any]) -> str:
    """The name of a tool, "" where it has none."""
    return str(unwrapped(tool).get("name") or "")
