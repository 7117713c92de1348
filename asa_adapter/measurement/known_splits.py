"""Which rows an adapter was fitted on, so that what it is held against is fitted on the same."""

from asa_adapter.adapter import ASAAdapter
from asa_adapter.hub.judged_folder import judged_digest


def known_splits(adapter: ASAAdapter, split: str) -> tuple[str, ...]:
    """The splits whose rows an adapter knows, as it is measured on a split (see `ASAAdapter.for_split`)."""
    again = split != "valid" and (adapter.judged is not None or judged_digest(adapter) is not None)
    return ("cal", "train", "valid") if again else ("cal", "train")
