"""`Controller`: turns residual states into decisions and steps, as tensors on one device. It knows no model."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from sklearn.linear_model import LogisticRegression

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.config.state_rules import Rule
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.parts.linear import Linear
from asa_adapter.parts.opening_bias import OpeningBias
from asa_adapter.parts.vectors import SteeringVectors


class Verdicts(NamedTuple):
    """Decisions for n states, as tensors on the device of the states."""

    domain: torch.Tensor  # (n,) int64, index into the config's domains
    p_tool: torch.Tensor  # (n,) float32
    gate: torch.Tensor  # (n,) int64, -1, 0 or +1


def ternary_gate(p_tool: torch.Tensor, tau: float) -> torch.Tensor:
    """(n,) int64 signed gates (arXiv 2602.04935): +1 where p >= tau, else -1 where p <= 1 - tau, else 0.

    Example:
        >>> ternary_gate(torch.tensor([0.9, 0.5, 0.1]), tau=0.8).tolist()
        [1, 0, -1]
    """
    # At tau 0.5 both conditions hold for a p of 0.5; it counts as "needed".
    down = p_tool < tau if tau == 0.5 else p_tool <= 1 - tau
    return (p_tool >= tau).long() - down.long()


class Readiness(NamedTuple):
    """The policy "readiness" beside the plain gate (arXiv 2602.04935v3, eq. 10 to 13).

    Attributes:
        below: a state that needs a call is pushed towards one where its readiness is below this; 1 for any.
        above: one that needs none is pushed away where its readiness is above this; 0 for any.
        route: a state that needs a call and is ready is pushed along what is its domain's own, where the router's
            confidence is above this.
        step: absolute length of that push; 0 for none.
    """

    below: float
    above: float
    route: float
    step: float


@dataclass(frozen=True)
class Controller:
    """The router, one probe for each domain, and the mixed directions, ready to run.

    Attributes:
        weight: (2K, R D) float32: K rows of the router, then the row of each domain's probe, for the states of R
            layers side by side, the steered one last; with `readiness` one row more, for that.
        bias: (2K,) float32, in the same order; likewise.
        direction: (K, D) float32 unit rows, the direction of the step in each domain; with `readiness` K rows more,
            of what is each domain's own. A verdict's `domain` is K more where such a row is taken.
        step: absolute length of the step, in the units of the residual stream; 0 adds none.
        tau: confidence from which the gate opens, 0.5 to 1; without a step and a bias it never does.
        gates: lowest and highest gate; only ablations narrow it.
        opening: the bias of the tokens that open a call; None for an adapter that has none.
        down: absolute length of the step away from a call; None for `step`.
        others: the controllers of further kinds of state, in the config's order.
        readiness: the policy beside the plain gate; None for the gate alone.
        cap: greatest length of a step, as a share of the state's norm; 0 for no limit.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    direction: torch.Tensor
    step: float
    tau: float
    gates: tuple[int, int] = (-1, 1)
    opening: OpeningBias | None = None
    down: float | None = None
    others: tuple["Controller", ...] = ()
    readiness: Readiness | None = None
    cap: float = 0.0

    @property
    def each(self) -> tuple["Controller", ...]:
        """The controller of each kind of state."""
        return (self, *self.others)

    def changed(self, **fields: Any) -> "Controller":
        """With some fields changed, for all kinds of state."""
        return replace(self, **fields, others=tuple(replace(other, **fields) for other in self.others))

    def stepping(self, step: float) -> "Controller":
        """With one length of step for all; that along what is the domain's own is made longer or shorter likewise."""
        each = []
        for one in self.each:
            scale = step / one.step if one.step else float(step > 0)
            ready = one.readiness and one.readiness._replace(step=one.readiness.step * scale)
            each.append(replace(one, step=step, down=None, readiness=ready, others=()))
        return replace(each[0], others=tuple(each[1:]))

    def scaled(self, factor: float) -> "Controller":
        """With each step, and the bias of the openings, multiplied; a kind of state that takes no step takes none."""
        each = []
        for one in self.each:
            down = None if one.down is None else one.down * factor
            ready = one.readiness and one.readiness._replace(step=one.readiness.step * factor)
            opening = one.opening and replace(one.opening, amount=one.opening.amount * factor)
            each.append(replace(one, step=one.step * factor, down=down, readiness=ready, opening=opening, others=()))
        return replace(each[0], others=tuple(each[1:]))

    def acting_like(self, other: "Controller") -> "Controller":
        """This controller with the steps and the openings of another one, for each kind of state."""
        first, *others = (
            replace(
                mine,
                step=theirs.step,
                down=theirs.down,
                opening=theirs.opening,
                readiness=theirs.readiness if mine.readiness else None,
                others=(),
            )
            for mine, theirs in zip(self.each, other.each, strict=True)
        )
        return replace(first, others=tuple(others))

    @property
    def longest(self) -> float:
        """Length of the longest step of any kind of state."""
        return max(max(one.step, one.down or 0.0, one.readiness.step if one.readiness else 0.0) for one in self.each)

    @property
    def pushes(self) -> bool:
        """Whether any kind of state has a step."""
        return any(one._has_step for one in self.each)

    @property
    def _has_step(self) -> bool:
        return bool(self.step or self.down or (self.readiness and self.readiness.step))

    @property
    def action(self) -> str:
        """What an open gate does: "steer", "bias" or "both"; "" for nothing."""
        both = ("steer" if self.pushes else "", "bias" if self.opening and self.opening.amount else "")
        return "both" if all(both) else "".join(both)

    @classmethod
    def build(cls, config: ASAConfig, vectors: SteeringVectors, router: Router, probes: Probes) -> "Controller":
        """Puts the parts of an adapter together, in the config's order of domains.

        Raises:
            ValueError: widths or domains of the parts are not the config's, or a domain's direction cancels out the
                global one.
        """
        opening = None if config.action == "steer" else OpeningBias(config.opening_ids, config.bias)
        found = []
        for state in config.states:
            own, rule = vectors.of(state), config.rule(state)
            _check_vectors_fit(config, own)
            linear = probes.of(state).linear(config.domains, config.probe)
            weight, bias = stacked_readout(config, router.linear(config.domains), linear)
            unit = 0.0 if config.action == "bias" else config.residual_norm
            down = None if rule.alpha_down is None else rule.alpha_down * unit
            step = rule.alpha * unit
            plain = cls(weight, bias, own.mixed(rule.beta), step, rule.tau, opening=opening, down=down, cap=config.cap)
            ready = probes.of(state).ready_
            found.append(_with_readiness(plain, rule, ready, own.own(), unit) if rule.asks_readiness else plain)
        return replace(found[0], others=tuple(found[1:]))

    def to(self, device: torch.device) -> "Controller":
        """The controller with its tensors on a device; itself if they are there already."""
        if self.weight.device == device:
            return self
        with torch.inference_mode(False):  # it outlives the call that moves it
            moved = {name: getattr(self, name).to(device) for name in ("weight", "bias", "direction")}
        return replace(self, **moved, others=tuple(other.to(device) for other in self.others))

    def side_by_side(self, states: torch.Tensor) -> torch.Tensor:
        """The states of n prompts as `decide` takes them: from (n, D), or (R, n, D) for the R layers that are read.

        Raises:
            ValueError: another shape.
        """
        width = self.direction.shape[1]
        layers = self.weight.shape[1] // width
        expected = ("n", width) if layers == 1 else (layers, "n", width)
        found = tuple(states.shape)
        if len(found) != len(expected) or any(size not in (found[i], "n") for i, size in enumerate(expected)):
            raise ValueError(f"states have shape {found}; expected ({', '.join(map(str, expected))})")
        return states if layers == 1 else states.transpose(0, 1).flatten(1)

    def decide(self, states: torch.Tensor, rule: torch.Tensor | None = None) -> Verdicts:
        """Routes, probes and gates each of (n, R D) states on the controller's device, in float32 despite autocast.

        Args:
            states: the states.
            rule: (n,) int64 which kind's controller decides each row, on the same device; None for the first.
        """
        own = self._decide(states)
        if rule is None or not self.others:
            return own
        every = [own, *(one._decide(states) for one in self.others)]
        domain, p_tool, gate = (_by_rule(parts, rule) for parts in zip(*(one[:3] for one in every), strict=True))
        return Verdicts(domain, p_tool, gate)

    def _decide(self, states: torch.Tensor) -> Verdicts:
        device = states.device.type
        in_float32 = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with in_float32:
            scores = torch.nn.functional.linear(states.float(), self.weight, self.bias)
        ready = None if self.readiness is None else scores[:, -1].sigmoid()
        routed, probed = (scores if ready is None else scores[:, :-1]).chunk(2, dim=1)  # (n, K) each
        domain = routed.argmax(dim=1, keepdim=True)
        p_tool, domain = probed.gather(1, domain).sigmoid()[:, 0], domain[:, 0]
        gate = ternary_gate(p_tool, self.tau) if self._acts else torch.zeros_like(domain)
        if self.readiness is not None and ready is not None:
            domain, gate = self._by_readiness(self.readiness, ready, routed, domain, gate)
        if self.gates != (-1, 1):
            gate = gate.clamp(*self.gates)
        return Verdicts(domain, p_tool, gate)

    def _by_readiness(
        self,
        policy: Readiness,
        ready: torch.Tensor,
        routed: torch.Tensor,
        domain: torch.Tensor,
        gate: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Directions and gates by the (n,) readiness; what the gate alone would do stays where no limit is set."""
        count = routed.shape[1]
        ripe = (gate > 0) & (ready >= policy.below if policy.below < 1 else torch.zeros_like(gate, dtype=torch.bool))
        sure = routed.softmax(dim=1).amax(dim=1) > policy.route
        own = ripe & sure & self.direction[count:].any(dim=1)[domain] if policy.step else torch.zeros_like(ripe)
        rash = (gate < 0) & (ready <= policy.above) if policy.above > 0 else torch.zeros_like(ripe)
        return torch.where(own, domain + count, domain), torch.where((ripe & ~own) | rash, 0, gate)

    @property
    def _acts(self) -> bool:
        """Whether rows of this kind of state are changed by an open gate."""
        return bool(self._has_step or (self.opening and self.opening.amount))

    def lengths(self, verdicts: Verdicts, rule: torch.Tensor | None = None) -> torch.Tensor:
        """(n,) float32 lengths of the steps that the gates ask for, whether they are open or not; as in `decide`."""
        found = [one._length(verdicts.gate, verdicts.domain) for one in self.each]
        return found[0] if rule is None else _by_rule(found, rule)

    def _length(self, gate: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        length = torch.where(gate < 0, self.step if self.down is None else self.down, self.step).float()
        if self.readiness is None:
            return length
        return torch.where(domain >= len(self.direction) // 2, self.readiness.step, length)

    def steer(
        self,
        states: torch.Tensor,
        verdicts: Verdicts,
        rule: torch.Tensor | None = None,
        stream: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(n, D) states after h' = h + gate * step * direction[domain]; rows with gate 0 are bit for bit the same.

        Args:
            states: (n, D) residual streams, or a part of each that the rest is added to later.
            verdicts: those about them.
            rule: that of `decide`.
            stream: (n, D) the whole streams, whose norm caps the steps; None where `states` are that.
        """
        gate = verdicts.gate[:, None]
        if rule is None:
            delta = self._delta(gate, verdicts.domain)
        else:
            # Of the kinds that a row is not of, some may have fewer directions; what they say is not taken.
            delta = _by_rule([one._delta(gate, verdicts.domain % len(one.direction)) for one in self.each], rule)
        if self.cap:
            most = self.cap * (states if stream is None else stream).float().norm(dim=1, keepdim=True)
            delta = delta * (most / delta.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        return torch.where(gate != 0, (states.float() + delta).to(states.dtype), states)

    def _delta(self, gate: torch.Tensor, domain: torch.Tensor) -> torch.Tensor:
        plain = self.down is None and self.readiness is None
        step = self.step if plain else self._length(gate[:, 0], domain)[:, None]
        return gate.float() * step * self.direction.index_select(0, domain)


def _by_rule(parts: Sequence[torch.Tensor], rule: torch.Tensor) -> torch.Tensor:
    """Each row's own of several (n, ...) tensors; rows without a rule take the first's."""
    rows = torch.arange(len(rule), device=rule.device)
    return torch.stack(list(parts))[rule.clamp(min=0), rows]


def stacked_readout(config: ASAConfig, route: Linear, probe: Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """The controller's weight (2K, R D) and bias (2K,) of router and probes, for `config.hooked` states side by side.

    Args:
        config: of this, hidden_size, layer and read_layers are used.
        route: the router, a row for each domain, for the steered layer's state.
        probe: the probes, a row for each domain, for the states of `config.reading` side by side.

    Raises:
        ValueError: another width.
    """
    size, layers = config.hidden_size, config.hooked
    for name, linear, read in (("router", route, (config.layer,)), ("probes", probe, config.reading)):
        if (width := linear.weight.shape[1]) != size * len(read):
            of = "" if len(read) == 1 else f" for each of the {len(read)} layers {read}"
            raise ValueError(f"the {name} read states of width {width}; expected the config's {size}{of}")
    # By name: vLLM builds models, and what is in them, under the model's own dtype and device as defaults.
    rows = len(route.weight) + len(probe.weight)
    weight = torch.zeros(rows, len(layers), size, dtype=torch.float32, device="cpu")
    weight[: len(route.weight), -1] = route.weight
    for part, layer in enumerate(config.reading):
        weight[len(route.weight) :, layers.index(layer)] = probe.weight[:, part * size : (part + 1) * size]
    return weight.flatten(1), torch.cat([route.bias, probe.bias])


def _with_readiness(
    plain: Controller, rule: Rule, ready: LogisticRegression | None, own: torch.Tensor, unit: float
) -> Controller:
    """A controller with the policy "readiness" of a rule, whose directions of its domains' own are (K, D)."""
    if ready is None:
        raise ValueError(
            "the config has thresholds of readiness, and the probes hold no readiness for that kind of state; fit both"
        )
    linear = Linear.of(ready)
    if (width := linear.weight.shape[1]) != (expected := plain.direction.shape[1]):
        raise ValueError(f"the readiness reads states of width {width}; expected the config's {expected}")
    aside = torch.zeros(1, plain.weight.shape[1] - width, dtype=torch.float32, device="cpu")
    row = torch.cat([aside, linear.weight], dim=1)
    return replace(
        plain,
        weight=torch.cat([plain.weight, row]),
        bias=torch.cat([plain.bias, linear.bias]),
        direction=torch.cat([plain.direction, own]),
        readiness=Readiness(rule.ready_below, rule.ready_above, rule.route, rule.domain_alpha * unit),
    )


def _check_vectors_fit(config: ASAConfig, vectors: SteeringVectors) -> None:
    """Refuses vectors that do not fit the controller's config."""
    expected = (len(config.domains), config.hidden_size)
    if tuple(vectors.v_domain.shape) != expected:
        raise ValueError(
            f"the steering vectors have shape {tuple(vectors.v_domain.shape)}; expected {expected}: one row for each "
            "domain, as wide as the config's hidden_size"
        )
