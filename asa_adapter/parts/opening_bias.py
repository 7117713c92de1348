"""The other way to act on a gate: a bias on the logits of the tokens that open a tool call, at the first answer token.

It is added to the logits of the forward pass that ends the prompt, before generate() reads them. So it holds in every
decoding strategy, in log probabilities it is normalised, and where draft tokens follow the prompt it meets the first
of them alone. A logits processor would see neither the prompts of a strategy that runs the loop again nor, with
embeddings, their length, and beams would count its bias in their scores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class OpeningBias:
    """What a gate adds to the logits of the tokens that open a call.

    Attributes:
        tokens: ids of these tokens; at least one.
        amount: what is added where the gate is +1 and subtracted where it is -1, 0 or more. Without limit
            (`math.inf`), +1 leaves the likeliest of the tokens alone, and -1 leaves all others.
    """

    tokens: tuple[int, ...]
    amount: float


def biased_logits(logits: torch.Tensor, biases: Sequence[tuple[OpeningBias, torch.Tensor]]) -> torch.Tensor:
    """The (n, V) logits after each bias by its own (n,) gates; rows with gate 0 are bit for bit the same.

    Biases of a size come first, then openings are forbidden, then one is forced. So where one adapter forbids what
    another one forces, it stays forbidden, and at least one token is left.
    """
    found = logits.clone()
    for bias, gates in biases:
        rows = gates.nonzero()[:, 0]
        if not math.isinf(bias.amount):
            where = rows[:, None], _opening_ids(bias, logits)
            lifted = found[where].float() + gates[rows, None].float() * bias.amount
            found[where] = lifted.to(found.dtype)
    endless = [(bias, gates) for bias, gates in biases if math.isinf(bias.amount)]
    for bias, gates in endless:
        found[(gates < 0).nonzero(), _opening_ids(bias, logits)] = -math.inf
    for bias, gates in endless:
        ids = _opening_ids(bias, logits)
        best, place = found[:, ids].max(dim=1)
        forced = (gates > 0) & best.isfinite()
        alone = torch.full_like(found, -math.inf).scatter_(1, ids[place, None], best[:, None])
        found = torch.where(forced[:, None], alone, found)
    return found


def _opening_ids(bias: OpeningBias, logits: torch.Tensor) -> torch.Tensor:
    return torch.tensor(bias.tokens, device=logits.device)


def output_logits(output: Any) -> torch.Tensor | None:
    """The (B, T, V) logits of a model's output; None where it has none."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, torch.Tensor) and logits.ndim == 3 else None
