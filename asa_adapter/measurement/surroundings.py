"""What every result of a training depends on, besides its own inputs."""

from typing import Any

import torch
import transformers

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.engine.protocol import is_engine_model
from asa_adapter.modeling.fingerprint import model_digest


def surroundings(model: Any, args: ASATrainingArguments) -> dict[str, Any]:
    """The model, its settings and the versions, as plain values.

    Args:
        model: a causal language model, also one that another engine runs.
        args: of these, layer_path and batch_size are used.
    """
    silent = {"_name_or_path", "transformers_version"}
    configs = (getattr(model, name, None) for name in ("config", "generation_config"))
    return {
        "model": model.digest() if is_engine_model(model) else model_digest(model),
        "configs": [{k: v for k, v in getattr(c, "to_dict", dict)().items() if k not in silent} for c in configs],
        "peft": str(getattr(model, "active_adapters", None)),
        "layer_path": args.layer_path,
        "batch_size": args.batch_size,
        "versions": [torch.__version__, transformers.__version__],
    }
