"""`ASATrainingArguments`: what the trainer tries, and what it chooses by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asa_adapter.config import MAX_ALPHA, PROBE_KINDS
from asa_adapter.metrics import ratio

OBJECTIVES = ("f1", "balanced_accuracy")


@dataclass(frozen=True)
class ASATrainingArguments:
    """What is tried, and what it is chosen by.

    Attributes:
        layers: decoder blocks to try, 0-based, or "all".
        alphas: steps to try, in units of the mean residual norm at the layer.
        taus: confidences to try, each 0.5 to 1.
        betas: shares of the global direction to try, each 0 to 1.
        probes: probes to ask, "domain", "pooled" or both.
        Cs: inverse regularisation strengths to try; the one with the best probe on VALID is taken, for each layer.
        objective: what to maximise on VALID, "f1" or "balanced_accuracy".
        max_fpr: with a number, maximise recall among the settings whose FPR on VALID is at most this.
        finalists: how many settings from the screen are decided by real generation.
        max_new_tokens: longest answer.
        batch_size: prompts run together.
        seed: seed of everything random.
        output_dir: folder to save the adapter in when training ends.
        layer_path: dotted path of the model's block list, where the rule does not find it.
        progress: whether to show bars.

    Raises:
        ValueError: a field's value is out of its range.
    """

    layers: str | Sequence[int] = "all"
    alphas: Sequence[float] = (0.25, 0.5, 1.0, 2.0)
    taus: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9)
    betas: Sequence[float] = (0.0, 0.5, 1.0)
    probes: Sequence[str] = PROBE_KINDS
    Cs: Sequence[float] = (0.001, 0.01, 0.1, 1.0)
    objective: str = "f1"
    max_fpr: float | None = None
    finalists: int = 4
    max_new_tokens: int = 64
    batch_size: int = 16
    seed: int = 42
    output_dir: str | Path | None = None
    layer_path: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.layers, str) and self.layers != "all":
            raise ValueError(f"layers is {self.layers!r}; expected 'all' or layer numbers")
        ranges: tuple[tuple[str, Sequence[float], float, float], ...] = (
            ("alphas", self.alphas, 0, MAX_ALPHA),
            ("taus", self.taus, 0.5, 1),
            ("betas", self.betas, 0, 1),
            ("Cs", self.Cs, 1e-9, 1e9),
            ("max_fpr", () if self.max_fpr is None else (self.max_fpr,), 0, 1),
            ("finalists", (self.finalists,), 1, 1000),
            ("max_new_tokens", (self.max_new_tokens,), 1, 10**6),
            ("batch_size", (self.batch_size,), 1, 10**6),
        )
        for name, values, low, high in ranges:
            if name != "max_fpr" and not len(values):
                raise ValueError(f"{name} is empty; expected at least one value")
            if wrong := [value for value in values if not low <= value <= high]:
                raise ValueError(f"{name} holds {wrong[0]!r}; expected {low:g} to {high:g}")
        if not any(self.alphas):
            raise ValueError(f"alphas is {tuple(self.alphas)}; expected at least one step above 0")
        if not len(self.probes) or not set(self.probes) <= set(PROBE_KINDS):
            raise ValueError(f"probes is {self.probes!r}; expected some of {PROBE_KINDS}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}; expected one of {OBJECTIVES}")

    @property
    def goal(self) -> str:
        """What settings are chosen by, in words."""
        if self.max_fpr is not None:
            return f"recall with an FPR of at most {self.max_fpr:g}"
        return self.objective

    def score(self, metrics: Mapping[str, Any]) -> float:
        """How well some trigger metrics meet the goal; higher is better."""
        if self.max_fpr is not None:
            return float(metrics["recall"] if metrics["fpr"] <= self.max_fpr else -metrics["fpr"])
        if self.objective == "balanced_accuracy":
            return (metrics["recall"] + ratio(metrics["tn"], metrics["tn"] + metrics["fp"])) / 2
        return float(metrics["f1"])
