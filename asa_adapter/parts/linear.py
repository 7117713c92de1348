"""Linear maps on residual states: logistic regressions fitted to standardised states, as one matrix and one bias.

States may be arrays or tensors of any float dtype; they are checked and converted here.
"""

from collections.abc import Sized
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController


def float64_states(states: Any, **columns: Sized) -> NDArray[np.float64]:
    """(N, D) states of any float dtype as a float64 array, checked; each of `columns` must have N values.

    Raises:
        ValueError: the states are not two-dimensional, have no rows, hold NaN or infinity, or a length differs.
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
    """The values as a float32 CPU tensor. Arrays are copied: they may be read-only, which tensors cannot be."""
    if isinstance(values, torch.Tensor):
        return values.detach().to(device="cpu", dtype=torch.float32)
    return torch.from_numpy(np.array(values, dtype=np.float32))


@dataclass(frozen=True)
class Linear:
    """A linear map as float32 CPU tensors: scores = states @ weight.T + bias, with weight (R, D) and bias (R,)."""

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, estimator: LogisticRegression) -> "Linear":
        """The decision function of a fitted estimator; R is 1 where it has two classes."""
        return cls(float32_tensor(estimator.coef_), float32_tensor(estimator.intercept_))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(N, R) scores of (N, D) float32 states on the CPU; in float32, also under autocast."""
        with torch.autocast(device_type="cpu", enabled=False):
            return torch.nn.functional.linear(states, self.weight, self.bias)


def fit_logistic(h: NDArray[np.float64], target: Any, C: float, seed: int) -> LogisticRegression:
    """Fits on standardised (N, D) states, then converts the coefficients to those for the raw states."""
    mean, deviation = h.mean(axis=0), h.std(axis=0)
    # A constant feature carries no information, so it is divided by 1. With a large mean, float32 states also vary in
    # their last bits without any meaning, so small deviations count as constant.
    deviation = np.where(deviation > 1e-6 * np.abs(mean) + 1e-30, deviation, 1.0)
    # The solver's products are small: threads that wait for one another at each cost many times the time they save.
    with _threads().limit(limits=1, user_api="blas"):
        model = LogisticRegression(C=C, max_iter=1000, random_state=seed).fit((h - mean) / deviation, target)
    weight = model.coef_ / deviation
    return fitted_logistic(model.classes_, weight, model.intercept_ - weight @ mean, C, seed)


@cache
def _threads() -> ThreadpoolController:
    """The thread pools of this process's libraries; a look at all of them takes as long as some fits."""
    return ThreadpoolController()


def fitted_logistic(
    classes: NDArray[Any], weight: NDArray[np.float64], bias: NDArray[np.float64], C: float, seed: int
) -> LogisticRegression:
    """A LogisticRegression that counts as fitted, with (R, D) coefficients and (R,) intercepts as float32."""
    model = LogisticRegression(C=float(C), max_iter=1000, random_state=int(seed))
    model.classes_ = classes
    model.coef_ = weight.astype(np.float32)
    model.intercept_ = bias.astype(np.float32)
    model.n_features_in_ = weight.shape[1]
    return model
