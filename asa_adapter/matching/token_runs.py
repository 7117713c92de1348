"""Where a run of token ids stands among others, as template marks do in a prompt; found as bytes, which is quick."""

from collections.abc import Sequence

import numpy as np
import torch

_WIDTH = np.dtype(np.int64).itemsize


def packed(ids: Sequence[int]) -> bytes:
    """Token ids in the form in which they are searched."""
    return np.array(ids, dtype=np.int64).tobytes()


def packed_rows(tokens: torch.Tensor) -> list[bytes]:
    """Each of (B, T) prompts, padding included, in the form in which it is searched.

    Token ids that lie on an accelerator are copied once; looking for marks there would start dozens of kernels.
    """
    return [row.tobytes() for row in tokens.cpu().long().numpy()]


def beginning(ids: bytes, count: int) -> bytes:
    """The first tokens."""
    return ids[: count * _WIDTH]


def first_place(ids: bytes, run: bytes) -> int:
    """Index of the token where a run stands for the first time; -1 where it does not."""
    found = ids.find(run)
    while found > 0 and found % _WIDTH:  # across two tokens
        found = ids.find(run, found + 1)
    return found if found < 0 else found // _WIDTH


def last_place(ids: bytes, run: bytes) -> int:
    """Index of the token where a run stands for the last time; -1 where it does not."""
    found = ids.rfind(run)
    while found > 0 and found % _WIDTH:
        found = ids.rfind(run, 0, found + len(run) - 1)
    return found if found < 0 else found // _WIDTH
