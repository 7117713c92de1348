"""Reading and writing files without trusting them: size limits, regular files only, strict JSON, atomic writes."""

import codecs
import hashlib
import json
import math
import os
import re
import stat
import tempfile
import threading
from pathlib import Path
from typing import Any

from asa_adapter.errors import AdapterFormatError

MIB = 1024 * 1024
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Links are followed (files in the Hub's cache are links); their target must be a regular file, which is checked
    before anything is opened, so that a pipe cannot block the reader.

    Raises:
        AdapterFormatError: missing, not a regular file, or too large.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise AdapterFormatError(f"{path.name}: missing from {path.parent}") from error
    if not stat.S_ISREG(status.st_mode):
        raise AdapterFormatError(f"{path.name}: expected a regular file in {path.parent}")
    if status.st_size > limit:
        raise AdapterFormatError(f"{path.name}: {status.st_size} bytes; expected at most {limit}")
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise AdapterFormatError(f"{path.name}: grew past {limit} bytes while it was read")
    return content


def decode_utf8(content: bytes, source: str) -> str:
    """The text of a UTF-8 file.

    Raises:
        AdapterFormatError: not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise AdapterFormatError(f"{source}: not UTF-8 text ({error.reason} at byte {error.start})") from error


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


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes a file so that readers see the old content or the new, never a part of either."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def looks_like_path(name: str) -> bool:
    """Whether a name can only mean a file or folder, not a repository on the Hub."""
    return name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name


def make_writable_folder(folder: Path) -> None:
    """Makes a folder and checks that it can be written to, before hours of work depend on it.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"cannot write into {folder}: {error.strerror}") from error


def read_jsonl(path: Path) -> list[tuple[int, Any]]:
    """The values of a JSON-lines file with their line numbers; empty lines and byte-order marks are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not JSON; the message names the file and the line.
    """
    rows: list[tuple[int, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.removeprefix(codecs.BOM_UTF8).strip():
                try:
                    rows.append((number, strict_json(line.decode("utf-8-sig"))))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
    return rows
