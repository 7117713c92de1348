"""GGUF models in an unmodified llama.cpp: opened, checked, steered by the same controller, fitted on, answered with.

The library is loaded when a file is opened, and not before.
"""

from asa_adapter.llamacpp.model import GGUFModel

__all__ = ["GGUFModel"]
