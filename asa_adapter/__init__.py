"""ASA, the Activation Steering Adapter (arXiv 2602.04935): tool calls when they are needed, and only then."""

from asa_adapter.adapter import ASAAdapter
from asa_adapter.arguments import ASATrainingArguments
from asa_adapter.classifiers import Probes, Router
from asa_adapter.config import ASAConfig
from asa_adapter.controller import Decision
from asa_adapter.data import load_splits
from asa_adapter.diagnose import diagnose
from asa_adapter.errors import AdapterDownloadError, AdapterFormatError, IncompatibleModelError
from asa_adapter.hook import SteeringHandle
from asa_adapter.parsing import ToolCallParser
from asa_adapter.toolcalls import ToolCall
from asa_adapter.trainer import ASATrainer
from asa_adapter.vectors import SteeringVectors

__version__ = "0.1.0"

__all__ = [
    "ASAAdapter",
    "ASAConfig",
    "ASATrainer",
    "ASATrainingArguments",
    "AdapterDownloadError",
    "AdapterFormatError",
    "Decision",
    "IncompatibleModelError",
    "Probes",
    "Router",
    "SteeringHandle",
    "SteeringVectors",
    "ToolCall",
    "ToolCallParser",
    "__version__",
    "diagnose",
    "load_splits",
]
