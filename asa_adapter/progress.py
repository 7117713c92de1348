"""The progress bar of all long work, in one look."""

from typing import Any

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]


def progress_bar(total: int, name: str, show: bool) -> Any:
    """A bar with count and ETA, to be used as a context manager; `HF_HUB_DISABLE_PROGRESS_BARS` hides it too."""
    return tqdm(total=total, desc=name, disable=True if not show else None, smoothing=0.1)
