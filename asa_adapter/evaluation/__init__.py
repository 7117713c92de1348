"""What a model does, measured: its answers, their first tokens, and what numbers made of them are worth.

Nothing is fitted or chosen here.
"""

from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.metrics import auc, trigger_metrics

__all__ = ["Evaluation", "auc", "trigger_metrics"]
