"""What a stranger can do with an adapter's files: rewrite them, checksums and all. And how such files are refused."""

import hashlib
import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from models import fitted_adapter
from slowness import slowness

from asa_adapter import AdapterFormatError, ASAAdapter
from asa_adapter.hub.checked_files import SIZE_LIMITS

CONFIG, VECTORS, ROUTER, PROBES, REPORT = SIZE_LIMITS
PAYLOAD = (VECTORS, ROUTER, PROBES, REPORT)
DOMAINS = ("code", "math")
SECONDS, MEBIBYTES = 10.0, 300.0  # seconds on the machine of `slowness`


def sound_files(folder: Path) -> dict[str, bytes]:
    """The files of a sound adapter."""
    fitted_adapter(DOMAINS).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def sealed(contents: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The same files under a config whose checksums are right, with changed fields."""
    values = {**json.loads(contents[CONFIG]), **changes}
    if "files" not in changes:
        values["files"] = {name: hashlib.sha256(contents[name]).hexdigest() for name in PAYLOAD}
    rest = {key: value for key, value in values.items() if key != "config_sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()
    values["config_sha256"] = hashlib.sha256(canonical).hexdigest()
    return {**contents, CONFIG: json.dumps(values).encode()}


def members(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@contextmanager
def bounded(seconds: float = SECONDS, mebibytes: float = MEBIBYTES) -> Iterator[None]:
    """Fails where what is inside takes longer (of the processor's time) or holds more memory at once."""
    slow = slowness()
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
    finally:
        took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    allowed = seconds * max(slow, slowness())
    assert took < allowed, f"it took {took:.1f} s, {allowed:.1f} are allowed"
    assert peak < mebibytes, f"it held {peak:.0f} MiB"


def refused(folder: Path, message: str) -> None:
    """Asserts that a folder is refused with a message of its own, soon, and without much memory."""
    with bounded(), pytest.raises(AdapterFormatError, match=message):
        ASAAdapter.from_pretrained(folder)
