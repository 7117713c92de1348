"""skops files of logistic regressions, written, and read without trusting them.

A file is looked at before skops reads it: names, sizes, a closed list of nodes, array headers.

skops itself builds some two hundred types that it trusts, reads every member that a schema names as often as it is
named, and has no limits. Here a file may hold logistic regressions and nothing else, each member once.
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
from asa_adapter.files import MIB, decode_utf8, parse_json
from asa_adapter.steering.linear import fitted_logistic

try:
    import skops.io
except NameError as error:  # transformers' own, at one of its modules that skops looks at
    raise ImportError(
        f"transformers {transformers.__version__} cannot be used with skops where Pillow is missing: install pillow, "
        "or transformers 5.21 or newer"
    ) from error


_MAX_UNPACKED = 128 * MIB
_MAX_MEMBERS = 1000
_MAX_SCHEMA = 4 * MIB
_MAX_TEXT = 64 * 4  # bytes of one entry of a text array: domain names have at most 64 characters
_SCHEMA = "schema.json"
_ARRAY = re.compile(r"[0-9]{1,24}\.npy")
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# (loader, module, class) of every node that a stored classifier is made of.
_NODES = {
    ("ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression"),
    ("DictNode", "builtins", "dict"),
    ("ListNode", "builtins", "list"),
    ("JsonNode", "builtins", "str"),
    ("NdArrayNode", "numpy", "ndarray"),
    ("TypeNode", "builtins", "str"),
}


def audit_skops(content: bytes, name: str) -> None:
    """Refuses a skops file that holds anything but logistic regressions, or too much.

    Args:
        content: the file.
        name: how errors name it.

    Raises:
        AdapterFormatError: the file is refused; a damaged one too.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_members(archive.infolist(), name)
            schema = parse_json(decode_utf8(archive.read(_SCHEMA), name), f"{name}: refused: {_SCHEMA}")
            for member in sorted(_array_members(schema, name)):
                _check_array(archive, member, name)
    except AdapterFormatError:
        raise
    # zipfile and numpy fail in many ways on damaged files; every way means the same to the user.
    except Exception as error:
        raise AdapterFormatError(f"{name}: refused: {type(error).__name__}: {str(error)[:200]}") from error


def _check_members(members: list[zipfile.ZipInfo], name: str) -> None:
    """Number, sizes, names and compression of a zip's members, by its directory alone."""
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
    """The members that the schema's arrays stand in; every node is checked on the way."""
    if not isinstance(schema, dict):
        raise AdapterFormatError(f"{name}: refused: {_SCHEMA} holds a {type(schema).__name__}; expected an object")
    owners: dict[str, int] = {}
    for node in _nodes(schema):
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
        # skops reads a member again for each node that names it, but one that it met before.
        if owners.setdefault(file, owner) != owner:
            raise AdapterFormatError(f"{name}: refused: two arrays are said to be in {file!r:.80}")
    return set(owners)


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a schema that skops could take for a node, the outermost first."""
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
    """Refuses an array of objects, and one whose header says more than its member holds."""
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


# Beyond this, a stored coefficient times a state could leave the range of float32.
_MAX_COEFFICIENT = 1e30


def dump_skops(value: Any) -> bytes:
    """The skops file of estimators, one or a dict of them."""
    # A schema of ten kilobytes stands beside each estimator's coefficients; most of it is the same again and again.
    return skops.io.dumps(value, compression=zipfile.ZIP_DEFLATED)


def load_skops(content: bytes, name: str) -> Any:
    """An object from a skops file, which may hold nothing but logistic regressions."""
    audit_skops(content, name)
    try:
        return skops.io.loads(content, trusted=[])
    # A hostile file can make the reader fail in any way; every way means the same to the user.
    except Exception as error:
        raise AdapterFormatError(f"{name}: refused: {type(error).__name__}: {str(error)[:200]}") from error


def checked_estimator(estimator: Any, name: str, rows: int, hidden_size: int) -> LogisticRegression:
    """A new estimator with the coefficients and classes of a stored one; nothing else of that is kept."""
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
