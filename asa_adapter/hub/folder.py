"""An adapter as a folder: which files it has, how large each may be, and how they are read without trusting them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asa_adapter.config.asa_config import CONFIG_NAME, ASAConfig
from asa_adapter.errors import AdapterFormatError
from asa_adapter.files import MIB, decode_utf8, parse_json, read_bounded, sha256, write_atomic
from asa_adapter.hub.card import model_card
from asa_adapter.hub.plots import PLOT_NAMES, plots
from asa_adapter.parts.classifiers import PROBES_NAME, ROUTER_NAME, Probes, Router
from asa_adapter.parts.vectors import VECTORS_NAME, SteeringVectors
from asa_adapter.report import Report

CARD_NAME = "README.md"
REPORT_NAME = "report.json"
PLOTS_FOLDER = "plots"
# What is read of an adapter, here or on the Hub, and the largest size of each file that is accepted.
SIZE_LIMITS = {
    CONFIG_NAME: MIB,
    VECTORS_NAME: 64 * MIB,
    ROUTER_NAME: 64 * MIB,
    PROBES_NAME: 64 * MIB,
    REPORT_NAME: 4 * MIB,
}


class Parts(NamedTuple):
    """What an adapter is made of."""

    config: ASAConfig
    vectors: SteeringVectors
    router: Router
    probes: Probes
    report: dict[str, Any] | None


def write_folder(folder: Path, parts: Parts, repo_id: str | None = None) -> None:
    """Writes an adapter with its card and its plots into a folder, which is created if missing.

    The config is written last: a folder without one is not an adapter.

    Args:
        folder: where to write.
        parts: what to write.
        repo_id: the repository that the card's usage example names, where it is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload = {
        VECTORS_NAME: parts.vectors.to_bytes(),
        ROUTER_NAME: parts.router.to_bytes(),
        PROBES_NAME: parts.probes.to_bytes(),
        REPORT_NAME: _report_json(parts.report).encode(),
    }
    config = parts.config.sealed({name: sha256(content) for name, content in payload.items()})
    for name, content in payload.items():
        write_atomic(folder / name, content)
    report = Report.read(parts.report)
    shown = _write_plots(folder / PLOTS_FOLDER, plots(report))
    write_atomic(folder / CARD_NAME, model_card(config, report, repo_id, shown))
    write_atomic(folder / CONFIG_NAME, config.to_json())


def _report_json(report: Mapping[str, Any] | None) -> str:
    """The text of report.json; an empty object where there is no report."""
    return json.dumps(report or {}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write_plots(folder: Path, drawn: Mapping[str, bytes]) -> list[str]:
    """Writes plots, removes ours of an earlier report, and returns the names of all, those not ours last."""
    for name in PLOT_NAMES:
        if name not in drawn:
            (folder / name).unlink(missing_ok=True)
    if drawn:
        folder.mkdir(exist_ok=True)
    for name, content in drawn.items():
        write_atomic(folder / name, content)
    return [*drawn, *sorted(path.name for path in folder.glob("*.png") if path.name not in drawn)]


def read_folder(folder: Path) -> Parts:
    """Reads an adapter. Nothing in the folder is run, and nothing is opened before its kind and size are checked.

    Raises:
        AdapterFormatError: a file is missing, damaged, or not what it should be.
    """
    config = ASAConfig.from_json(
        decode_utf8(read_bounded(folder / CONFIG_NAME, SIZE_LIMITS[CONFIG_NAME]), CONFIG_NAME)
    )
    if config.config_sha256 is None:
        raise AdapterFormatError(f"{CONFIG_NAME}: has no config_sha256, so damage would not be seen; save it again")
    # Folders without a report were valid once; one that the config names belongs to the adapter.
    names = [VECTORS_NAME, ROUTER_NAME, PROBES_NAME, *([REPORT_NAME] if REPORT_NAME in config.files else [])]
    content = {name: read_bounded(folder / name, SIZE_LIMITS[name]) for name in names}
    for name in names:
        _check_sha256(name, content[name], config.files)
    width, domains = config.hidden_size, config.domains
    return Parts(
        config,
        SteeringVectors.from_bytes(content[VECTORS_NAME], width, len(domains)),
        Router.from_bytes(content[ROUTER_NAME], width, domains),
        Probes.from_bytes(content[PROBES_NAME], width, domains),
        _report(content[REPORT_NAME]) if REPORT_NAME in content else None,
    )


def _check_sha256(name: str, content: bytes, files: Mapping[str, str]) -> None:
    expected = files.get(name)
    if expected is None:
        raise AdapterFormatError(f"{CONFIG_NAME}: names no SHA-256 for {name}; save the adapter again")
    if sha256(content) != expected:
        raise AdapterFormatError(
            f"{name}: its SHA-256 is not the one in {CONFIG_NAME}; it was changed or damaged; save the adapter again"
        )


def _report(content: bytes) -> dict[str, Any] | None:
    report = parse_json(decode_utf8(content, REPORT_NAME), REPORT_NAME)
    if not isinstance(report, dict | None):
        raise AdapterFormatError(f"{REPORT_NAME}: found a {type(report).__name__}; expected a JSON object")
    return report or None
