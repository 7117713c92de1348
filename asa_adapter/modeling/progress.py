"""The progress bar of all long work, in one look."""

import os
from typing import Any

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]


def progress_bar(total: int, name: str, show: bool) -> Any:
    """A bar with count and ETA, to be used as a context manager; `HF_HUB_DISABLE_PROGRESS_BARS` hides it too.

    Of several processes (`accelerate launch`) the first one shows it.
    """
    shown = show and os.environ.get("RANK", "0") == "0"
    return tqdm(total=total, desc=name, disable=None if shown else True, smoothing=0.1)
