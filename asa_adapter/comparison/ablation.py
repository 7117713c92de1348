"""Ablations: an adapter with one part removed or replaced, to measure what each part adds by generation."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from asa_adapter.adapter import ASAAdapter
from asa_adapter.config.value_checks import STATES
from asa_adapter.parts.classifiers import Probes
from asa_adapter.parts.linear import Linear
from asa_adapter.policy.controller import Controller, stacked_readout

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
    - "one kind of state": probes and directions of all rows, whatever the kind of state; its rules stay.
    - "left alone behind results": the gate is 0 behind a tool's result.
    - "no readiness": the gate alone, of an adapter whose policy asks how ready a state is.
    - "no residual": no step along what is a domain's own, of such an adapter.
    - "no cap": steps of any length, of an adapter that limits them.

    "mismatched domain" and "no router" need more than one domain, those of the direction an adapter that steers, and
    those of kinds one that was fitted on several. A variant equal to the adapter, such as "global direction only"
    where beta is 1, is left out.

    Raises:
        ValueError: the adapter abstains (alpha 0), so there is nothing to remove.
    """
    if adapter.config.abstains:
        raise ValueError("the adapter abstains (alpha 0): it changes nothing, so there is nothing to take away")
    own, config, states = adapter._controller, adapter.config, adapter.config.states
    found = {
        "full": own,
        "no gate": own.changed(gates=(1, 1)),
        "positive gate only": own.changed(gates=(0, 1)),
        "negative gate only": own.changed(gates=(-1, 0)),
    }
    if own.pushes:
        found |= _ablated_directions(adapter)
    if len(config.domains) > 1:
        nothing = torch.zeros(1, config.hidden_size, dtype=torch.float32, device="cpu")
        anywhere = Linear(nothing, nothing[0, :1])
        pooled = [adapter.probes.of(state).linear(config.domains[:1], "pooled") for state in states]
        read = [dict(zip(("weight", "bias"), stacked_readout(config, anywhere, one), strict=True)) for one in pooled]
        ways = [adapter.vectors.of(state).mixed(1.0)[:1] for state in states]
        one_for_all = [{"direction": way, "readiness": None} for way in ways]
        found["no router"] = _ablated_in_each_kind(
            own, [{**one, **rest} for one, rest in zip(read, one_for_all, strict=True)]
        )
    found |= _ablated_kinds(adapter) | _ablated_policy(own)
    variants = {name: _with_controller(adapter, controller) for name, controller in found.items()}
    full = adapter.digest()
    return {name: variant for name, variant in variants.items() if name == "full" or variant.digest() != full}


def _ablated_directions(adapter: ASAAdapter) -> dict[str, Controller]:
    """An adapter that steers along other directions than its own."""
    own, config, states = adapter._controller, adapter.config, adapter.config.states
    vectors = [adapter.vectors.of(state) for state in states]
    directions = {
        "global direction only": [some.mixed(1.0) for some in vectors],
        "domain direction only": [some.mixed(0.0) for some in vectors],
    }
    for seed in RANDOM_SEEDS:
        shape, drawn = (len(config.domains), config.hidden_size), torch.Generator("cpu").manual_seed(seed)
        aside = torch.randn(shape, generator=drawn, dtype=torch.float32, device="cpu")
        directions[f"random direction (seed {seed})"] = [aside / aside.norm(dim=1)[:, None]] * len(states)
    if len(config.domains) > 1:
        betas = [config.rule(state).beta for state in states]
        rolled = [replace(some, v_domain=some.v_domain.roll(1, 0)) for some in vectors]
        directions["mismatched domain"] = [some.mixed(beta) for some, beta in zip(rolled, betas, strict=True)]
    # What is the domains' own, with the policy "readiness", stays.
    whole = {
        name: [torch.cat([one, part.direction[len(one) :]]) for one, part in zip(some, own.each, strict=True)]
        for name, some in directions.items()
    }
    return {name: _ablated_in_each_kind(own, [{"direction": one} for one in some]) for name, some in whole.items()}


def _ablated_kinds(adapter: ASAAdapter) -> dict[str, Controller]:
    """An adapter of several kinds of state with one for all, and with the first alone."""
    own, states, probes = adapter._controller, adapter.config.states, adapter.probes
    if len(states) < 2:
        return {}
    together = Probes(probes.pooled_, probes.by_domain_, ready=probes.ready_)
    one = Controller.build(adapter.config, replace(adapter.vectors, by_state={}), adapter.router, together)
    shut = [{} if state == STATES[0] else {"gates": (0, 0)} for state in states]
    return {"one kind of state": one.acting_like(own), "left alone behind results": _ablated_in_each_kind(own, shut)}


def _ablated_policy(own: Controller) -> dict[str, Controller]:
    """A controller without readiness, its part of the step, or its cap, where it has them."""
    found = {"no cap": own.changed(cap=0.0)} if own.cap else {}
    if any(one.readiness for one in own.each):
        found["no readiness"] = _ablated_in_each_kind(own, [_gate_alone(one) for one in own.each])
    if any(one.readiness and one.readiness.step for one in own.each):
        still = [{"readiness": one.readiness and one.readiness._replace(step=0.0)} for one in own.each]
        found["no residual"] = _ablated_in_each_kind(own, still)
    return found


def _gate_alone(one: Controller) -> dict[str, Any]:
    """What is changed to ablate the policy "readiness" of a controller down to the plain gate."""
    if one.readiness is None:
        return {}
    half = len(one.direction) // 2
    cut = {name: getattr(one, name)[: 2 * half] for name in ("weight", "bias")}
    return {**cut, "direction": one.direction[:half], "readiness": None}


def _ablated_in_each_kind(controller: Controller, changes: Sequence[Mapping[str, Any]]) -> Controller:
    """A controller with changes of its own in each kind of state."""
    first, *others = (replace(one, **some, others=()) for one, some in zip(controller.each, changes, strict=True))
    return replace(first, others=tuple(others))


def _with_controller(adapter: ASAAdapter, controller: Controller) -> ASAAdapter:
    """A copy of the adapter, without a report, that steers with another controller."""
    variant = copy.copy(adapter)
    variant.report = variant.judged = None
    variant._controller = controller
    return variant
