"""A stranger's JSON: read strictly, and the part of it that fits a schema."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from asa_adapter.errors import AdapterFormatError

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, source: str) -> Any:
    """A stored file's JSON, read strictly.

    Raises:
        AdapterFormatError: not what `strict_json` reads, or text that UTF-8 cannot hold.
    """
    try:
        value = strict_json(text)
        if _HALF_CHARACTER.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair could not be written again
        return value
    except (ValueError, RecursionError) as error:
        raise AdapterFormatError(f"{source}: not valid JSON: {error}") from error


def strict_json(text: str) -> Any:
    """The value of JSON text, without the extensions of Python's reader: no double keys, no NaN, no infinity.

    Raises:
        ValueError: not such JSON.
        RecursionError: nested too deep.
    """
    return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=no_constant, parse_float=finite_number)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some JSON, in which no key stands twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double!r:.80} stands twice in one object")
    return result


def no_constant(name: str) -> float:
    """Refuses NaN and infinity, as json's `parse_constant`."""
    raise ValueError(f"found {name}; expected finite numbers")


def finite_number(digits: str) -> float:
    """Refuses numbers beyond a float's range, as json's `parse_float`."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"found {digits:.40}; expected finite numbers")
    return number


def number_within(low: float, high: float) -> dict[str, Any]:
    """The schema of a number in a range."""
    return {"type": "number", "minimum": low, "maximum": high}


def list_of(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of a list whose entries fit a schema; `more` are further words of JSON Schema."""
    return {"type": "array", "items": schema, **more}


def by_name(schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of an object whose values fit a schema, whatever their names."""
    return {"type": "object", "additionalProperties": schema, **more}


def with_keys(required: Iterable[str] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object with some keys, each of a schema of its own."""
    return {"type": "object", "properties": properties, "required": list(required)}


_TYPES = {"boolean": (bool,), "integer": (int,), "number": (int, float)}
_MOST = 10_000


def sound(value: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yields the part of a value that fits a schema, else the schema's default; nothing where it has none.

    An object loses the entries that do not fit or that the schema does not name. A list must fit as a whole, of which
    the first 10,000 entries count. Anything else counts as an empty object or list.
    """
    kind, fits = schema.get("type"), True
    if kind == "object":
        given = value if isinstance(value, Mapping) else {}
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        required = set(schema.get("required", ()))
        names = [] if required - given.keys() else known if others is None else given
        value = {n: part for n in names if isinstance(n, str) for part in sound(given.get(n), known.get(n, others))}
        fits = value.keys() >= required
    elif kind == "array":
        listed = value[:_MOST] if isinstance(value, list | tuple) else [value] if "x-one" in schema else []
        value = [part for entry in listed for part in sound(entry, schema["items"])]
        fits = len(value) == len(listed) and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", _MOST)
    elif kind == "string":
        fits = isinstance(value, str) and len(value) >= schema.get("minLength", 0)
    elif kind is not None:
        fits = type(value) in _TYPES[kind] and schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if fits:
        yield float(value) if kind == "number" else value
    elif "default" in schema:
        yield schema["default"]
