"""Sets an adapter beside what could take its place: itself with one part removed, and simpler rules.

Everything is measured by generation. What a rule has to choose (a threshold, a wording, a strength) it chooses on
VALID. Nothing here is fitted for the adapter.
"""

from asa_adapter.comparison.ablation import ablations

__all__ = ["ablations"]
