"""Labelled states, overlapping or told apart with ease, and what is fitted on them: a router, probes, a pipeline."""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from asa_adapter import Probes, Router
from asa_adapter.measurement.labelled_states import LabelledStates

NAMES = ["math", "code", "search", "chat"]
WIDTH = 6


def data(domains: int, rows: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Overlapping classes in features of very different means and deviations."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    names = [NAMES[i // 2 % domains] for i in range(rows)]
    states = generator.normal(size=(rows, WIDTH))
    states[:, 0] += 0.7 * labels
    states[:, 1] += 0.7 * np.array([NAMES.index(name) for name in names])
    states = states * [1.0, 3.0, 0.01, 10.0, 0.5, 1.0] + [0.0, 5.0, 0.02, -20.0, 1.0, -1.0]
    return states.astype(np.float32), labels, names


def split(seed: int, rows: int = 80, signal: float = 3.0) -> LabelledStates:
    """Rows of one split, whose first number tells the label and whose second the domain."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    domains = ["a" if i % 4 < 2 else "b" for i in range(rows)]
    states = generator.normal(size=(rows, 6)).astype(np.float32)
    states[:, 0] += signal * labels
    states[:, 1] += [4.0 if domain == "a" else -4.0 for domain in domains]
    return LabelledStates(states, labels, domains)


def pipeline(states: np.ndarray, target: Any, C: float = 1.0) -> Pipeline:
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
    return fitted.fit(states.astype(np.float64), target)


def router() -> Router:
    states, _, names = data(4)
    return Router.fit(states, names)


def probes() -> Probes:
    return Probes.fit(*data(4))
