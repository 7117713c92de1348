"""Why a model calls a tool or does not: what must hold before steering can help, and one prompt looked at closely.

The model is only read; it is left as it was.
"""

from asa_adapter.diagnostics.diagnosis import diagnose, findings_table, readiness
from asa_adapter.diagnostics.explanation import Explanation
from asa_adapter.diagnostics.patient import Finding

__all__ = ["Explanation", "Finding", "diagnose", "findings_table", "readiness"]
