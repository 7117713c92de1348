"""Values of a stranger's JSON, taken where they are of the expected kind: what is not is empty, or None."""

from collections.abc import Mapping
from typing import Any

_MOST_ENTRIES = 10_000
_MOST = 1e300  # a whole number in JSON may be longer than any float


def as_dict(value: Any) -> dict[str, Any]:
    """The entries of a mapping that have a text for a key; an empty dict for anything else."""
    return {key: part for key, part in value.items() if isinstance(key, str)} if isinstance(value, Mapping) else {}


def as_list(value: Any) -> list[Any]:
    """The first 10,000 entries of a list; an empty one for anything else."""
    return list(value[:_MOST_ENTRIES]) if isinstance(value, list | tuple) else []


def is_count(value: Any) -> bool:
    """Whether something is a whole number of things."""
    return type(value) is int and 0 <= value < 10**12


def is_index(name: str) -> bool:
    """Whether a key is a number such as a layer's."""
    return name.isascii() and name.isdecimal() and len(name) < 6


def is_within(value: Any, low: float = -_MOST, high: float = _MOST) -> bool:
    """Whether something is a finite number, and not below `low` nor above `high`."""
    return type(value) in (int, float) and low <= value <= high


def numbers_of(value: Any) -> dict[str, float]:
    """The entries of a mapping that are finite numbers."""
    return {name: float(number) for name, number in as_dict(value).items() if is_within(number)}


def interval_of(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, the smaller first; None for anything else."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_within, value)):
        return None
    return (float(value[0]), float(value[1])) if value[0] <= value[1] else None
