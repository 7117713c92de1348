"""Figures for people: what a report says, what a gate decides, and what changes by steering.

They need matplotlib (the extra [plots]). Whatever in them comes from a stranger is drawn as text and nothing else.
"""

from asa_adapter.pictures.arrows import before_and_after
from asa_adapter.pictures.drawing import save
from asa_adapter.pictures.gates import conversation

__all__ = ["before_and_after", "conversation", "save"]
