"""`Decision`: what was decided for one row, and what came of it."""

from dataclasses import dataclass


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
