"""The digest of everything in an adapter that decides and steers."""

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.files import sha256
from asa_adapter.policy.controller import Controller


def controller_digest(own: Controller, config: ASAConfig) -> str:
    """Hexadecimal SHA-256 of a controller and of where its config has it read; equal ones do the same."""
    arrays = b"".join(part.numpy().tobytes() for one in own.each for part in (one.weight, one.bias, one.direction))
    facts = (*config.hooked, own.step, own.tau, own.gates, *((own.opening,) if own.opening else ()))
    if config.state_marks:
        facts = (*facts, config.states, config.state_marks)
    if own.others or own.down is not None or own.readiness or own.cap:
        facts = (*facts, own.cap, [(one.step, one.down, one.tau, one.gates, one.readiness) for one in own.each])
    return sha256(arrays + repr(facts).encode())
