"""What a controller decides for residual states, without a model."""

from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.policy.controller import Controller
from asa_adapter.policy.decision import Decision


def decisions_of_states(
    controller: Controller, config: ASAConfig, states: ArrayLike, kinds: Sequence[str] | None = None
) -> list[Decision]:
    """The decisions that `ASAAdapter.decide` returns.

    Args:
        controller: what decides.
        config: names domains and kinds of state.
        states: (n, D) states at the steered layer; (R, n, D) where the probes read other layers too.
        kinds: (n,) kind of each state; None for the config's first.

    Raises:
        ValueError: `states` has another shape, or a kind was not fitted.
    """
    tensor = torch.as_tensor(states, dtype=torch.float32, device="cpu").detach()
    together, names = controller.side_by_side(tensor), config.states
    if kinds is not None and (len(kinds) != len(together) or not {*kinds} <= {*names}):
        raise ValueError(f"kinds is {list(kinds)!r:.80}; expected {len(together)} of {names}")
    rule = None if kinds is None else torch.tensor([names.index(kind) for kind in kinds], device="cpu")
    found = controller.decide(together, rule)
    values = zip(*(part.tolist() for part in found), strict=True)
    told = [names[0]] * len(together) if kinds is None else kinds
    state = told if len(names) > 1 else [""] * len(together)
    return [
        Decision(config.domains[domain % len(config.domains)], p_tool, gate, state=kind)
        for (domain, p_tool, gate), kind in zip(values, state, strict=True)
    ]
