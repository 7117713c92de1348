"""Checks of one field: what a name, a number, a text or a list of tools may be, and how an error says otherwise."""

import json
import math
import re

MAX_ALPHA = 1000.0
_MAX_DEPTH = 64
MAX_DOMAINS = 256
MAX_LISTS = 64
_MAX_TOKENS = 256
VECTORS_NAME, ROUTER_NAME, PROBES_NAME = "steering_vectors.safetensors", "router.skops", "probes.skops"
PROBE_KINDS = ("domain", "pooled")
ACTIONS = ("steer", "bias", "both")
# Kinds of state in which a prompt ends: behind the user's turn, and behind a tool's result.
STATES = ("first", "after_result")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def finite_float(name: str, value: object) -> float:
    """The value of a field as a float, checked.

    Raises:
        TypeError: not an int or float; a bool is not a number.
        ValueError: not finite.
    """
    if type(value) not in (int, float):
        raise TypeError(f"{name} is {value!r:.80}; expected a number")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; expected a finite number")
    return number


def bias_amount(value: object) -> float:
    """A bias of logits as a float; without limit it is `math.inf`, or the text "inf" of a stored config.

    Raises:
        TypeError: neither an int or float nor "inf".
        ValueError: negative, or not a number.
    """
    if value == "inf" or value == math.inf:
        return math.inf
    if (amount := finite_float("bias", value)) < 0:
        raise ValueError(f"bias is {amount:g}; expected 0 or more: the gate gives the sign")
    return amount


def checked_domains(domains: object) -> tuple[str, ...]:
    """Domain names as a tuple.

    Raises:
        TypeError: not a list or tuple of str.
        ValueError: no name or too many, two equal ones, or one that is not 1 to 64 printable characters.
    """
    if not isinstance(domains, list | tuple):
        raise TypeError(f"domains is {domains!r:.80}; expected a tuple of str")
    if not 1 <= len(domains) <= MAX_DOMAINS:
        raise ValueError(f"there are {len(domains)} domains; expected 1 to {MAX_DOMAINS}")
    for name in domains:
        if type(name) is not str:
            raise TypeError(f"a domain is {name!r:.80}; expected a str")
        if not 1 <= len(name) <= 64 or not name.isprintable() or name != name.strip():
            raise ValueError(f"a domain is {name!r:.80}; expected 1 to 64 printable characters, no space around them")
    if len(set(domains)) != len(domains):
        raise ValueError(f"domains are {list(domains)!r:.200}; expected different names")
    return tuple(domains)


def check_text(name: str, value: object, longest: int = 512) -> None:
    """Refuses anything but None or a text of 1 to `longest` characters; a name that ends in "_sha256" needs 64 digits.

    Raises:
        TypeError: neither a str nor None.
        ValueError: another length, or not a SHA-256.
    """
    if value is None:
        return
    if type(value) is not str:
        raise TypeError(f"{name} is {value!r:.80}; expected a str or None")
    if not 1 <= len(value) <= longest:
        raise ValueError(f"{name} has {len(value)} characters; expected 1 to {longest}, or None")
    if name.endswith("_sha256") and not _SHA256.fullmatch(value):
        raise ValueError(f"{name} is {value!r:.80}; expected 64 hexadecimal digits")


def check_tool_list(tools: object) -> None:
    """Refuses anything but None or a list of JSON-schema tools.

    Raises:
        TypeError: another type.
        ValueError: they cannot be written as JSON.
    """
    if tools is None:
        return
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise TypeError(f"tools is {tools!r:.80}; expected a list of JSON-schema tools or None")
    check_json("tools", tools)


def check_json(name: str, value: object) -> None:
    """Refuses what cannot be written as JSON, or is nested too deep.

    Raises:
        ValueError: it cannot be written, or is nested too deep.
    """
    if _nesting_depth(value) > _MAX_DEPTH:
        raise ValueError(f"{name} is nested more than {_MAX_DEPTH} levels deep")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} cannot be written as JSON: {error}") from error


def _nesting_depth(value: object) -> int:
    """Levels of nesting; counting stops soon after the limit."""
    level, layer = 0, [value]
    while layer and level <= _MAX_DEPTH:
        level += 1
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list | tuple)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return level


def check_file_digests(files: object) -> None:
    """Refuses a value of the field `files` that is anything but SHA-256 by file name.

    Raises:
        TypeError: not a dict.
        ValueError: a name that is not a str, or a value that is not a SHA-256.
    """
    if not isinstance(files, dict):
        raise TypeError(f"files is {files!r:.80}; expected a dict of SHA-256 by file name")
    for name, digest in files.items():
        if type(name) is not str or type(digest) is not str or not _SHA256.fullmatch(digest):
            raise ValueError(
                f"files holds {name!r:.80}: {digest!r:.80}; expected a file name and 64 hexadecimal digits"
            )


def check_token_ids(name: str, ids: object) -> tuple[int, ...]:
    """Token ids as a tuple.

    Raises:
        TypeError: not a list or tuple of int (a bool is no int).
        ValueError: an id is negative or beyond 2^31, or there are more than 256.
    """
    if not isinstance(ids, list | tuple) or any(type(token) is not int for token in ids):
        raise TypeError(f"{name} is {ids!r:.80}; expected token ids")
    if len(ids) > _MAX_TOKENS:
        raise ValueError(f"{name} holds {len(ids)} token ids; expected at most {_MAX_TOKENS}")
    if wrong := [token for token in ids if not 0 <= token < 2**31]:
        raise ValueError(f"{name} holds {wrong[0]}; expected token ids, 0 to 2^31 - 1")
    return tuple(ids)


def check_digests(name: str, digests: object) -> tuple[str, ...]:
    """SHA-256 digests as a tuple.

    Raises:
        TypeError: not a list or tuple of str.
        ValueError: one of them is not a SHA-256.
    """
    if not isinstance(digests, list | tuple) or any(type(digest) is not str for digest in digests):
        raise TypeError(f"{name} is {digests!r:.80}; expected SHA-256 digests")
    if wrong := [digest for digest in digests if not _SHA256.fullmatch(digest)]:
        raise ValueError(f"{name} holds {wrong[0]!r:.80}; expected 64 hexadecimal digits")
    return tuple(digests)


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number below `low` or above `high`.

    Raises:
        ValueError: it is outside.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} holds {value:g}; expected {low:g} to {high:g}")
