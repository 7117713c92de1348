"""Reading and writing files without trusting them: size limits, regular files only, atomic writes."""

import codecs
import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from asa_adapter.errors import AdapterFormatError
from asa_adapter.strict_json import strict_json

MIB = 1024 * 1024
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_CURE = "in place of the file itself: run `git lfs install` once and then `git lfs pull`"
_NEXT = ".asa-next"
_UNFINISHED = ".asa-unfinished-"
_ABANDONED_AFTER = 24 * 3600  # seconds
_ATTEMPTS = 100


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
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError as error:
        raise AdapterFormatError(f"{path.name}: missing from {path.parent}") from error
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


def replace_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, all of them or none: whoever reads finds all of the old or all of the new.

    The folder itself cannot be swapped: it may hold notes, plots and a `.git`, be a link, or lie where nothing else
    can be written. So all new files are written into a folder inside it, and one renaming of that to `.asa-next` is
    the moment from which they count. Each file is then moved to its place, in any order, because `read_current` takes
    a file from `.asa-next` as long as it is there. What was interrupted in between reads right, and the next save ends
    it first. Of two saves at once, one stays.

    Args:
        folder: where to write; created if missing. Other files in it stay.
        files: content by name, which may be in a folder of its own, such as "plots/a.png".

    Raises:
        OSError: something cannot be written. The old files are there still, or all the new ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned_saves(folder)
    unfinished = folder / f"{_UNFINISHED}{secrets.token_hex(8)}"
    try:
        for name, content in files.items():
            if (folder / name).is_dir():
                raise IsADirectoryError(f"cannot write {folder / name}: it is a folder; expected a file, or nothing")
            (folder / name).parent.mkdir(exist_ok=True)
            (unfinished / name).parent.mkdir(parents=True, exist_ok=True)
            _write_through(unfinished / name, content)
        _commit_save(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _move_files_in_place(folder)


def read_current(folder: Path, name: str, limit: int) -> bytes:
    """The bytes of a file that `replace_files` wrote, or that lies in the folder otherwise.

    Raises:
        AdapterFormatError: missing, not a regular file, or larger than `limit`.
    """
    moving = folder / _NEXT / name
    if moving.exists():
        try:
            return read_bounded(moving, limit)
        except ValueError:
            if moving.exists():  # else it was moved to its place meanwhile
                raise
    return read_bounded(folder / name, limit)


def _write_through(path: Path, content: bytes) -> None:
    """Writes a file to the disk itself: the renaming must not get there first."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _commit_save(unfinished: Path, folder: Path) -> None:
    """Makes a save's written files count, after those of another save that was not ended."""
    for _ in range(_ATTEMPTS):
        try:
            os.rename(unfinished, folder / _NEXT)
            return
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise OSError(f"cannot write into {folder}: {_NEXT} in it is no folder; move it elsewhere") from error
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        _move_files_in_place(folder)
    raise OSError(f"cannot write into {folder}: {_NEXT} in it cannot be emptied; move what is in there elsewhere")


def _move_files_in_place(folder: Path) -> None:
    """Moves what counts already to where it belongs; another process may be at it too."""
    moving = folder / _NEXT
    for place, _, names in os.walk(moving, topdown=False):
        target = folder / Path(place).relative_to(moving)
        target.mkdir(exist_ok=True)
        for name in names:
            with suppress(FileNotFoundError):
                os.replace(Path(place) / name, target / name)
        with suppress(OSError):
            os.rmdir(place)


def _remove_abandoned_saves(folder: Path) -> None:
    """Removes what saves that were killed long ago had begun to write."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_AFTER:
                shutil.rmtree(path, ignore_errors=True)


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


def read_data_text(path: Path) -> str:
    """The text of a user's data file, without a byte-order mark.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a Git LFS pointer in place of it, or not UTF-8.
    """
    if (content := path.read_bytes()).startswith(LFS_POINTER):
        raise ValueError(f"a Git LFS pointer, {LFS_CURE}")
    return content.decode("utf-8-sig")


def read_jsonl(path: Path) -> list[tuple[int, Any]]:
    """The values of a JSON-lines file with their line numbers; empty lines and byte-order marks are skipped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not JSON; the message names the file and the line.
    """
    rows: list[tuple[int, Any]] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(LFS_POINTER):
                raise ValueError(f"{path}: a Git LFS pointer, {LFS_CURE}")
            if line.removeprefix(codecs.BOM_UTF8).strip():
                try:
                    rows.append((number, strict_json(line.decode("utf-8-sig"))))
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: not valid JSON: {error}") from error
    return rows
