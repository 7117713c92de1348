"""Whole conversations: a model runs them again from each user's turn, its calls answered from the gold conversation.

Nothing is fitted or chosen here, and no tool is run.
"""

from asa_adapter.trajectories.scores import of_conversations, shares

__all__ = ["of_conversations", "shares"]
