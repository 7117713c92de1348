"""A fingerprint of a model's weights: is this the model that the adapter was fitted for?

Every number of the decoder counts: of the embedding, the blocks, what stands beside them, and the head. The numbers
are rounded to bfloat16, so that a checkpoint has the same fingerprint whether it was loaded in float32 or in bfloat16.
float16 rounds differently, so a difference means nothing there. Quantisation changes matrices but not norms and
embeddings, so they are hashed separately.

Adapters fitted earlier carry a fingerprint of a sample of the weights, without the "2:"; it has a rule of its own.
"""

import hashlib
import re
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asa_adapter.files import sha256
from asa_adapter.modeling.peft_tuners import running_parameters
from asa_adapter.modeling.residual_stream import decoder_blocks
from asa_adapter.modeling.weight_digests import raw_digest, stored_parts, weight_digest

_FORM = re.compile(r"2:(\w+):(\d+):([0-9a-f]{16}):([0-9a-f]{16}):([0-9a-f]{16}|packed-[0-9a-f]{16}|-)")
_SAMPLED = re.compile(r"(\w+):([0-9a-f]{16}):([0-9a-f]{16}|-)")
_FILE = re.compile(r"gguf:(\w+):[0-9a-f]{16}")  # of a model file, which another engine reads
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_ROWS = (1, 10, 100, 1000, 10000)  # of the embedding, as far as it has them
_SAMPLE = 16  # numbers from each tensor
# Smaller numbers count as zero: float16 holds them with fewer digits than bfloat16.
_TINY = 1e-5
_SAME = "the model's weights have the fingerprint that the adapter was fitted for"
_OTHER = "the model's weights are not those the adapter was fitted for (fingerprint {}, not {})"
# Buffers that hold packed weights where no parameter does.
_PACKED = ("qweight", "weight_packed", "packed_weight")
_UNKNOWN: Mapping[int, str] = {}


def model_fingerprint(
    model: nn.Module,
    layer_path: str | None = None,
    like: str | None = None,
    known: Mapping[int, str] = _UNKNOWN,
) -> str | None:
    """The fingerprint of a model's weights.

    It reads every weight, about a second for a billion numbers; it is kept for as long as the weights stay as they
    are. A change through `.data` of a model that was looked at before may go unseen.

    Args:
        model: a causal language model.
        layer_path: dotted path of the list of decoder blocks; None finds it by the rule of `decoder_blocks`.
        like: a fingerprint that this one is to be compared with: it is made by the same rule, and of as many rows of
            the vocabulary, if the model has so many.
        known: digests of weights that cannot be read here, by `weight_digest`, under the `id` of the parameter.

    Returns:
        "2:dtype:rows:embedding:vectors:matrices": the embedding's dtype and number of rows, a hash of the embedding
        and of a head with weights of its own, one of the decoder's one-dimensional weights (norms, biases), and one of
        its matrices. The last is "packed-" and a hash where they are quantised, and "-" where they cannot be read.
        None where the embedding or the vectors cannot be read: they are on the meta device (not loaded, offloaded) or
        sharded.

    Raises:
        IncompatibleModelError: the decoder blocks are not found.
    """
    blocks = decoder_blocks(model, layer_path)
    embedding = _embedding_weight(model)
    if embedding is None:
        return None
    sampled = _sampled_fingerprint(model, blocks, embedding)
    if like is not None and _SAMPLED.fullmatch(like):
        return sampled
    rows = min(len(embedding), stored_rows(like or "") or len(embedding))
    decoder = FingerprintedDecoder.of(model, blocks, embedding)
    key = (sampled, rows, *decoder.versions())
    if known or key != _SEEN.get(model, (None,))[0]:
        _SEEN[model] = (key, decoder.fingerprint(rows, known))
    return _SEEN[model][1]


# The latest fingerprint of each model, and what it was made of.
_SEEN: weakref.WeakKeyDictionary[nn.Module, tuple[Any, str | None]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class FingerprintedDecoder:
    """The weights that a fingerprint is made of.

    Attributes:
        embedding: (V, D), a row for each token.
        heads: the head's weight (V, D), unless it is the embedding.
        others: all other parameters of the decoder, in their order.
        quantised: the matrices are packed.
    """

    embedding: torch.Tensor
    heads: list[torch.Tensor]
    others: list[torch.Tensor]
    quantised: bool

    @classmethod
    def of(cls, model: Any, blocks: nn.ModuleList, embedding: torch.Tensor) -> "FingerprintedDecoder":
        """The decoder that has these blocks: the module that holds their list, and the model's head."""
        holder = next(part for part in model.modules() if any(child is blocks for child in part.children()))
        head = model.get_output_embeddings()
        heads = [weight for weight in running_parameters(head) if weight is not embedding] if head is not None else []
        skipped = {id(embedding), *map(id, heads)}
        others = [weight for weight in running_parameters(holder) if id(weight) not in skipped]
        return cls(embedding, heads, others, is_quantised(model, blocks))

    def versions(self) -> list[tuple[Any, ...]]:
        """What changes when a weight is replaced or written to."""
        weights = [self.embedding, *self.heads, *self.others]
        return [
            (
                weight.data_ptr() if _is_readable(weight) else id(weight),
                None if weight.is_inference() else weight._version,
            )
            for weight in weights
        ]

    def fingerprint(self, rows: int, known: Mapping[int, str]) -> str | None:
        """The fingerprint, of this many rows of the embedding and the head."""
        words = [self.embedding, *self.heads]
        vectors = [weight for weight in self.others if weight.ndim == 1]
        matrices = [weight for weight in self.others if weight.ndim > 1]
        if not all(id(weight) in known or _is_readable(weight) for weight in [*words, *vectors]):
            return None
        spoken = list(dict.fromkeys(known.get(id(weight)) or weight_digest(weight[:rows]) for weight in words))
        seen = "-"
        if self.quantised and (packed := [part for weight in matrices for part in stored_parts(weight)]):
            if all(part.device.type != "meta" for part in packed):
                seen = f"packed-{_short_fingerprint(map(raw_digest, packed))}"
        elif matrices and all(id(weight) in known or _is_readable(weight) for weight in matrices):
            seen = _short_fingerprint(known.get(id(weight)) or weight_digest(weight) for weight in matrices)
        dtype = str(self.embedding.dtype).removeprefix("torch.")
        norms = _short_fingerprint(known.get(id(weight)) or weight_digest(weight) for weight in vectors)
        return f"2:{dtype}:{rows}:{_short_fingerprint(spoken)}:{norms}:{seen}"


def same_fingerprint(stored: str | None, found: str | None) -> tuple[bool | None, str]:
    """Whether two fingerprints are of the same weights.

    Args:
        stored: fingerprint of the model that the adapter was fitted for.
        found: fingerprint of the model at hand, made `like` the stored one.

    Returns:
        True, False, or None where the fingerprints cannot be compared; and the reason as a sentence.
    """
    if stored and any(_FILE.fullmatch(one or "") for one in (stored, found)):
        if not found or not (_FILE.fullmatch(stored) and _FILE.fullmatch(found)):
            return None, "one of the fingerprints is of a GGUF file, the other is not: they cannot be compared"
        return stored == found, _SAME if stored == found else _OTHER.format(found, stored)
    if not stored or not (form := next((form for form in (_FORM, _SAMPLED) if form.fullmatch(stored)), None)):
        return None, "the adapter has no fingerprint of its model's weights"
    if not found or not (other := form.fullmatch(found)):
        return None, "the model's weights cannot be looked at: they are offloaded, spread over devices, or not loaded"
    own, others = form.fullmatch(stored).groups(), other.groups()  # type: ignore[union-attr]
    (dtype, *digests), (other_dtype, *other_digests) = own, others
    if form is _FORM:
        (rows, *digests), (other_rows, *other_digests) = digests, other_digests
        if rows != other_rows:  # a shorter vocabulary: its embedding is not the stored one's
            digests, other_digests = digests[1:], other_digests[1:]
    pairs = zip(digests, other_digests, strict=True)
    compared = [(a, b) for a, b in pairs if "-" not in a + b]  # one packing need not be bitwise another's
    if all(a == b for a, b in compared):
        return True, _SAME
    if "float16" in (dtype, other_dtype):
        return None, "one of the models is in float16, which rounds otherwise: their fingerprints cannot be compared"
    return False, _OTHER.format(found, stored)


def stored_rows(stored: str) -> int | None:
    """Number of rows of the vocabulary in a fingerprint of every number; None for one of a sample."""
    found = _FORM.fullmatch(stored)
    return int(found[2]) if found else None


def same_packing(stored: str | None, found: str | None) -> bool:
    """Whether an adapter was fitted on weights packed as those at hand, as far as the fingerprints tell.

    A fingerprint of a sample does not tell one packing from another.
    """
    last, own = (stored or "").rpartition(":")[2], (found or "").rpartition(":")[2]
    return bool(last) and last == own and (last == "-" or _is_packed(last))


def is_quantised(model: Any, blocks: nn.ModuleList) -> bool:
    """Whether the blocks' matrices are packed by quantisation.

    A configuration may keep its quantiser though the weights were unpacked on loading, as a GGUF file's are.
    """
    config = getattr(getattr(model, "config", None), "quantization_config", None)
    told = config if isinstance(config, dict) else getattr(config, "__dict__", {})
    method = str(getattr(told.get("quant_method"), "value", told.get("quant_method")))
    if config is not None and method != "gguf" and not told.get("dequantize"):
        return True
    names = [name.rpartition(".")[2] for name, _ in blocks.named_buffers()]
    packed = any(name in _PACKED for name in names)
    return packed or any(
        not weight.dtype.is_floating_point or weight.dtype.itemsize < 2 or _is_wrapped(weight)
        for weight in blocks.parameters()
    )


def _is_wrapped(weight: torch.Tensor) -> bool:
    """Whether a tensor is made of others, and not a shard of a plain one."""
    return hasattr(weight, "__tensor_flatten__") and not hasattr(weight, "full_tensor")


def _is_packed(digest: str) -> bool:
    return digest.startswith("packed-")


def fingerprinted_parameters(model: Any, sampled: bool) -> tuple[set[str], set[str]]:
    """Names of the parameters that a fingerprint is made of, and of those with a row for each token."""
    blocks = decoder_blocks(model)
    if sampled:
        parts = [model.get_input_embeddings(), *(blocks[i] for i in {0, len(blocks) // 2, len(blocks) - 1})]
        words, read = [], [parameter for part in parts for parameter in part.parameters()]
    else:
        decoder = FingerprintedDecoder.of(model, blocks, model.get_input_embeddings().weight)
        words, read = [decoder.embedding, *decoder.heads], decoder.others
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    vocabulary = {names[id(parameter)] for parameter in words}
    return vocabulary | {names[id(parameter)] for parameter in read}, vocabulary


def _sampled_fingerprint(model: nn.Module, blocks: nn.ModuleList, embedding: torch.Tensor) -> str | None:
    """The fingerprint of a sample, as adapters carry it that were fitted before every number counted."""
    chosen = [blocks[i] for i in sorted({0, len(blocks) // 2, len(blocks) - 1})]
    parameters = list({id(weight): weight for block in chosen for weight in running_parameters(block)}.values())
    vectors = [parameter for parameter in parameters if parameter.ndim == 1]
    if not all(map(_is_readable, [embedding, *vectors])):
        return None
    rows = [embedding[i] for i in _ROWS if i < len(embedding)]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    readable = matrices and not is_quantised(model, blocks) and all(map(_is_readable, matrices))
    dtype = str(embedding.dtype).removeprefix("torch.")
    return f"{dtype}:{_sampled_digest([*rows, *vectors])}:{_sampled_digest(matrices) if readable else '-'}"


def _embedding_weight(model: Any) -> torch.Tensor | None:
    """The weight of the input embedding, which a fingerprint reads; None where there is none."""
    try:
        weights = running_parameters(model.get_input_embeddings())
    except (AttributeError, NotImplementedError):
        return None
    return weights[0] if weights and weights[0].ndim == 2 else None


def _is_readable(tensor: torch.Tensor) -> bool:
    """Whether a fingerprint can read a tensor: floats on a device, not quantised, sharded or on the meta device."""
    return type(tensor) in (nn.Parameter, torch.Tensor) and tensor.dtype in _DTYPES and tensor.device.type != "meta"


def _short_fingerprint(digests: Iterable[str]) -> str:
    """16 hexadecimal digits for several digests, in their order."""
    return sha256(" ".join(digests).encode())[:16]


@torch.no_grad()
def _sampled_digest(tensors: Iterable[torch.Tensor]) -> str:
    """16 hexadecimal digits: a hash of the tensors' shapes and of a sample of each."""
    digest = hashlib.sha256()
    samples = []
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        samples.append(_sampled_values(tensor).to("cpu", torch.float32))
    numbers = torch.cat(samples)
    numbers = torch.where(numbers.abs() < _TINY, 0.0, numbers).to(torch.bfloat16)
    digest.update(numbers.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _sampled_values(tensor: torch.Tensor) -> torch.Tensor:
    """At most `_SAMPLE` values: evenly spaced in a vector; else from evenly spaced rows, each at another column."""
    if tensor.ndim == 1:
        return tensor[:: max(1, len(tensor) // _SAMPLE)][:_SAMPLE]
    flat = tensor.flatten(1)
    rows = torch.arange(min(_SAMPLE, len(flat)), device=tensor.device) * len(flat) // _SAMPLE
    return flat[rows, 7 * rows % flat.shape[1]]
