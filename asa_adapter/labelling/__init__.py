"""Labels by trying: what the model cannot answer alone needs a tool. Nothing is fitted or steered here."""

from asa_adapter.labelling.answer_checker import expected_results, is_right
from asa_adapter.labelling.trial import label_by_trying

__all__ = ["expected_results", "is_right", "label_by_trying"]
