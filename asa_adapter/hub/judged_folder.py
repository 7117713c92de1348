"""The folder "judged" in an adapter's: the fit that VALID judged, before that with VALID's rows took its place."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asa_adapter.hub.folder import JUDGED_FOLDER, Parts, read_folder
from asa_adapter.report import Report

KNOWS_VALID = (
    "the adapter was fitted once more with VALID's rows, and the fit that was judged there is not at hand: figures "
    f"on VALID are too good. It lies in the folder {JUDGED_FOLDER!r} of what the trainer wrote, and is not pushed to "
    "the Hub"
)


class _Digested(Protocol):
    """What tells by a digest what it does."""

    def digest(self) -> str: ...


Made = TypeVar("Made", bound=_Digested)


def judged_digest(report: Mapping[str, Any] | None) -> str | None:
    """The digest of the fit that VALID judged, by an adapter's report; None where that is the adapter's own."""
    found: str | None = Report.read(report).refit.get("judged")
    return found


def judged_in_folder(
    source: Path | None, report: Mapping[str, Any] | None, make: Callable[[Parts], Made]
) -> Made | None:
    """The fit that VALID judged, made of an adapter's folder; None where there is none, or one of another adapter.

    Args:
        source: the adapter's folder; None where it came from the Hub.
        report: its report.
        make: makes an adapter of its parts.

    Raises:
        AdapterFormatError: it is damaged.
    """
    expected, folder = judged_digest(report), source and source / JUDGED_FOLDER
    if expected is None or folder is None or not folder.is_dir():
        return None
    found = make(read_folder(folder))
    return found if found.digest() == expected else None
