"""`Controller`: from residual states to a decision and a step, as tensors on one device. It knows no model."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.steering.classifiers import Probes, Router
from asa_adapter.steering.vectors import SteeringVectors


@dataclass(frozen=True)
class Decision:
    """What the controller decided for one row.

    Attributes:
        domain: the domain that the router chose.
        p_tool: probability that a tool is needed, 0 to 1.
        gate: +1 pushes towards a call, -1 away from one, 0 leaves the row as it is.
        position: index of the steered token in the row as given to generate(); -1 where there was no row.
        applied: whether the step was added to the model's state.
        relative_step: length of the step that was added, as a share of the state's norm; 0 where none was.
    """

    domain: str
    p_tool: float
    gate: int
    position: int = -1
    applied: bool = False
    relative_step: float = 0.0

    def __str__(self) -> str:
        what = f"step of {self.relative_step:.2f} x the state's norm" if self.applied else "left as it was"
        where = f"token {self.position}: " if self.position >= 0 else ""
        gate = f"{self.gate:+d}" if self.gate else "0"
        return f"{where}{self.domain}, p(tool) {self.p_tool:.3f}, gate {gate}, {what}"


class Verdicts(NamedTuple):
    """Decisions for n states, as tensors on the states' device."""

    domain: torch.Tensor  # (n,) int64, index into the config's domains
    p_tool: torch.Tensor  # (n,) float32
    gate: torch.Tensor  # (n,) int64, -1, 0 or +1


def ternary_gate(p_tool: torch.Tensor, tau: float) -> torch.Tensor:
    """(n,) gates: +1 where p >= tau, else -1 where p <= 1 - tau, else 0 (the signed gate of
    arXiv 2602.04935).

    Example:
        >>> ternary_gate(torch.tensor([0.9, 0.5, 0.1]), tau=0.8).tolist()
        [1, 0, -1]
    """
    # At tau 0.5 the two meet; there a p of 0.5 is "needed".
    down = p_tool < tau if tau == 0.5 else p_tool <= 1 - tau
    return (p_tool >= tau).long() - down.long()


@dataclass(frozen=True)
class Controller:
    """The router, one probe for each domain, and the mixed directions, ready to run.

    Attributes:
        weight: (2K, D) float32: the router's rows, then the probe asked for each domain.
        bias: (2K,) float32.
        direction: (K, D) float32 unit rows, the step's direction in each domain.
        step: length of the step in the residual's own units; 0 keeps every gate at 0.
        tau: confidence from which the gate opens.
        gates: lowest and highest gate; narrower in ablations alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    direction: torch.Tensor
    step: float
    tau: float
    gates: tuple[int, int] = (-1, 1)

    @classmethod
    def build(cls, config: ASAConfig, vectors: SteeringVectors, router: Router, probes: Probes) -> "Controller":
        """Puts the parts of an adapter together, in the config's order of domains."""
        route, probe = router.linear(config.domains), probes.linear(config.domains, config.probe)
        return cls(
            weight=torch.cat([route.weight, probe.weight]),
            bias=torch.cat([route.bias, probe.bias]),
            direction=vectors.mixed(config.beta),
            step=config.step,
            tau=config.tau,
        )

    def to(self, device: torch.device) -> "Controller":
        """The same controller with its tensors on a device."""
        if self.weight.device == device:
            return self
        return replace(
            self, weight=self.weight.to(device), bias=self.bias.to(device), direction=self.direction.to(device)
        )

    def decide(self, states: torch.Tensor) -> Verdicts:
        """Routes, probes and gates each of (n, D) states; everything in float32, under autocast too."""
        device = states.device.type
        in_float32 = torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()
        with in_float32:
            scores = torch.nn.functional.linear(states.float(), self.weight, self.bias)
        routed, probed = scores.chunk(2, dim=1)  # (n, K) each
        domain = routed.argmax(dim=1, keepdim=True)
        p_tool, domain = probed.gather(1, domain).sigmoid()[:, 0], domain[:, 0]
        gate = ternary_gate(p_tool, self.tau) if self.step else torch.zeros_like(domain)
        if self.gates != (-1, 1):
            gate = gate.clamp(*self.gates)
        return Verdicts(domain, p_tool, gate)

    def steer(self, states: torch.Tensor, verdicts: Verdicts) -> torch.Tensor:
        """(n, D) states after h' = h + gate * step * direction[domain]; rows with gate 0 keep every bit."""
        gate = verdicts.gate[:, None]
        delta = gate.float() * self.step * self.direction.index_select(0, verdicts.domain)
        return torch.where(gate != 0, (states.float() + delta).to(states.dtype), states)
