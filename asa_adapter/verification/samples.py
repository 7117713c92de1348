"""The prompts that are compared: a dozen neutral ones of the package, or rows that the user names."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rows import complete_row, row_messages, row_tools
from asa_adapter.diagnostics.patient import PLAIN_TOOLS
from asa_adapter.files import read_data_text
from asa_adapter.strict_json import strict_json

MOST_ROWS = 64


@dataclass(frozen=True)
class Sample:
    """A prompt that is compared.

    Attributes:
        messages: the chat.
        tools: the tools that it offers; None for those of the adapter.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None

    def offering(self, config: ASAConfig) -> "Sample":
        """The same, with plain tools where neither it nor the adapter has any."""
        return self if self.tools or config.tools else replace(self, tools=PLAIN_TOOLS)

    def prompt(self, tokenizer: Any, config: ASAConfig) -> list[int]:
        """Its token ids."""
        return encode_prompt(tokenizer, self.messages, self.tools or config.tools)


def neutral_samples() -> list[Sample]:
    """The package's own prompts."""
    return [Sample([{"role": "user", "content": request}]) for request in SAMPLE_PROMPTS]


def read_samples(path: Path) -> list[Sample]:
    """The rows of a file of the user's, as samples.

    Args:
        path: a row of JSON in each line: `instruction` or `messages`, and perhaps `tools`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is no row, or offers no tools; there are no lines, or more than 64.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of sample rows at {path}")
    lines = [line for line in read_data_text(path).splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST_ROWS:
        raise ValueError(f"{path}: {len(lines)} rows; expected 1 to {MOST_ROWS}, since the adapter will hold them")
    return [_sample_of_line(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def _sample_of_line(line: str, where: str) -> Sample:
    """The sample in a line of the user's file."""
    try:
        found = strict_json(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    row = complete_row({"label": 0, **found} if isinstance(found, dict) else found, where, "", None)
    tools = row_tools(row, None)
    if tools is not None and not tools:
        raise ValueError(f"{where}: the row offers no tools; expected some, since such prompts are left alone")
    return Sample(row_messages(row), tools)


def prompt_digest(prompt: Sequence[int]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a prompt's token ids."""
    return hashlib.sha256(json.dumps(list(prompt)).encode()).hexdigest()[:16]
