"""A cheap fingerprint of a model's weights: is this the model that the adapter was fitted for?

It is a hash of a few weights of the embedding and of three decoder blocks, rounded to bfloat16, so that a checkpoint
has the same fingerprint whether it was loaded in float32 or in bfloat16. float16 rounds differently, so a difference
means nothing there. Quantisation changes matrices but not norms and embeddings, so the two are hashed separately.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from asa_adapter.files import sha256
from asa_adapter.modeling.residual import decoder_blocks

_FORM = re.compile(r"(\w+):([0-9a-f]{16}):([0-9a-f]{16}|-)")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_ROWS = (1, 10, 100, 1000, 10000)  # of the embedding, as far as it has them
_SAMPLE = 16  # numbers from each tensor
# Smaller numbers count as zero: float16 holds them with fewer digits than bfloat16.
_TINY = 1e-5


def model_fingerprint(model: nn.Module, layer_path: str | None = None) -> str | None:
    """The fingerprint of a model's weights.

    Args:
        model: a causal language model.
        layer_path: dotted path of the list of decoder blocks; None finds it by the rule of `decoder_blocks`.

    Returns:
        "dtype:vectors:matrices": the embedding's dtype, a hash of the embedding and the blocks' one-dimensional
        weights (norms, biases), and a hash of the blocks' matrices, "-" where they are quantised or cannot be read.
        None where the embedding or the vectors cannot be read: they are on the meta device (not loaded, offloaded) or
        sharded.

    Raises:
        IncompatibleModelError: the decoder blocks are not found.
    """
    blocks = decoder_blocks(model, layer_path)
    chosen = [blocks[i] for i in sorted({0, len(blocks) // 2, len(blocks) - 1})]
    parameters = [parameter for block in chosen for parameter in block.parameters()]
    embedding = _embedding(model)
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]
    if embedding is None or not all(map(_is_plain, [embedding, *vectors])):
        return None
    rows = [embedding[i] for i in _ROWS if i < len(embedding)]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    quantised = getattr(getattr(model, "config", None), "quantization_config", None) is not None
    seen = "-" if quantised or not matrices or not all(map(_is_plain, matrices)) else _digest(matrices)
    return f"{str(embedding.dtype).removeprefix('torch.')}:{_digest([*rows, *vectors])}:{seen}"


def same_weights(stored: str | None, found: str | None) -> tuple[bool | None, str]:
    """Whether two fingerprints are of the same weights.

    Args:
        stored: fingerprint of the model that the adapter was fitted for.
        found: fingerprint of the model at hand.

    Returns:
        True, False, or None where the fingerprints cannot be compared; and the reason as a sentence.
    """
    pair = [_FORM.fullmatch(text) if text else None for text in (stored, found)]
    if pair[0] is None:
        return None, "the adapter has no fingerprint of its model's weights"
    if pair[1] is None:
        return None, "the model's weights cannot be looked at: they are offloaded, spread over devices, or not loaded"
    (dtype, *digests), (other_dtype, *other_digests) = pair[0].groups(), pair[1].groups()
    compared = [(a, b) for a, b in zip(digests, other_digests, strict=True) if "-" not in (a, b)]
    if all(a == b for a, b in compared):
        return True, "the model's weights have the fingerprint that the adapter was fitted for"
    if "float16" in (dtype, other_dtype):
        return None, "one of the models is in float16, which rounds otherwise: their fingerprints cannot be compared"
    return False, f"the model's weights are not those the adapter was fitted for (fingerprint {found}, not {stored})"


def _embedding(model: Any) -> torch.Tensor | None:
    try:
        weight = model.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):
        return None
    return weight if isinstance(weight, torch.Tensor) and weight.ndim == 2 else None


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor's values can be read: floats on a device, not quantised, sharded or on the meta device."""
    return type(tensor) in (nn.Parameter, torch.Tensor) and tensor.dtype in _DTYPES and tensor.device.type != "meta"


@torch.no_grad()
def _digest(tensors: Iterable[torch.Tensor]) -> str:
    """16 hexadecimal digits: a hash of the tensors' shapes and of a sample of each."""
    digest = hashlib.sha256()
    samples = []
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        samples.append(_sample(tensor).to("cpu", torch.float32))
    numbers = torch.cat(samples)
    numbers = torch.where(numbers.abs() < _TINY, 0.0, numbers).to(torch.bfloat16)
    digest.update(numbers.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    """At most `_SAMPLE` values: evenly spaced in a vector; else from evenly spaced rows, each at another column."""
    if tensor.ndim == 1:
        return tensor[:: max(1, len(tensor) // _SAMPLE)][:_SAMPLE]
    flat = tensor.flatten(1)
    rows = torch.arange(min(_SAMPLE, len(flat)), device=tensor.device) * len(flat) // _SAMPLE
    return flat[rows, 7 * rows % flat.shape[1]]


def model_digest(model: nn.Module) -> str:
    """Digest of a model's type, and of the name, shape, dtype and a sample of the values of each weight.

    Offloaded weights cannot be read cheaply, so `name_or_path` is used in place of their values.
    """
    found = [type(model).__name__]
    for name, weight in model.state_dict().items():
        if weight.device.type == "meta":
            values = getattr(model, "name_or_path", "")
        else:
            values = weight.detach().flatten()[:: max(1, weight.numel() // 64)].float().cpu().tolist()
        found.append(f"{name} {tuple(weight.shape)} {weight.dtype} {values}")
    return sha256(json.dumps(found).encode())
