"""ASA, the Activation Steering Adapter (arXiv 2602.04935): tool calls when they are needed, and only then."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asa_adapter.adapter import ASAAdapter
    from asa_adapter.config.asa_config import ASAConfig
    from asa_adapter.config.training_arguments import ASATrainingArguments
    from asa_adapter.data.splits import load_splits
    from asa_adapter.diagnostics.diagnosis import diagnose
    from asa_adapter.errors import AdapterDownloadError, AdapterFormatError, IncompatibleModelError
    from asa_adapter.labelling.trial import label_by_trying
    from asa_adapter.notations.tool_call import ToolCall
    from asa_adapter.parts.classifiers import Probes, Router
    from asa_adapter.parts.vectors import SteeringVectors
    from asa_adapter.policy.decision import Decision
    from asa_adapter.steering.hook import SteeringHandle
    from asa_adapter.tool_calls.parser import ToolCallParser
    from asa_adapter.training.trainer import ASATrainer

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
    "label_by_trying",
    "load_splits",
]

# The module of each public name. It is imported when the name is first used, so that `import asa_adapter` is fast.
_MODULES = {
    "ASAAdapter": "adapter",
    "ASAConfig": "config.asa_config",
    "ASATrainer": "training.trainer",
    "ASATrainingArguments": "config.training_arguments",
    "AdapterDownloadError": "errors",
    "AdapterFormatError": "errors",
    "Decision": "policy.decision",
    "IncompatibleModelError": "errors",
    "Probes": "parts.classifiers",
    "Router": "parts.classifiers",
    "SteeringHandle": "steering.hook",
    "SteeringVectors": "parts.vectors",
    "ToolCall": "notations.tool_call",
    "ToolCallParser": "tool_calls.parser",
    "diagnose": "diagnostics.diagnosis",
    "label_by_trying": "labelling.trial",
    "load_splits": "data.splits",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
