"""An adapter as a repository: its files read without trust, its card and figures, and the Hugging Face Hub's client.

No model is needed here, and nothing of a stranger's repository is ever run.
"""

from asa_adapter.summary.markdown import metrics_table

__all__ = ["metrics_table"]
