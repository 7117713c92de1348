"""The comment at a card's end by which an edited card is told from one that was written here."""

import re

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.files import sha256
from asa_adapter.hub.card import PLACEHOLDER, PLOT, PLOTS_FOLDER, model_card
from asa_adapter.report import Report

_SHOWN_PLOT = re.compile(rf"\]\({PLOTS_FOLDER}/({PLOT.pattern})\)")
_NAMED = re.compile(r'ASAAdapter\.from_pretrained\("([^"\n]*)"\)')
_SIGNATURE = re.compile(
    r"\n<!-- asa-adapter wrote this card \(SHA-256 ([0-9a-f]{64})\); if edited, it is kept\. -->\n?\Z"
)


def signed(card: str) -> str:
    """A card with a comment by which `is_unedited` sees that it was not edited."""
    return f"{card}\n<!-- asa-adapter wrote this card (SHA-256 {sha256(card.encode())}); if edited, it is kept. -->\n"


def is_unedited(card: str, config: ASAConfig | None = None, report: Report | None = None) -> bool:
    """Whether a card is as it was written here, line ends aside.

    Args:
        card: its text.
        config: the adapter's settings, for a card without a signature.
        report: what was measured, likewise.
    """
    card = card.replace("\r\n", "\n")
    if found := _SIGNATURE.search(card):
        return sha256(card[: found.start()].encode()) == found[1]
    if config is None or report is None:
        return False
    named = _NAMED.search(card)
    repo_id = named[1] if named and named[1] != PLACEHOLDER else None
    return card == model_card(config, report, repo_id, _SHOWN_PLOT.findall(card))
