"""How far a step moves the opening of a call: what the report shows of the chosen layer."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.config.value_checks import STATES
from asa_adapter.evaluation.first_tokens import Push
from asa_adapter.fitting.layer_fit import LayerFit
from asa_adapter.measurement.measurements import Measurements


def step_push(
    fit: LayerFit,
    domain: NDArray[np.int64],
    layer: int,
    beta: float,
    alpha: float,
    rule: NDArray[np.int64] | None = None,
) -> Push:
    """The step of a setting for rows with (N,) routed domains; a negative alpha steps away from a call.

    Where (N,) kinds of state are given, as indices into `STATES`, it goes along the directions of each row's kind.
    """
    if rule is None:
        return Push(layer, alpha * fit.residual_norm * fit.vectors.mixed(beta), torch.from_numpy(domain))
    mixed = torch.cat([fit.vectors.of(state).mixed(beta) for state in STATES])
    where = domain + rule * (len(mixed) // len(STATES))
    return Push(layer, alpha * fit.residual_norm * mixed, torch.from_numpy(where))


def step_effects(
    measured: Measurements,
    fit: LayerFit,
    layer: int,
    beta: float,
    domain: NDArray[np.int64],
    args: ASATrainingArguments,
) -> dict[str, Any]:
    """What steps of each alpha do on VALID.

    Args:
        measured: runs the model.
        fit: what was fitted at the layer.
        layer: its index.
        beta: share of the global direction.
        domain: (N,) routed domains of the rows of VALID.
        args: of these, alphas and seed are used.

    Returns:
        For each alpha, the mean probability of the token that opens a call, with a step `along` the direction,
        `against` it, and in a `random` one; `alphas`, and `base` for no step.
    """
    drawn, shape = torch.Generator("cpu").manual_seed(args.seed), fit.vectors.v_domain.shape
    aside = torch.randn(shape, generator=drawn, dtype=torch.float32, device="cpu")
    random = aside / aside.norm(dim=1, keepdim=True) * fit.residual_norm
    alphas = [alpha for alpha in args.alphas if alpha]
    pushes = [
        *(step_push(fit, domain, layer, beta, alpha) for alpha in alphas),
        *(step_push(fit, domain, layer, beta, -alpha) for alpha in alphas),
        *(Push(layer, alpha * random, torch.from_numpy(domain)) for alpha in alphas),
    ]
    means = measured.first_tokens("valid", pushes).probability.mean(axis=1, dtype=np.float64).tolist()
    n = len(alphas)
    return {
        "alphas": alphas,
        "base": means[0],
        "along": means[1 : 1 + n],
        "against": means[1 + n : 1 + 2 * n],
        "random": means[1 + 2 * n :],
    }
