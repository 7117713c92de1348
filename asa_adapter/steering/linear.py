"""Residual states and their labels as checked numpy arrays, whatever they came as."""

from collections.abc import Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def float64_states(states: Any, **columns: Sized) -> NDArray[np.float64]:
    """(N, D) states, arrays or tensors of any float type, beside columns of N values.

    Raises:
        ValueError: not two-dimensional, no rows, other lengths, or numbers that are not finite.
    """
    if isinstance(states, torch.Tensor):
        states = states.detach().cpu().double().numpy()
    h = np.asarray(states, dtype=np.float64)
    if h.ndim != 2 or not len(h):
        raise ValueError(f"states have shape {h.shape}; expected (N, D) with at least one row")
    for name, values in columns.items():
        if len(values) != len(h):
            raise ValueError(f"there are {len(values)} {name} for {len(h)} states; expected one for each")
    if not np.isfinite(h).all():
        raise ValueError("the states hold NaN or infinity; the model may have overflowed in half precision")
    return h


def float32_tensor(values: Any) -> torch.Tensor:
    """A float32 CPU tensor that shares no memory with arrays that may not be written."""
    if isinstance(values, torch.Tensor):
        return values.detach().to(device="cpu", dtype=torch.float32)
    return torch.from_numpy(np.array(values, dtype=np.float32))
