"""Linear maps on residual states: logistic regressions fitted to standardised states, as one matrix and one bias.

States come as arrays or tensors of any float type, and are checked here.
"""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression


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


@dataclass(frozen=True)
class Linear:
    """One linear map as float32 CPU tensors: scores = states @ weight.T + bias, with weight (R, D) and bias (R,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, estimator: LogisticRegression) -> "Linear":
        """The scores of a fitted estimator."""
        return cls(float32_tensor(estimator.coef_), float32_tensor(estimator.intercept_))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(N, R) scores of (N, D) states."""
        with torch.autocast(device_type="cpu", enabled=False):
            return torch.nn.functional.linear(states, self.weight, self.bias)


def fit_logistic(h: NDArray[np.float64], target: Any, C: float, seed: int) -> LogisticRegression:
    """Fits on standardised states, then folds mean and deviation into coefficients for the raw ones."""
    mean, deviation = h.mean(axis=0), h.std(axis=0)
    # A feature that does not vary has no deviation to divide by; it carries nothing, whatever it is divided by.
    # Around a large mean, float32 states vary in their last bits without any meaning.
    deviation = np.where(deviation > 1e-6 * np.abs(mean) + 1e-30, deviation, 1.0)
    model = LogisticRegression(C=C, max_iter=1000, random_state=seed).fit((h - mean) / deviation, target)
    weight = model.coef_ / deviation
    return fitted_logistic(model.classes_, weight, model.intercept_ - weight @ mean, C, seed)


def fitted_logistic(
    classes: NDArray[Any], weight: NDArray[np.float64], bias: NDArray[np.float64], C: float, seed: int
) -> LogisticRegression:
    """A fitted LogisticRegression with these coefficients in float32, and nothing else to store."""
    model = LogisticRegression(C=float(C), max_iter=1000, random_state=int(seed))
    model.classes_ = classes
    model.coef_ = weight.astype(np.float32)
    model.intercept_ = bias.astype(np.float32)
    model.n_features_in_ = weight.shape[1]
    return model
