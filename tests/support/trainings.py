"""Arguments of a training that takes seconds."""

from typing import Any

SMALL: dict[str, Any] = {
    "layers": (1, 4, 6),
    "alphas": (0.5, 1.0),
    "taus": (0.5, 0.7),
    "betas": (0.0, 1.0),
    "Cs": (0.01, 0.1),
    "finalists": 2,
    "max_new_tokens": 64,
    "progress": False,
}
