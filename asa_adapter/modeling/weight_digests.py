"""Digests of weights, of every number in them."""

import hashlib
import json
import zlib
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from asa_adapter.files import sha256

_PIECE = 1 << 18  # numbers at a time: they fit a processor's cache
# Numbers up to this one count as zero. float16 holds each bfloat16 above it exactly, but not those below.
_TINY = 2.0**-17


@torch.no_grad()
def weight_digest(weight: torch.Tensor) -> str:
    """Hexadecimal digest of a weight's shape and of its values, rounded to bfloat16."""
    pieces = (
        functional.hardshrink(piece.to(torch.bfloat16), _TINY).cpu() for piece in weight.reshape(-1).split(_PIECE)
    )
    return _digest_of_pieces(weight, pieces)


@torch.no_grad()
def raw_digest(weight: torch.Tensor) -> str:
    """Hexadecimal digest of a weight's shape and of its bytes as they are stored."""
    flat = weight.detach().reshape(-1).view(torch.uint8) if weight.numel() else weight.detach().reshape(-1)
    return _digest_of_pieces(weight, (piece.cpu() for piece in flat.split(2 * _PIECE)))


def stored_parts(weight: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a weight is stored in: itself, or the parts of a packed or sharded one."""
    if hasattr(weight, "__tensor_flatten__"):
        names, _ = weight.__tensor_flatten__()
        return [part for name in names for part in stored_parts(getattr(weight, name))]
    return [weight.detach().as_subclass(torch.Tensor)]


def _digest_of_pieces(weight: torch.Tensor, pieces: Iterator[torch.Tensor]) -> str:
    # SHA-256 of all bytes would take several times as long; nobody forges a checksum here.
    sums = [zlib.crc32(piece.contiguous().view(torch.uint8).numpy().data) for piece in pieces if piece.numel()]
    return hashlib.sha256(repr((tuple(weight.shape), sums)).encode()).hexdigest()


def model_digest(model: nn.Module) -> str:
    """Digest of a model's type, and of the name, shape, dtype and every value of each weight.

    Offloaded weights cannot be read cheaply, so `name_or_path` is used in place of their values.
    """
    found = [type(model).__name__]
    for name, weight in model.state_dict().items():
        parts = stored_parts(weight) if isinstance(weight, torch.Tensor) else []
        if any(part.device.type == "meta" for part in parts):
            values = str(getattr(model, "name_or_path", ""))
        else:
            values = " ".join(map(raw_digest, parts)) or repr(weight)
        found.append(f"{name} {tuple(getattr(weight, 'shape', ()))} {getattr(weight, 'dtype', None)} {values}")
    return sha256(json.dumps(found).encode())
