"""The command `diagnose --url`: what is wrong with a server, in words. No model is loaded."""

import argparse
import os
import sys
from typing import Any

from asa_adapter.cli.terminal import folded, painted, say
from asa_adapter.interview.chat_client import ChatClient, check_key
from asa_adapter.interview.examination import Examination, examine


def given_key(options: argparse.Namespace) -> str | None:
    """The key that is named, else that of ASA_API_KEY; None where there is none.

    Raises:
        ValueError: it cannot stand in a header.
    """
    if (key := os.environ.get("ASA_API_KEY") if options.api_key is None else options.api_key) is not None:
        check_key(key)
    return key


def diagnose(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The command `diagnose --url`: the faults that a server's answers prove."""
    client = ChatClient(options.url, options.model, given_key(options))
    quiet = options.quiet or options.json

    def progress(question: str) -> None:
        if not quiet:
            say(f"asks {question}")

    examination = examine(client, progress)
    result = {
        "url": client.url,
        "model": client.model,
        "asked": examination.asked,
        "faults": [fault._asdict() for fault in examination.faults],
        "unshown": examination.unshown,
    }
    return result, _examination_text(client, examination)


def _examination_text(client: ChatClient, examination: Examination) -> str:
    """What `diagnose --url` says of an examination."""
    blocks = [
        "\n".join(
            [
                painted(fault.name, "yellow", sys.stdout),
                folded(fault.meaning, "  "),
                folded(f"evidence: {fault.evidence}", "  "),
                folded(f"cure: {fault.cure}", "  "),
                folded(f"an adapter: {fault.adapter}", "  "),
            ]
        )
        for fault in examination.faults
    ]
    left = "; ".join(f"{name}, since {why}" for name, why in examination.unshown.items())
    count = len(examination.faults)
    what = "nothing found" if not count else "1 fault" if count == 1 else f"{count} faults"
    end = f"{client.model} at {client.url}: {what}, by {examination.asked} questions"
    return "\n\n".join([*blocks, folded(end + (f". Left out: {left}" if left else ""))])
