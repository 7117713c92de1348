"""Ablations: an adapter with one part removed or replaced, to measure what each part adds by generation."""

import copy
from dataclasses import replace

import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.parts.linear import Linear
from asa_adapter.policy.controller import Controller, reading

RANDOM_SEEDS = (0, 1, 2)


def ablations(adapter: ASAAdapter) -> dict[str, ASAAdapter]:
    """Variants of an adapter by name, "full" first; all have the same layer and the same length of the step.

    - "full": the adapter itself.
    - "no gate": the gate is always +1.
    - "positive gate only", "negative gate only": the gate is 0 where it would have the other sign.
    - "global direction only", "domain direction only": beta is 1 or 0.
    - "random direction (seed n)": a random unit direction for each domain.
    - "mismatched domain": each domain uses the direction of the domain before it in the config's order.
    - "no router": the pooled probe and the global direction, whatever the domain.

    The last two need more than one domain, and those of the direction an adapter that steers. A variant equal to the
    adapter, such as "global direction only" where beta is 1, is left out.

    Raises:
        ValueError: the adapter abstains (alpha 0), so there is nothing to remove.
    """
    if adapter.config.abstains:
        raise ValueError("the adapter abstains (alpha 0): it changes nothing, so there is nothing to take away")
    own, vectors, beta = adapter._controller, adapter.vectors, adapter.config.beta
    found = {
        "full": own,
        "no gate": replace(own, gates=(1, 1)),
        "positive gate only": replace(own, gates=(0, 1)),
        "negative gate only": replace(own, gates=(-1, 0)),
    }
    if own.step:
        directions = {"global direction only": vectors.mixed(1.0), "domain direction only": vectors.mixed(0.0)}
        for seed in RANDOM_SEEDS:
            aside = torch.randn(own.direction.shape, generator=torch.Generator().manual_seed(seed))
            directions[f"random direction (seed {seed})"] = aside / aside.norm(dim=1)[:, None]
        if len(adapter.config.domains) > 1:
            directions["mismatched domain"] = replace(vectors, v_domain=vectors.v_domain.roll(1, 0)).mixed(beta)
        found |= {name: replace(own, direction=direction) for name, direction in directions.items()}
    if len(adapter.config.domains) > 1:
        pooled = adapter.probes.linear(adapter.config.domains[:1], "pooled")
        anywhere = Linear(torch.zeros(1, adapter.config.hidden_size), torch.zeros(1))
        weight, bias = reading(adapter.config, anywhere, pooled)
        found["no router"] = Controller(weight, bias, vectors.mixed(1.0)[:1], own.step, own.tau, opening=own.opening)
    variants = {name: _with_controller(adapter, controller) for name, controller in found.items()}
    full = adapter.digest()
    return {name: variant for name, variant in variants.items() if name == "full" or variant.digest() != full}


def _with_controller(adapter: ASAAdapter, controller: Controller) -> ASAAdapter:
    """A copy of the adapter that steers with another controller."""
    variant = copy.copy(adapter)
    variant._controller = controller
    return variant
