"""A tiny model with an even number of heads that computes what one with an odd number does: two workers can share it.

Everything that is added is zero, so it adds nothing. Where the residual stream gets wider (LFM2, whose heads divide
it), its root mean square gets smaller; the norms over it are scaled back.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def widened(source: Path, folder: Path) -> Path:
    """Writes the model with heads for two workers, in float32.

    Args:
        source: folder of the model.
        folder: folder to write into.
    """
    config = AutoConfig.from_pretrained(source)
    wide_config = _with_even_heads(AutoConfig.from_pretrained(source))
    narrow = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    wide = AutoModelForCausalLM.from_config(wide_config, dtype=torch.float32)
    share = config.hidden_size / wide_config.hidden_size
    shutil.copytree(source, folder, dirs_exist_ok=True)
    with torch.no_grad():
        for name, weight in narrow.named_parameters():
            _fill(wide.get_parameter(name), weight, parts=3 if name.endswith("in_proj.weight") else 1, share=share)
    wide.save_pretrained(folder)
    return folder


def _with_even_heads(config: Any) -> Any:
    """A configuration with one more head where the number is odd."""
    more = config.num_attention_heads % 2
    if config.num_key_value_heads != config.num_attention_heads:
        raise SystemExit(f"{config.model_type}: heads that share keys; only models without them are widened")
    config.num_attention_heads += more
    config.num_key_value_heads += more
    if config.model_type == "lfm2":
        narrow = config.hidden_size
        config.hidden_size += more * narrow // (config.num_attention_heads - more)
        config.norm_eps *= narrow / config.hidden_size
    return config


def _fill(wide: torch.Tensor, narrow: torch.Tensor, parts: int, share: float) -> None:
    """Lays a weight into the corner of a larger one that is zero elsewhere.

    Args:
        wide: the larger weight; changed.
        narrow: the weight.
        parts: number of matrices that stand one below the other in it.
        share: width of the residual stream by that of the wider one; a norm over the stream is scaled by its root.
    """
    wide.zero_()
    for target, part in zip(wide.chunk(parts), narrow.chunk(parts), strict=True):
        target[tuple(map(slice, part.shape))] = part
    if narrow.ndim == 1 and wide.shape != narrow.shape:
        wide *= math.sqrt(share)
