"""ASA, the Activation Steering Adapter (arXiv 2602.04935): tool calls when they are needed, and only then."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asa_adapter.adapter import ASAAdapter
    from asa_adapter.arguments import ASATrainingArguments
    from asa_adapter.classifiers import Probes, Router
    from asa_adapter.config import ASAConfig
    from asa_adapter.controller import Decision
    from asa_adapter.data import load_splits
    from asa_adapter.diagnosis import diagnose
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

# Where each name comes from. A part is imported when it is first asked for, so that `import asa_adapter` is light.
_MODULES = {
    "ASAAdapter": "adapter",
    "ASAConfig": "config",
    "ASATrainer": "trainer",
    "ASATrainingArguments": "arguments",
    "AdapterDownloadError": "errors",
    "AdapterFormatError": "errors",
    "Decision": "controller",
    "IncompatibleModelError": "errors",
    "Probes": "classifiers",
    "Router": "classifiers",
    "SteeringHandle": "hook",
    "SteeringVectors": "vectors",
    "ToolCall": "toolcalls",
    "ToolCallParser": "parsing",
    "diagnose": "diagnosis",
    "load_splits": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
