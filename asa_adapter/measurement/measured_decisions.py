"""What an adapter decides on the rows of a split, from states that were measured; no model is run for it."""

from asa_adapter.adapter import ASAAdapter
from asa_adapter.matching.state_kinds import kind_of
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.policy.decision import Decision


def decisions(measured: Measurements, split: str, adapter: ASAAdapter) -> list[Decision]:
    """The adapter's decision on each row, by the rule of the kind of state where it has several."""
    config = adapter.config
    states = measured.states(split).states[list(config.hooked)]
    kinds = [kind_of(row) for row in measured.rows(split)] if len(config.states) > 1 else None
    return adapter.decide(states if len(states) > 1 else states[0], kinds)
