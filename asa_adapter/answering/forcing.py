"""`Forcing`: the first token of each answer forced, forbidden or biased to open a call, whatever decided on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LogitsProcessor

from asa_adapter.files import sha256
from asa_adapter.parts.opening_bias import OpeningBias, biased_logits


@dataclass(frozen=True)
class Forcing:
    """What is added to the logits of some tokens where the answers of N rows begin.

    Attributes:
        tokens: ids of the tokens with which calls begin; at least one.
        amounts: (N,) float32, what is added for each row. Infinity leaves the likeliest of the tokens alone, minus
            infinity none of them, and 0 leaves the row as it is.
    """

    tokens: tuple[int, ...]
    amounts: NDArray[np.float32]

    def of(self, rows: Sequence[int]) -> "Forcing":
        """The same for some of the rows."""
        return replace(self, amounts=self.amounts[list(rows)])

    def digest(self) -> str:
        """Hexadecimal SHA-256 of tokens and amounts."""
        return sha256(repr(self.tokens).encode() + self.amounts.astype(np.float32).tobytes())

    def applied(self, logits: torch.Tensor) -> torch.Tensor:
        """The (N, V) logits of the answers' first token after this; rows with amount 0 are bit for bit the same."""
        amounts = torch.from_numpy(self.amounts).to(logits.device)
        endless = amounts.isinf()
        finite, gates = amounts.masked_fill(endless, 0), torch.where(endless, amounts.sign(), 0)
        return biased_logits(
            logits, [(OpeningBias(self.tokens, 1.0), finite), (OpeningBias(self.tokens, math.inf), gates)]
        )

    def of_one(self, logits: torch.Tensor) -> torch.Tensor:
        """The same for the (V,) logits of one row."""
        return self.applied(logits[None])[0]

    def processor(self, width: int) -> LogitsProcessor:
        """For generate(): acts on the first token behind prompts of `width` tokens, padding included."""
        return _FirstTokenForcing(self, width)


class _FirstTokenForcing(LogitsProcessor):
    def __init__(self, forcing: Forcing, width: int) -> None:
        self._forcing, self._width = forcing, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._forcing.applied(scores) if input_ids.shape[1] == self._width else scores
