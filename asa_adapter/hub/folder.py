"""An adapter as a folder: which files it has, how large each may be, and how they are read without trusting them."""

import json
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from asa_adapter.config.asa_config import CONFIG_NAME, ASAConfig
from asa_adapter.config.value_checks import PROBES_NAME, ROUTER_NAME, VECTORS_NAME
from asa_adapter.errors import AdapterFormatError
from asa_adapter.files import LFS_POINTER, MIB, decode_utf8, read_current, replace_files, sha256
from asa_adapter.hub.card import PLOTS_FOLDER, model_card
from asa_adapter.hub.card_signature import is_unedited, signed
from asa_adapter.hub.checked_files import (
    REPORT_NAME,
    SIZE_LIMITS,
    config_and_report,
    config_of,
    file_content,
    read_checked_files,
    report_of,
)
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.parts.vectors import SteeringVectors
from asa_adapter.pictures.report_figures import PLOT_NAMES, plots
from asa_adapter.report import Report

CARD_NAME = "README.md"
CARD_LIMIT = MIB
JUDGED_FOLDER = "judged"


class Parts(NamedTuple):
    """What an adapter is made of."""

    config: ASAConfig
    vectors: SteeringVectors
    router: Router
    probes: Probes
    report: dict[str, Any] | None


def write_folder(
    folder: Path,
    parts: Parts,
    repo_id: str | None = None,
    source: Path | None = None,
    judged: Parts | None = None,
) -> None:
    """Writes an adapter with its card and its plots into a folder: all of it, or nothing (see `replace_files`).

    A card that was edited, in the folder or in the one that the adapter came from, stays as it is, with a warning.

    Args:
        folder: where to write; created if missing. Files that are not an adapter's stay.
        parts: what to write.
        repo_id: the repository that the card's usage example names, where it is known.
        source: the folder that the adapter was last loaded from or saved in.
        judged: the fit that VALID judged, if another took its place; it gets a folder of its own in there.

    Raises:
        ValueError: the adapter could not be loaded again, such as for its size; nothing was written.
        OSError: the folder or a file cannot be written.
    """
    files, report = _loadable_files(parts), Report.read(parts.report)
    drawn = plots(report)
    files |= {f"{PLOTS_FOLDER}/{name}": picture for name, picture in drawn.items()}
    before = {} if judged is None else _loadable_files(judged._replace(report=None))
    files |= {f"{JUDGED_FOLDER}/{name}": content for name, content in before.items()}
    places = {place.resolve(): place for place in (source, folder) if place}
    edited = {place: card for place in places.values() if (card := edited_card(place)) is not None}
    for place, card in edited.items():
        found = "was edited, or another version wrote it,"
        if card.encode().startswith(LFS_POINTER):
            found, edited[place] = "is a Git LFS pointer in place of the card (`git lfs pull` fetches it)", ""
        warnings.warn(
            f"{place / CARD_NAME} {found} and stays as it is; to have it written from config and report, delete it "
            "and save or push again",
            stacklevel=3,
        )
    others = sorted({path.name for path in (folder / PLOTS_FOLDER).glob("*.png")} - {*PLOT_NAMES, *drawn})
    card = model_card(parts.config, report, repo_id, [*drawn, *others])
    if folder not in edited:
        files[CARD_NAME] = next(filter(None, edited.values()), signed(card)).encode()
    replace_files(folder, files)
    stale = [f"{PLOTS_FOLDER}/{name}" for name in PLOT_NAMES] + [f"{JUDGED_FOLDER}/{name}" for name in SIZE_LIMITS]
    for name in stale:
        if name not in files:
            with suppress(FileNotFoundError, NotADirectoryError):
                (folder / name).unlink()
    with suppress(OSError):  # missing, or not empty
        (folder / JUDGED_FOLDER).rmdir()


def replace_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Writes another report into an adapter's folder, and its checksum into the config; nothing else changes.

    Args:
        folder: the adapter's.
        report: the new report.

    Raises:
        AdapterFormatError: the folder does not hold a sound adapter.
        ValueError: the report is too large, or holds what JSON cannot.
        OSError: the folder or a file cannot be written.
    """
    config, content = read_folder(folder).config, _report_json(report)
    if len(content) > SIZE_LIMITS[REPORT_NAME]:
        raise ValueError(f"{REPORT_NAME} has {len(content)} bytes; expected at most {SIZE_LIMITS[REPORT_NAME]}")
    sealed = config.sealed({**config.files, REPORT_NAME: sha256(content)})
    replace_files(folder, {REPORT_NAME: content, CONFIG_NAME: sealed.to_json().encode()})


def _loadable_files(parts: Parts) -> dict[str, bytes]:
    """The files of a folder that hold an adapter, which was read from them once to be sure.

    Raises:
        ValueError: it cannot be read from them.
    """
    try:
        files = {
            VECTORS_NAME: parts.vectors.to_bytes(),
            ROUTER_NAME: parts.router.to_bytes(),
            PROBES_NAME: parts.probes.to_bytes(),
            REPORT_NAME: _report_json(parts.report),
        }
        config = parts.config.sealed({name: sha256(content) for name, content in files.items()})
        files[CONFIG_NAME] = config.to_json().encode()
        for name, content in files.items():
            if len(content) > SIZE_LIMITS[name]:
                raise ValueError(f"{name} has {len(content)} bytes; expected at most {SIZE_LIMITS[name]}")
        _read_parts(files)
    except ValueError as error:
        raise ValueError(f"the adapter is not saved, since it could not be loaded again: {error}") from error
    return files


def _report_json(report: Mapping[str, Any] | None) -> bytes:
    """The bytes of report.json; an empty object where there is no report.

    Raises:
        ValueError: it holds what JSON cannot.
    """
    try:
        return (json.dumps(report or {}, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{REPORT_NAME}: {error}") from error


def read_folder(folder: Path, inner: str = "") -> Parts:
    """Reads an adapter. Nothing in the folder is run, and nothing is opened before its kind and size are checked.

    Args:
        folder: the folder that was written as one.
        inner: the folder in it where the adapter lies; none for itself.

    Raises:
        AdapterFormatError: a file is missing, damaged, or not what it should be.
    """
    return read_checked_files(folder, _read_parts, inner)


def edited_card(folder: Path) -> str | None:
    """The text of a folder's card, if it is not as it was written here; None if it is, or there is none.

    A card that cannot be read counts as an empty one that was edited.
    """
    if not (folder / CARD_NAME).is_file():
        return None
    try:
        card = decode_utf8(read_current(folder, CARD_NAME, CARD_LIMIT), CARD_NAME)
    except AdapterFormatError:
        return ""
    if is_unedited(card):
        return None
    try:
        # Cards had no signature once: such a one is as it was written if it would be written so again.
        config = config_of({CONFIG_NAME: file_content(folder, CONFIG_NAME)})
        report = Report.read(report_of(file_content(folder, REPORT_NAME)))
    except AdapterFormatError:
        return card
    return None if is_unedited(card, config, report) else card


def _read_parts(files: Mapping[str, bytes]) -> Parts:
    """The adapter in the bytes of a folder's files.

    Raises:
        AdapterFormatError: one is damaged, or not what it should be.
    """
    config, report = config_and_report(files)
    width, domains = config.hidden_size, config.domains
    return Parts(
        config,
        SteeringVectors.from_bytes(files[VECTORS_NAME], width, len(domains), config.states),
        Router.from_bytes(files[ROUTER_NAME], width, domains),
        Probes.from_bytes(files[PROBES_NAME], width * len(config.reading), domains, config.states, steered=width),
        report,
    )
