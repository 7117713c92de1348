"""Finds JSON schemas that nothing can fit, such as a minimum above its maximum; what is doubtful counts as sound."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Of a schema; a larger one is taken as sound.
_MOST_PARTS = 2000
_MOST_VALUES = 200
_ALL_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
# Pairs of keywords of which the first may not be above the second, by type.
_BOUNDS = {
    "object": (("minProperties", "maxProperties"),),
    "array": (("minItems", "maxItems"),),
    "string": (("minLength", "maxLength"),),
    "number": (("minimum", "maximum"),),
    "integer": (("minimum", "maximum"),),
}

Fits = Callable[[Any, Mapping[str, Any]], bool]


def contradiction(schema: Mapping[str, Any], fits: Fits) -> str | None:
    """Why no object can fit a JSON schema, as "requires 'a', but ..."; None where one can, or that is not sure.

    Args:
        schema: a sound JSON schema of an object.
        fits: whether a value fits a schema; decides which values of `enum` and `const` are left.

    Example:
        >>> number = {"type": "integer", "minimum": 5, "maximum": 1}
        >>> contradiction({"properties": {"a": number}, "required": ["a"]}, lambda *_: True)
        "requires 'a', but its minimum 5 is above its maximum 1"
    """
    search = _ContradictionSearch(schema, fits)
    try:
        return search.fault(schema, ("object",))
    except _TooLargeError:
        return None


class _TooLargeError(Exception):
    """The schema has more parts than are looked at."""


class _ContradictionSearch:
    def __init__(self, root: Mapping[str, Any], fits: Fits) -> None:
        self._root = root
        self._fits = fits
        self._parts = 0
        self._open: list[str] = []

    def fault(self, schema: Any, types: Sequence[str] = _ALL_TYPES) -> str | None:
        """Why no value of some types can fit a schema."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _TooLargeError
        if schema is False:
            return "is false"
        if not isinstance(schema, Mapping):
            return None
        if not (types := self._types(schema, types)):
            return "has no type that fits"
        values = _only_values(schema)
        # Many values are taken on trust: each is held against the whole schema.
        if values is not None and len(values) <= _MOST_VALUES and not self._any_fits(values, schema):
            return f"fits none of its values {values!r:.80}"
        if "not" in schema and schema["not"] in ({}, True):
            return "fits nothing, by its `not`"
        if fault := self._of_parts(schema, types):
            return fault
        faults = [self._of_type(schema, kind) for kind in types]
        return next((fault for fault in faults if fault), None) if all(faults) else None

    def _any_fits(self, values: Sequence[Any], schema: Mapping[str, Any]) -> bool:
        whole = self._whole(schema)
        return any(self._fits(value, whole) for value in values)

    def _types(self, schema: Mapping[str, Any], types: Sequence[str]) -> tuple[str, ...]:
        """The types among those given that a schema and the parts that it must fit allow."""
        given = schema.get("type", list(_ALL_TYPES))
        named = {str(name) for name in (given if isinstance(given, list) else [given])}
        named |= {"integer"} & set(types) if "number" in named else set()
        found = tuple(name for name in types if name in named)
        for part in schema.get("allOf") or []:
            found = self._types(part, found) if isinstance(part, Mapping) else found
        return found

    def _whole(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """A schema with the definitions that its references are looked up in."""
        return {**schema, **{name: self._root[name] for name in ("$defs", "definitions") if name in self._root}}

    def _of_parts(self, schema: Mapping[str, Any], types: Sequence[str]) -> str | None:
        """The fault of parts that a value must fit beside the schema itself."""
        for part in schema.get("allOf") or []:
            if fault := self.fault(part, types):
                return fault
        for word in ("anyOf", "oneOf"):
            faults = [self.fault(part, types) for part in schema.get(word) or []]
            if faults and all(faults):
                return f"fits no part of its {word}, since {_fault_of_part('the first', faults[0])}"
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return None
        if reference in self._open:
            return f"refers to itself by {reference!r:.80} without an end"
        target = self._target(reference)
        if target is None:
            return None
        self._open.append(reference)
        fault = self.fault(target, types)
        self._open.pop()
        return fault

    def _target(self, reference: str) -> Any:
        """The part of the schema that a reference of the form "#/a/b" names; None for any other."""
        target: Any = self._root
        for word in reference.removeprefix("#").split("/")[1:] if reference.startswith("#") else [""]:
            target = target.get(word) if isinstance(target, Mapping) else None
        return target

    def _of_type(self, schema: Mapping[str, Any], kind: str) -> str | None:
        """Why no value of one type can fit."""
        for low, high in _BOUNDS.get(kind, ()):
            if low in schema and high in schema and schema[low] > schema[high]:
                return f"its {low} {schema[low]} is above its {high} {schema[high]}"
        if kind in ("number", "integer"):
            return _number_fault(schema, kind)
        if kind == "array" and schema.get("minItems", 0) > len(schema.get("prefixItems") or []):
            fault = self.fault(schema.get("items"))
            return f"needs items, but {_fault_of_part('an item', fault)}" if fault else None
        return self._of_object(schema) if kind == "object" else None

    def _of_object(self, schema: Mapping[str, Any]) -> str | None:
        required = schema.get("required") or []
        if len(set(required)) > schema.get("maxProperties", math.inf):
            return f"requires {len(set(required))} arguments, but its maxProperties is {schema['maxProperties']}"
        known = schema.get("properties") or {}
        for name in required:
            if name in known and (fault := self.fault(known[name]) or _empty_text_fault(known[name])):
                return f"requires {name!r:.80}, but {_fault_of_part('that', fault)}"
            closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
            if name not in known and closed:
                return f"requires {name!r:.80}, but its additionalProperties is false"
        return None


def _fault_of_part(subject: str, fault: str | None) -> str:
    """What is wrong with a part of a schema, as a clause about it."""
    return fault if fault and fault.startswith("its ") else f"{subject} {fault}"


def _only_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """The only values that a schema names; None where it names none."""
    found = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return found if isinstance(found, list) else None


def _empty_text_fault(schema: Any) -> str | None:
    """Why a required argument could only be an empty text, which is taken for a missing one."""
    if not isinstance(schema, Mapping):
        return None
    only_empty = _only_values(schema) == [""] or (schema.get("type") == "string" and schema.get("maxLength") == 0)
    return "can only be an empty text" if only_empty else None


def _number_fault(schema: Mapping[str, Any], kind: str) -> str | None:
    """Why no number is within the bounds of a schema."""
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    if kind == "integer" and math.isfinite(max(low, above)) and math.isfinite(min(high, below)):
        least = math.floor(above) + 1 if above >= low else math.ceil(low)
        most = math.ceil(below) - 1 if below <= high else math.floor(high)
        return "its bounds leave no whole number" if least > most else None
    return "its bounds leave no number" if above >= high or low >= below or above >= below else None
