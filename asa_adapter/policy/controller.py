"""`Controller`: turns residual states into decisions and steps, as tensors on one device. It knows no model."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.parts.classifiers import Probes, Router
from asa_adapter.parts.linear import Linear
from asa_adapter.parts.openings import OpeningBias
from asa_adapter.parts.vectors import SteeringVectors


@dataclass(frozen=True, repr=False)
class Decision:
    """What the controller decided for one row.

    Attributes:
        domain: the domain that the router chose.
        p_tool: probability that a tool is needed, 0 to 1.
        gate: +1 steers towards a tool call, -1 away from one, 0 leaves the row unchanged.
        position: index of the last prompt token in the row as given to generate(); -1 from `ASAAdapter.decide`, where
            there is no row.
        applied: whether the row was changed: its state by the step, or the logits of the calls' openings by the bias.
        relative_step: length of the step that was added, divided by the norm of the state before it; 0 if none was.
        reason: why the row was left alone whatever the probe says; "" where it was not.
        action: what was changed: "steer" (the state), "bias" (the logits) or "both"; "" where nothing was.
        state: kind of state in which the prompt ends, "first" or "after_result"; "" where it is not known.
    """

    domain: str
    p_tool: float
    gate: int
    position: int = -1
    applied: bool = False
    relative_step: float = 0.0
    reason: str = ""
    action: str = ""
    state: str = ""

    def __str__(self) -> str:
        step = f"step of {self.relative_step:.2f} x the state's norm"
        done = {"bias": "logits of the openings biased", "both": f"{step}, logits of the openings biased"}
        what = done.get(self.action, step) if self.applied else "left as it was"
        if self.reason:
            what += f": {self.reason}"
        where = f"token {self.position}: " if self.position >= 0 else ""
        gate = f"{self.gate:+d}" if self.gate else "0"
        return f"{where}{self.domain}, p(tool) {self.p_tool:.3f}, gate {gate}, {what}"

    def __repr__(self) -> str:
        return f"<{self}>"  # a list of them can be read


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


@dataclass(frozen=True)
class Controller:
    """The router, one probe for each domain, and the mixed directions, ready to run.

    Attributes:
        weight: (2K, R D) float32: K rows of the router, then the row of each domain's probe, for the states of R
            layers side by side, the steered one last.
        bias: (2K,) float32, in the same order.
        direction: (K, D) float32 unit rows, the direction of the step in each domain.
        step: absolute length of the step, in the units of the residual stream; 0 adds none.
        tau: confidence from which the gate opens, 0.5 to 1; without a step and a bias it never does.
        gates: lowest and highest gate; only ablations narrow it.
        opening: the bias of the tokens that open a call; None for an adapter that has none.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    direction: torch.Tensor
    step: float
    tau: float
    gates: tuple[int, int] = (-1, 1)
    opening: OpeningBias | None = None

    @property
    def action(self) -> str:
        """What an open gate does: "steer", "bias" or "both"; "" for nothing."""
        both = ("steer" if self.step else "", "bias" if self.opening and self.opening.amount else "")
        return "both" if all(both) else "".join(both)

    @classmethod
    def build(cls, config: ASAConfig, vectors: SteeringVectors, router: Router, probes: Probes) -> "Controller":
        """Puts the parts of an adapter together, in the config's order of domains.

        Raises:
            ValueError: widths or domains of the parts are not the config's, or a domain's direction cancels out the
                global one.
        """
        _check_vectors(config, vectors)
        weight, bias = reading(config, router.linear(config.domains), probes.linear(config.domains, config.probe))
        opening = None if config.action == "steer" else OpeningBias(config.opening_ids, config.bias)
        return cls(weight, bias, vectors.mixed(config.beta), config.step, config.tau, opening=opening)

    def to(self, device: torch.device) -> "Controller":
        """The controller with its tensors on a device; itself if they are there already."""
        if self.weight.device == device:
            return self
        return replace(
            self, weight=self.weight.to(device), bias=self.bias.to(device), direction=self.direction.to(device)
        )

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

    def decide(self, states: torch.Tensor) -> Verdicts:
        """Routes, probes and gates each of (n, R D) states on the controller's device, in float32 despite autocast."""
        device = states.device.type
        in_float32 = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with in_float32:
            scores = torch.nn.functional.linear(states.float(), self.weight, self.bias)
        routed, probed = scores.chunk(2, dim=1)  # (n, K) each
        domain = routed.argmax(dim=1, keepdim=True)
        p_tool, domain = probed.gather(1, domain).sigmoid()[:, 0], domain[:, 0]
        gate = ternary_gate(p_tool, self.tau) if self.action else torch.zeros_like(domain)
        if self.gates != (-1, 1):
            gate = gate.clamp(*self.gates)
        return Verdicts(domain, p_tool, gate)

    def steer(self, states: torch.Tensor, verdicts: Verdicts) -> torch.Tensor:
        """(n, D) states after h' = h + gate * step * direction[domain]; rows with gate 0 are bit for bit the same."""
        gate = verdicts.gate[:, None]
        delta = gate.float() * self.step * self.direction.index_select(0, verdicts.domain)
        return torch.where(gate != 0, (states.float() + delta).to(states.dtype), states)


def reading(config: ASAConfig, route: Linear, probe: Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (2K, R D) and bias (2K,) of router and probes, for the states of `config.hooked` side by side.

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
    weight = torch.zeros(len(route.weight) + len(probe.weight), len(layers), size)
    weight[: len(route.weight), -1] = route.weight
    for part, layer in enumerate(config.reading):
        weight[len(route.weight) :, layers.index(layer)] = probe.weight[:, part * size : (part + 1) * size]
    return weight.flatten(1), torch.cat([route.bias, probe.bias])


def _check_vectors(config: ASAConfig, vectors: SteeringVectors) -> None:
    expected = (len(config.domains), config.hidden_size)
    if tuple(vectors.v_domain.shape) != expected:
        raise ValueError(
            f"the steering vectors have shape {tuple(vectors.v_domain.shape)}; expected {expected}: one row for each "
            "domain, as wide as the config's hidden_size"
        )
