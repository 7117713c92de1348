"""The equations of arXiv 2602.04935 in plain numpy, float64, row by row: what the package must agree with."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def unit(vector: Array) -> Array:
    return vector / np.sqrt((vector**2).sum())


def mean_difference(states: Array, labels: Array) -> Array:
    needed = [h for h, y in zip(states, labels, strict=True) if y == 1]
    unneeded = [h for h, y in zip(states, labels, strict=True) if y == 0]
    return unit(sum(needed) / len(needed) - sum(unneeded) / len(unneeded))


def directions(states: Array, labels: Array, domains: list[str], names: list[str]) -> tuple[Array, Array]:
    """v_global (D,), and v_domain (K, D) with a zero row for a domain that lacks a class."""
    rows = []
    for name in names:
        mine = [i for i, domain in enumerate(domains) if domain == name]
        both = {int(labels[i]) for i in mine} == {0, 1}
        rows.append(mean_difference(states[mine], labels[mine]) if both else np.zeros(states.shape[1]))
    return mean_difference(states, labels), np.array(rows)


def mixed(v_global: Array, v_domain: Array, beta: float) -> Array:
    return np.array([unit(beta * v_global + (1 - beta) * v) if v.any() else v_global for v in v_domain])


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def logistic(score: Array) -> Array:
    return 1 / (1 + np.exp(-score))


def gate(p: float, tau: float) -> int:
    if p >= tau:
        return 1
    return -1 if p <= 1 - tau else 0


def decide(states: Array, router: tuple[Array, Array], probes: tuple[Array, Array], tau: float) -> list[tuple]:
    """(domain index, p, gate) of each row; router and probes are (K, D) weights and (K,) biases."""
    decisions = []
    for h in states:
        domain = int(softmax(router[0] @ h + router[1]).argmax())
        p = float(logistic(probes[0][domain] @ h + probes[1][domain]))
        decisions.append((domain, p, gate(p, tau)))
    return decisions


def step(states: Array, decisions: list[tuple], direction: Array, length: float) -> Array:
    return np.array([h + g * length * direction[d] for h, (d, _, g) in zip(states, decisions, strict=True)])
