"""Figures for people: what a report says, what a gate decides, and what changes by steering.

They need matplotlib (the extra [plots]). Whatever in them comes from a stranger is drawn as text and nothing else.
"""

from asa_adapter.pictures.drawing import save
from asa_adapter.pictures.gates import conversation
from asa_adapter.pictures.outcomes import before_and_after

__all__ = ["before_and_after", "conversation", "save"]
