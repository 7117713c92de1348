"""Writes skops files of logistic regressions, and reads them without trusting them.

A file is audited before skops reads it: names and sizes of its members, a closed list of node types, array headers.

skops itself builds some two hundred types that it trusts by default, reads a member as often as the schema names it,
and has no size limits. Here a file may hold only logistic regressions, and each member is read at most once.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers
from sklearn.linear_model import LogisticRegression

from asa_adapter.errors import AdapterFormatError
from asa_adapter.files import MIB, decode_utf8
from asa_adapter.parts.linear import fitted_logistic
from asa_adapter.strict_json import parse_json

try:
    import skops.io
except NameError as error:  # raised in a module of transformers that skops imports
    raise ImportError(
        f"transformers {transformers.__version__} cannot be used with skops where Pillow is missing: install pillow, "
        "or transformers 5.21 or newer"
    ) from error


_MAX_UNPACKED = 128 * MIB
_MAX_MEMBERS = 1000
_MAX_SCHEMA = 4 * MIB
_MAX_COEFFICIENT = 1e30  # above this, a stored coefficient times a state could overflow float32
_MAX_TEXT = 64 * 4  # bytes of one entry of a text array: domain names have at most 64 characters
_SCHEMA = "schema.json"
_PLACE = re.compile(r'(?<="__id__": )\d+|\d+(?=\.npy")')  # of an object in memory, in a schema
_ARRAY = re.compile(r"[0-9]{1,24}\.npy")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# (loader, module, class) of every node in the schema of a stored classifier.
_NODES = {
    ("ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression"),
    ("DictNode", "builtins", "dict"),
    ("ListNode", "builtins", "list"),
    ("JsonNode", "builtins", "str"),
    ("NdArrayNode", "numpy", "ndarray"),
    ("TypeNode", "builtins", "str"),
}


def audit_skops(content: bytes, name: str) -> None:
    """Refuses a skops file that holds anything but logistic regressions, or is too large.

    Args:
        content: the bytes of the file.
        name: how errors name the file.

    Raises:
        AdapterFormatError: the file is refused, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(archive.infolist(), name)
            schema = parse_json(decode_utf8(archive.read(_SCHEMA), name), f"{name}: refused: {_SCHEMA}")
            for member in sorted(_array_members(schema, name)):
                _check_array(archive, member, name)
    except AdapterFormatError:
        raise
    # zipfile and numpy raise many types of errors for damaged files; they all mean the same to the user.
    except Exception as error:
        raise AdapterFormatError(f"{name}: refused: {type(error).__name__}: {str(error)[:200]}") from error


def _check_members(members: list[zipfile.ZipInfo], name: str) -> None:
    """Checks number, sizes, names and compression of a skops file's members, as its directory states them."""
    if len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > _MAX_UNPACKED:
        raise AdapterFormatError(f"{name}: unpacks to more than {_MAX_UNPACKED // MIB} MiB or {_MAX_MEMBERS} members")
    names = [member.filename for member in members]
    if odd := [n for n in names if n != _SCHEMA and not _ARRAY.fullmatch(n)]:
        raise AdapterFormatError(f"{name}: refused: a member is called {odd[0]!r:.80}; expected {_SCHEMA} and arrays")
    if len(set(names)) != len(names):
        raise AdapterFormatError(f"{name}: refused: two members have the same name")
    for member in members:
        if member.compress_type not in _METHODS or member.flag_bits & 1:
            raise AdapterFormatError(f"{name}: refused: {member.filename} is compressed or encrypted in another way")
        if member.filename == _SCHEMA and member.file_size > _MAX_SCHEMA:
            raise AdapterFormatError(
                f"{name}: refused: {_SCHEMA} has {member.file_size} bytes; expected at most {_MAX_SCHEMA}"
            )


def _array_members(schema: Any, name: str) -> set[str]:
    """Checks every node of a skops file's schema; returns the names of the members that hold its arrays."""
    if not isinstance(schema, dict):
        raise AdapterFormatError(f"{name}: refused: {_SCHEMA} holds a {type(schema).__name__}; expected an object")
    owners: dict[str, int] = {}
    for node in _schema_nodes(schema):
        kind = tuple(node.get(key) for key in ("__loader__", "__module__", "__class__"))
        if not all(isinstance(part, str) for part in kind):
            raise AdapterFormatError(f"{name}: refused: a part of {_SCHEMA} names no type")
        if kind not in _NODES:
            raise AdapterFormatError(f"{name}: holds a {kind[2]:.80}; expected a LogisticRegression")
        if kind[0] != "NdArrayNode":
            continue
        file, owner = node.get("file"), node.get("__id__")
        if node.get("type") != "numpy" or not isinstance(file, str) or type(owner) is not int:
            raise AdapterFormatError(f"{name}: refused: an array without a member of its own")
        # skops reads a member once for each node id, so two ids of one member would read it twice.
        if owners.setdefault(file, owner) != owner:
            raise AdapterFormatError(f"{name}: refused: two arrays are said to be in {file!r:.80}")
    return set(owners)


def _schema_nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a schema that skops could read as a node, breadth-first."""
    layer: list[Any] = [schema]
    while layer:
        yield from (value for value in layer if isinstance(value, dict) and (value is schema or "__loader__" in value))
        layer = [
            inner
            for value in layer
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]


def _check_array(archive: zipfile.ZipFile, member: str, name: str) -> None:
    """Refuses a skops file's arrays of Python objects, and those whose header does not match their member's size."""
    size = archive.getinfo(member).file_size
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise AdapterFormatError(f"{name}: refused: {member} is in another version of numpy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        held = size - file.tell()
    if dtype.kind not in "biufcU" or dtype.itemsize > _MAX_TEXT or len(shape) > 2:
        raise AdapterFormatError(f"{name}: refused: {member} is an array of {dtype!s:.80} in {len(shape)} dimensions")
    expected = dtype.itemsize
    for length in shape:
        expected *= length
    if min(shape, default=0) < 0 or expected != held:
        raise AdapterFormatError(f"{name}: refused: {member} holds {held} bytes; its header says {expected}")


def dump_skops(value: Any) -> bytes:
    """The bytes of a skops file with an estimator or a dict of them, always the same for the same.

    skops names objects by their place in memory, and files in a zip have a date; here they are counted and have none.
    """
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(value))) as made:
        contents = {name: made.read(name) for name in made.namelist()}
    schema = contents.pop(_SCHEMA).decode()
    places = dict.fromkeys(_PLACE.findall(schema))
    numbers = {place: str(number) for number, place in enumerate(places)}
    schema = _PLACE.sub(lambda found: numbers[found[0]], schema)
    named = {f"{numbers[name.removesuffix('.npy')]}.npy": content for name, content in contents.items()}
    buffer = io.BytesIO()
    # The schema has about ten kilobytes for each estimator, most of them the same, so they compress well.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
        for name, content in [*named.items(), (_SCHEMA, schema.encode())]:
            written.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def load_skops(content: bytes, name: str) -> Any:
    """Reads the bytes of a skops file after `audit_skops`; `name` is how errors name the file.

    Raises:
        AdapterFormatError: the file is refused, or damaged.
    """
    audit_skops(content, name)
    try:
        return skops.io.loads(content, trusted=[])
    # A hostile file can make skops raise any error; they all mean the same to the user.
    except Exception as error:
        raise AdapterFormatError(f"{name}: refused: {type(error).__name__}: {str(error)[:200]}") from error


def checked_estimator(estimator: Any, name: str, rows: int, hidden_size: int) -> LogisticRegression:
    """A new estimator with the coefficients, classes, C and seed of one in a skops file; nothing else is kept.

    Raises:
        AdapterFormatError: not a LogisticRegression; coefficients that are not floats of shape (rows, hidden_size),
            not finite, or beyond 1e30; or classes that are neither names nor integers.
    """
    if type(estimator) is not LogisticRegression:
        raise AdapterFormatError(f"{name}: holds a {type(estimator).__name__}; expected a LogisticRegression")
    shapes = {"coef_": (rows, hidden_size), "intercept_": (rows,)}
    for attribute, shape in shapes.items():
        value = getattr(estimator, attribute, None)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.shape != shape:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise AdapterFormatError(f"{name}: {attribute} is {found}; expected floats of shape {shape}")
        if not (np.abs(value) <= _MAX_COEFFICIENT).all():
            raise AdapterFormatError(f"{name}: {attribute} holds NaN, infinity, or numbers beyond 1e30")
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1 or classes.dtype.kind not in "iU":
        raise AdapterFormatError(f"{name}: classes_ is {classes!r:.80}; expected names or 0 and 1")
    C, seed = getattr(estimator, "C", None), getattr(estimator, "random_state", None)
    return fitted_logistic(
        classes,
        estimator.coef_,
        estimator.intercept_,
        C if type(C) is float and C > 0 else 1.0,
        seed if type(seed) is int and seed >= 0 else 42,
    )
