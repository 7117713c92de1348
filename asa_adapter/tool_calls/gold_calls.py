"""Whether the calls of an answer are the ones that a data set expects."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from asa_adapter.notations.tool_call import ToolCall, given_call

# What the BFCL benchmark ignores when it compares texts.
_BLURRED = re.compile(r"[ ,./\-_*^]")


def matches_gold(calls: Sequence[ToolCall], gold: Sequence[Mapping[str, Any]], *, ordered: bool = False) -> bool:
    """Whether the calls are the expected ones, each once and no other.

    1 and 1.0 are equal; "1" and true differ from both. An argument with a list of accepted values must have one of
    them: texts are then compared without case, spaces and `,./-_*^`, and "" in the list means that the argument may
    be left out (BFCL's possible answers).

    Args:
        calls: the calls of an answer.
        gold: expected calls: {"name", "arguments"}, or with "allowed" {argument: accepted values} in place of
            arguments; also OpenAI's {"function": {...}} and BFCL's {name: {argument: accepted values}}.
        ordered: whether they must also be in the order given; calls that can run in parallel have no order.

    Raises:
        ValueError: a gold call has another shape.

    Example:
        >>> calls = [ToolCall("weather", {"city": "new york", "days": 3})]
        >>> matches_gold(calls, [{"weather": {"city": ["New York", "NYC"], "days": [3, ""]}}])
        True
        >>> matches_gold(calls, [{"name": "weather", "arguments": {"city": "Paris", "days": 3}}])
        False
    """
    expected = [_expected_call(item) for item in gold]
    if len(calls) != len(expected):
        return False
    if ordered:
        return all(_fits_gold_call(call, item) for call, item in zip(calls, expected, strict=True))
    return _each_has_its_own([[i for i, item in enumerate(expected) if _fits_gold_call(call, item)] for call in calls])


def gold_names(gold: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of the tools that gold calls call.

    Raises:
        ValueError: a gold call has another shape than `matches_gold` takes.
    """
    return [_expected_call(item).name for item in gold]


class _ExpectedCall(NamedTuple):
    """One gold call: the value of each argument, or its accepted values in `allowed`, which then decides."""

    name: str
    arguments: dict[str, Any]
    allowed: dict[str, list[Any]] | None


def _expected_call(item: Any) -> _ExpectedCall:
    """What a gold call expects of a call."""
    inner: Any = item.get("function", item) if isinstance(item, Mapping) else None
    if isinstance(inner, Mapping) and len(inner) == 1 and not {"name", "arguments", "parameters"} & inner.keys():
        ((name, allowed),) = inner.items()
        inner = {"name": name, "allowed": allowed}
    call = given_call(inner)
    if call is None:
        raise ValueError(f"a gold call is {item!r:.80}; expected a name and an object of arguments")
    allowed = inner.get("allowed")
    if allowed is None:
        return _ExpectedCall(call.name, call.arguments, None)
    if not isinstance(allowed, Mapping) or not all(isinstance(values, list) for values in allowed.values()):
        raise ValueError(f"a gold call allows {allowed!r:.80}; expected a list of values for each argument")
    return _ExpectedCall(call.name, call.arguments, dict(allowed))


def _fits_gold_call(call: ToolCall, expected: _ExpectedCall) -> bool:
    """Whether a call is the expected one."""
    if call.name != expected.name:
        return False
    if expected.allowed is None:
        return _same_gold_value(call.arguments, expected.arguments)
    return _accepted_arguments(call.arguments, expected.allowed)


def _accepted_arguments(value: Any, allowed: Mapping[str, Any]) -> bool:
    """Whether each argument has an accepted value, and only optional ones are missing."""
    if not isinstance(value, dict) or not value.keys() <= allowed.keys():
        return False
    return all(
        any(_accepted_value(value[key], choice) for choice in _accepted_choices(choices))
        if key in value
        else "" in _accepted_choices(choices)
        for key, choices in allowed.items()
    )


def _accepted_value(value: Any, choice: Any) -> bool:
    """Whether a value fits one that a gold call accepts, in which objects have lists of accepted values inside."""
    if isinstance(choice, dict):
        return _accepted_arguments(value, choice)
    if isinstance(choice, list):
        return (
            isinstance(value, list)
            and len(value) == len(choice)
            and all(_accepted_value(v, c) for v, c in zip(value, choice, strict=True))
        )
    if isinstance(value, str) and isinstance(choice, str):
        return _blurred_text(value) == _blurred_text(choice)
    return _same_gold_value(value, choice)


def _accepted_choices(choices: Any) -> list[Any]:
    return choices if isinstance(choices, list) else [choices]


def _blurred_text(text: str) -> str:
    """A text as gold calls are compared: without what does not count."""
    return _BLURRED.sub("", text).lower().replace("'", '"')


def _same_gold_value(a: Any, b: Any) -> bool:
    """Equality of a value and a gold call's: numbers by value, booleans are not numbers, objects have no order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same_gold_value(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_same_gold_value(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def _each_has_its_own(options: list[list[int]]) -> bool:
    """Whether each call can be matched to a gold call of its own (augmenting paths; lists of calls are short)."""
    taken: dict[int, int] = {}

    def place(call: int, seen: set[int]) -> bool:
        for item in options[call]:
            if item not in seen:
                seen.add(item)
                if item not in taken or place(taken[item], seen):
                    taken[item] = call
                    return True
        return False

    return all(place(call, set()) for call in range(len(options)))
