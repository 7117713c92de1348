"""`SteeringVectors`: the directions that separate "tool needed" from "no tool", and their safetensors file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from asa_adapter.config.value_checks import VECTORS_NAME
from asa_adapter.errors import AdapterFormatError
from asa_adapter.parts.linear import float32_tensor, float64_states

_NORM_TOLERANCE = 1e-3
_SMALLEST_DIFFERENCE = 1e-6
_LEAST_OWN = 0.2  # share of a domain's direction that must be its own
_MAX_HEADER = 100_000  # bytes; the header of a valid file has about two hundred


@dataclass(frozen=True)
class SteeringVectors:
    """One global direction and one for each domain.

    Attributes:
        v_global: (D,) float32 unit vector.
        v_domain: (K, D) float32 unit rows, in the order of the config's domains; a zero row for a domain without a
            direction of its own.
        by_state: by kind of state the directions of its own rows, of the same shapes; kinds without take those above.

    Raises:
        ValueError: other shapes, values that are not finite, a `v_global` that is not of unit length, or a row of
            `v_domain` that is neither of unit length nor zero.

    Example:
        >>> states = [[0.0, 0.0], [3.0, 4.0]]
        >>> SteeringVectors.fit(states, labels=[0, 1], domains=["math", "math"], names=["math"]).v_global
        tensor([0.6000, 0.8000])
    """

    v_global: torch.Tensor
    v_domain: torch.Tensor
    by_state: Mapping[str, "SteeringVectors"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("v_global", "v_domain"):
            value = float32_tensor(getattr(self, name))
            object.__setattr__(self, name, value.contiguous())
        if self.v_global.ndim != 1 or self.v_domain.ndim != 2 or self.v_domain.shape[1] != len(self.v_global):
            raise ValueError(
                f"v_global has shape {tuple(self.v_global.shape)} and v_domain {tuple(self.v_domain.shape)}; "
                "expected (D,) and (K, D)"
            )
        if not len(self.v_global) or not len(self.v_domain):
            raise ValueError("the steering vectors are empty; expected at least one dimension and one domain")
        if not (torch.isfinite(self.v_global).all() and torch.isfinite(self.v_domain).all()):
            raise ValueError("a steering vector holds NaN or infinity")
        if not _is_unit(self.v_global):
            raise ValueError(f"v_global has length {float(self.v_global.norm()):.4g}; expected 1")
        for k, row in enumerate(self.v_domain):
            if not _is_unit(row) and bool(row.any()):
                raise ValueError(f"v_domain[{k}] has length {float(row.norm()):.4g}; expected 1, or 0 for no vector")
        for state, own in self.by_state.items():
            if own.by_state or own.v_domain.shape != self.v_domain.shape:
                found = tuple(own.v_domain.shape)
                raise ValueError(f"the vectors of {state!r} have shape {found}; expected {tuple(self.v_domain.shape)}")

    def of(self, state: str) -> "SteeringVectors":
        """The directions of a kind of state."""
        return self.by_state.get(state, self)

    @classmethod
    def fit(
        cls, states: ArrayLike, labels: Sequence[int], domains: Sequence[str], names: Sequence[str]
    ) -> "SteeringVectors":
        """Mean-difference directions (arXiv 2602.04935): mean(h | y=1) - mean(h | y=0), scaled to unit length.

        Args:
            states: (N, D) residual states of the calibration split.
            labels: (N,) 1 where a tool is needed, else 0.
            domains: (N,) domain of each row.
            names: (K,) domain of each row of `v_domain`.

        Raises:
            ValueError: one label is missing, the two means are the same, lengths differ, or a state is not finite.
        """
        h = float64_states(states, labels=labels, domains=domains)
        y, d = np.asarray(labels), np.asarray(domains)
        v_global = _mean_difference(h, y)
        if v_global is None:
            raise ValueError(
                "the calibration split gives no direction: it needs rows of both labels whose states differ"
            )
        rows = [_mean_difference(h[d == name], y[d == name]) for name in names]
        zero = np.zeros(h.shape[1])
        v_domain = np.stack([zero if row is None else row for row in rows])
        return cls(torch.from_numpy(v_global), torch.from_numpy(v_domain))

    def mixed(self, beta: float) -> torch.Tensor:
        """(K, D) unit rows normalise(beta * v_global + (1 - beta) * v_domain); v_global where a domain has none.

        Raises:
            ValueError: the two directions of a domain cancel out.
        """
        has_own = self.v_domain.any(dim=1, keepdim=True)
        mix = torch.where(has_own, beta * self.v_global + (1 - beta) * self.v_domain, self.v_global)
        lengths = mix.norm(dim=1, keepdim=True)
        if bool((lengths < _NORM_TOLERANCE).any()):
            raise ValueError(f"with beta {beta} the global direction and a domain's cancel out")
        return mix / lengths

    def own(self) -> torch.Tensor:
        """(K, D) unit rows of what is each domain's own: v_domain without its part along v_global.

        A zero row where less than a fifth of a domain's direction is left, or it has none (arXiv 2602.04935v3).
        """
        rest = self.v_domain - (self.v_domain @ self.v_global)[:, None] * self.v_global
        lengths = rest.norm(dim=1, keepdim=True)
        return torch.where(lengths < _LEAST_OWN, 0.0, rest / lengths.clamp(min=_LEAST_OWN))

    def to_bytes(self) -> bytes:
        """The bytes of the safetensors file."""
        tensors = {"v_global": self.v_global, "v_domain": self.v_domain}
        for state, own in self.by_state.items():
            tensors |= {f"{state}.v_global": own.v_global, f"{state}.v_domain": own.v_domain}
        return write_tensors(tensors)

    @classmethod
    def from_bytes(
        cls, content: bytes, hidden_size: int, domains: int, states: Sequence[str] = ()
    ) -> "SteeringVectors":
        """Reads the bytes of the safetensors file; the arguments are the expected D and K, and kinds it may hold.

        Raises:
            AdapterFormatError: the file is damaged, or its tensors are not the expected ones in float32.
        """
        shapes = {"v_global": (hidden_size,), "v_domain": (domains, hidden_size)}
        own = [state for state in states if f'"{state}.v_global"'.encode() in content[: 8 + _MAX_HEADER]]
        named = {f"{state}.{name}": shape for state in own for name, shape in shapes.items()}
        _check_safetensors_header(content, shapes | named)
        try:
            found = read_tensors(content)
            by_state = {state: cls(found[f"{state}.v_global"], found[f"{state}.v_domain"]) for state in own}
            return cls(found["v_global"], found["v_domain"], by_state)
        except (SafetensorError, ValueError) as error:
            raise AdapterFormatError(f"{VECTORS_NAME}: {error}") from error


def _is_unit(vector: torch.Tensor) -> bool:
    return abs(float(vector.norm()) - 1) <= _NORM_TOLERANCE


def _mean_difference(states: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """(D,) unit vector from the mean state of label 0 to that of label 1; None if one is missing or they coincide."""
    if not (labels == 1).any() or not (labels == 0).any():
        return None
    difference = states[labels == 1].mean(axis=0) - states[labels == 0].mean(axis=0)
    length = float(np.linalg.norm(difference))
    scale = float(np.linalg.norm(states, axis=1).mean())
    # Rounding alone makes a difference of about 1e-7 of the states' norm, which is not a direction.
    return difference / length if length > _SMALLEST_DIFFERENCE * scale else None


def _check_safetensors_header(content: bytes, expected: dict[str, tuple[int, ...]]) -> None:
    """Refuses a file with other vectors than the expected ones, before any is allocated."""
    size = int.from_bytes(content[:8], "little")
    if size > _MAX_HEADER:
        raise AdapterFormatError(f"{VECTORS_NAME}: its header has {size} bytes; expected at most {_MAX_HEADER}")
    try:
        pairs = json.loads(content[8 : 8 + size], object_pairs_hook=list)
        entries = [(name, dict(entry)) for name, entry in pairs if name != "__metadata__"]
        found = sorted((name, entry["dtype"], tuple(entry["shape"])) for name, entry in entries)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise AdapterFormatError(f"{VECTORS_NAME}: no readable safetensors header") from error
    if found != sorted((name, "F32", shape) for name, shape in expected.items()):
        raise AdapterFormatError(f"{VECTORS_NAME}: holds {found!r:.200}; expected {expected} in float32")
