"""The folder "judged" in an adapter's: the fit that VALID judged, before that with VALID's rows took its place."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from asa_adapter.errors import AdapterFormatError
from asa_adapter.hub.folder import JUDGED_FOLDER, Parts, read_folder
from asa_adapter.report import Report

KNOWS_VALID = (
    "the adapter was fitted once more with VALID's rows, and the fit that was judged there is not at hand: figures "
    f"on VALID are too good. It lies in the folder {JUDGED_FOLDER!r} of what the trainer wrote, and is not pushed to "
    "the Hub"
)


class _Digested(Protocol):
    """What tells by a digest what it does."""

    report: dict[str, Any] | None

    def digest(self) -> str: ...


Made = TypeVar("Made", bound=_Digested)


def judged_digest(adapter: _Digested) -> str | None:
    """The digest of the fit that VALID judged, by an adapter's report; None where that is the adapter itself."""
    found: str | None = Report.read(adapter.report).refit.get("judged")
    return None if found is None or found == adapter.digest() else found


def judged_in_folder(
    adapter: Made, source: Path | None, make: Callable[[Parts], Made], *, leave_damaged: bool = False
) -> Made | None:
    """The fit that VALID judged, made of an adapter's folder; None where there is none, or one of another adapter.

    Args:
        adapter: the adapter.
        source: its folder; None where it came from the Hub.
        make: makes an adapter of its parts.
        leave_damaged: whether a damaged one counts as none, with a warning.

    Raises:
        AdapterFormatError: it is damaged.
    """
    expected = judged_digest(adapter)
    if expected is None or source is None or not (source / JUDGED_FOLDER).is_dir():
        return None
    try:
        found = make(read_folder(source, JUDGED_FOLDER))
    except AdapterFormatError as error:
        if not leave_damaged:
            raise
        warnings.warn(f"the fit that was judged on VALID is left out, since it is damaged: {error}", stacklevel=4)
        return None
    return found if found.digest() == expected else None


def report_of_copy(report: Mapping[str, Any] | None, judged: _Digested | None) -> dict[str, Any] | None:
    """What holds of an adapter's report for a copy that acts otherwise: whether VALID's rows are known to it.

    Args:
        report: the adapter's.
        judged: the fit that VALID judged, acting otherwise, too; None where it is not at hand.
    """
    again = dict(Report.read(report).refit)
    if not again:
        return None
    return {"refit": again if judged is None else again | {"judged": judged.digest()}}
