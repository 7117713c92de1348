"""The files of an adapter's folder, read and checked by size and SHA-256; what is in the parts is read by `folder`.

Nothing here imports torch, so that config and report can be had at once.
"""

import codecs
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from asa_adapter.config.asa_config import CONFIG_NAME, ASAConfig
from asa_adapter.config.value_checks import PROBES_NAME, ROUTER_NAME, VECTORS_NAME
from asa_adapter.errors import AdapterFormatError
from asa_adapter.files import LFS_CURE, LFS_POINTER, MIB, decode_utf8, read_current, sha256
from asa_adapter.strict_json import parse_json

Result = TypeVar("Result")

REPORT_NAME = "report.json"
# What is read of an adapter, here or on the Hub, and the largest size of each file that is accepted.
SIZE_LIMITS = {
    CONFIG_NAME: MIB,
    VECTORS_NAME: 64 * MIB,
    ROUTER_NAME: 64 * MIB,
    PROBES_NAME: 64 * MIB,
    REPORT_NAME: 4 * MIB,
}


def read_checked_files(folder: Path, read: Callable[[dict[str, bytes]], Result], inner: str = "") -> Result:
    """What is read of an adapter's files, all of one save; their size and SHA-256 are checked.

    Args:
        folder: the adapter's folder.
        read: reads the bytes of the files, by name.
        inner: a folder in it that was written with it, which holds the files; none for itself.

    Raises:
        AdapterFormatError: a file is missing, damaged, or not what it should be.
    """
    while True:
        files = {CONFIG_NAME: file_content(folder, CONFIG_NAME, inner)}
        try:
            config = config_of(files)
            files |= {name: file_content(folder, name, inner) for name in payload_files(config)}
            for name in payload_files(config):
                check_sha256(name, files[name], config.files)
            return read(files)
        except AdapterFormatError:
            # A save in between replaces config and payload: then the new ones are read.
            if file_content(folder, CONFIG_NAME, inner) == files[CONFIG_NAME]:
                raise


def config_and_report(files: Mapping[str, bytes]) -> tuple[ASAConfig, dict[str, Any] | None]:
    """Config and report in the bytes of an adapter's files; no part is read.

    Raises:
        AdapterFormatError: one is damaged.
    """
    config = config_of(files)
    return config, report_of(files[REPORT_NAME]) if REPORT_NAME in config.files else None


def file_content(folder: Path, name: str, inner: str = "") -> bytes:
    """The bytes of one of an adapter's files, which may lie in a folder `inner` of its folder.

    Raises:
        AdapterFormatError: it is missing, too large, no regular file, or a Git LFS pointer.
    """
    content = read_current(folder, f"{inner}/{name}" if inner else name, SIZE_LIMITS[name])
    if content.startswith(LFS_POINTER):
        raise AdapterFormatError(f"{name}: a Git LFS pointer in {folder}, {LFS_CURE} there")
    return content


def config_of(files: Mapping[str, bytes]) -> ASAConfig:
    """The config in the bytes of an adapter's files.

    Raises:
        AdapterFormatError: it is damaged, or does not say what it holds.
    """
    config = ASAConfig.from_json(_json_file_text(files[CONFIG_NAME], CONFIG_NAME))
    if config.config_sha256 is None:
        raise AdapterFormatError(f"{CONFIG_NAME}: has no config_sha256, so damage would not be seen; save it again")
    return config


def payload_files(config: ASAConfig) -> list[str]:
    """The files beside the config. Folders without a report were valid once; one that is named must be there."""
    return [VECTORS_NAME, ROUTER_NAME, PROBES_NAME, *([REPORT_NAME] if REPORT_NAME in config.files else [])]


def check_sha256(name: str, content: bytes, files: Mapping[str, str]) -> None:
    """Refuses a file whose SHA-256 is not the one that the config names.

    Raises:
        AdapterFormatError: it is another, or none is named.
    """
    expected = files.get(name)
    if expected is None:
        raise AdapterFormatError(f"{CONFIG_NAME}: names no SHA-256 for {name}; save the adapter again")
    if expected in (sha256(content), name == REPORT_NAME and sha256(_with_own_line_ends(content))):
        return
    if sha256(content.replace(b"\r\n", b"\n")) != expected:
        raise AdapterFormatError(
            f"{name}: its SHA-256 is not the one in {CONFIG_NAME}; it was changed or damaged; save the adapter again"
        )
    raise AdapterFormatError(
        f"{name}: its line ends were rewritten (LF to CRLF), as Git does with text, which it is not: put "
        f"`{name} -text` into .gitattributes and check the file out again"
    )


def _json_file_text(content: bytes, name: str) -> str:
    """The text of a JSON file; a byte-order mark, which editors put before it, is left out."""
    return decode_utf8(content.removeprefix(codecs.BOM_UTF8), name)


def _with_own_line_ends(content: bytes) -> bytes:
    """A JSON file as it is written here, whatever an editor or Git made of its line ends, which mean nothing."""
    lines = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return lines.rstrip(b"\n") + b"\n"


def report_of(content: bytes) -> dict[str, Any] | None:
    """The report in its bytes; None for an empty one.

    Raises:
        AdapterFormatError: it is no JSON object.
    """
    report = parse_json(_json_file_text(content, REPORT_NAME), REPORT_NAME)
    if not isinstance(report, dict | None):
        raise AdapterFormatError(f"{REPORT_NAME}: found a {type(report).__name__}; expected a JSON object")
    return report or None
