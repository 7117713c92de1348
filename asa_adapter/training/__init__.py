"""Fits an adapter and chooses its settings by what the model really does; TEST has no part in any choice."""

from asa_adapter.training.baselines import bag_of_words

__all__ = ["bag_of_words"]
