"""Labelled rows made ready for a model: splits, chats, prompt tokens, batches. No model is run here."""

from asa_adapter.data.duplicates import near_duplicate_groups
from asa_adapter.data.prompts import encode_prompt, row_domain, row_messages
from asa_adapter.data.splits import SPLITS, load_splits, read_tools, row_text

__all__ = [
    "SPLITS",
    "encode_prompt",
    "load_splits",
    "near_duplicate_groups",
    "read_tools",
    "row_domain",
    "row_messages",
    "row_text",
]
