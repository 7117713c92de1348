"""Fits an adapter and chooses its settings by the model's own answers; no choice depends on the TEST split."""

from asa_adapter.training.baselines import bag_of_words

__all__ = ["bag_of_words"]
