"""Labelled rows made ready for a model: splits, chats, prompt tokens. No model is run here."""

from asa_adapter.data.conversation_cutting import cut
from asa_adapter.data.duplicates import leaks, near_duplicate_groups
from asa_adapter.data.packaged_samples import SAMPLE_PROMPTS, sample_data
from asa_adapter.data.prompts import encode_prompt
from asa_adapter.data.rows import read_tools, row_domain, row_messages, row_text
from asa_adapter.data.sources import SPLITS
from asa_adapter.data.splits import load_splits

__all__ = [
    "SAMPLE_PROMPTS",
    "SPLITS",
    "cut",
    "encode_prompt",
    "leaks",
    "load_splits",
    "near_duplicate_groups",
    "read_tools",
    "row_domain",
    "row_messages",
    "row_text",
    "sample_data",
]
