"""Measures what a model does: its answers, their first tokens and trigger metrics.

Nothing is fitted or chosen here.
"""

from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.evaluation.metrics import auc, trigger_metrics

__all__ = ["Evaluation", "auc", "trigger_metrics"]
