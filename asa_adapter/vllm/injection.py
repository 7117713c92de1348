"""`Injection`: the controller at one layer's output, as an operation of fixed shape that a graph can hold.

Which rows of a step end a prompt is written into buffers before the step; the operation reads them. So it depends on
nothing of the host, and runs alike in eager mode, in torch.compile and in a replayed CUDA graph.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from asa_adapter.policy.controller import Controller

INJECTION = "asa_adapter.injection"  # its name in an engine's forward context
_PARTS = ("weight", "bias", "direction")  # of a controller, on the model's device


class Injection(nn.Module):
    """Steers up to `slots` rows of one step.

    Args:
        controller: decides and steps.
        slots: most rows that one step can steer: the engine's `max_num_seqs`.
        device: where the model is.
        warms_up: whether the engine runs the model before the first request, as every engine that compiles does.

    Attributes:
        ran: (2,) int64: how often the operation ran, and how many rows were due in all.
        planned: number of rows that `plan` was given so far.
        width: of the residual stream.
        decided: (slots, 3) domain, p(tool) and gate of the rows of the latest plan, for whoever asks.
        looked: whether the stream in the layers' outputs was told; nothing is served before.
    """

    earlier: torch.Tensor
    rows: torch.Tensor
    factors: torch.Tensor
    rules: torch.Tensor
    due: torch.Tensor
    ran: torch.Tensor
    decided: torch.Tensor

    def __init__(self, controller: Controller, slots: int, device: torch.device, warms_up: bool = False) -> None:
        super().__init__()
        self.slots = slots
        self.planned = 0
        self.looked = False
        self._given = controller
        self.width = width = controller.direction.shape[1]
        layers = controller.weight.shape[1] // width
        # Buffers, so that an engine that sleeps keeps them; not of the checkpoint, so not in the state_dict.
        buffers = {
            **{_named(part, i): getattr(one, part) for i, one in enumerate(controller.each) for part in _PARTS},
            "earlier": torch.zeros(layers - 1, slots, width, dtype=torch.float32, device="cpu"),
            "rows": torch.zeros(slots, dtype=torch.int64, device="cpu"),
            "factors": torch.zeros(slots, dtype=torch.float32, device="cpu"),
            "rules": torch.zeros(slots, dtype=torch.int64, device="cpu"),
            "due": torch.tensor([1, 0], dtype=torch.int64, device="cpu"),
            "ran": torch.zeros(2, dtype=torch.int64, device="cpu"),
            "decided": torch.zeros(slots, 3, dtype=torch.float32, device="cpu"),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.to(device, copy=True), persistent=False)
        self._is_clear = True
        self._checked = -1  # number of rows that were planned when they were last counted
        self._warms_up = warms_up

    @property
    def controller(self) -> Controller:
        """The controller on the model's device."""
        first, *others = (
            replace(one, **{part: getattr(self, _named(part, i)) for part in _PARTS}, others=())
            for i, one in enumerate(self._given.each)
        )
        return replace(first, others=tuple(others)) if others else first

    def plan(self, rows: Sequence[int], factors: Sequence[float], rules: Sequence[int] | None = None) -> None:
        """Says what the next step steers; holds until the next plan or `clear`.

        Args:
            rows: indices among the step's tokens.
            factors: what the step is multiplied by in each of them, more than 0.
            rules: which kind's controller decides each of them; None for the first.

        Raises:
            ValueError: more rows than slots.
        """
        if len(rows) > self.slots:
            raise ValueError(f"a step has {len(rows)} ends of prompts; expected at most {self.slots}")
        if not rows:
            self.clear()
            return
        # Slots that are left repeat the first one: they write the same numbers to the same place.
        left = self.slots - len(rows)
        self._write("rows", [*rows, *[rows[0]] * left])
        self._write("factors", [*factors, *[factors[0]] * left])
        if self._given.others:
            rules = rules or [0] * len(rows)
            self._write("rules", [*rules, *[rules[0]] * left])
        self._write("due", [1, len(rows)])
        self.planned += len(rows)
        self._is_clear = False

    def clear(self) -> None:
        """Leaves the next step unsteered."""
        if not self._is_clear:
            self.rows.zero_()
            self.factors.zero_()
            self.due[1:].zero_()
            self._is_clear = True

    def forget(self) -> None:
        """Forgets everything that was planned and counted."""
        self.clear()
        self.ran.zero_()
        self.planned = 0

    def check(self) -> None:
        """Compares what ran with what was planned: before the first step, and before the step after the first plan.

        Raises:
            RuntimeError: they differ, as with a compiled graph that was made without the adapter; or the layers were
                not looked at.
        """
        if not self.looked:
            raise RuntimeError(
                "vLLM loaded the model without telling it that its weights are there, so the steered layers were not "
                "looked at. Load it with vLLM's default loader, or report this with vLLM's version"
            )
        if self._checked > 0 or self._checked == self.planned:
            return
        ran, steered = self.ran.tolist()
        if steered != self.planned or (self._warms_up and not ran):
            raise RuntimeError(
                f"the steered layer ran {ran} times and steered {steered} prompts, where {self.planned} were planned: "
                "the engine runs another graph than the one with the adapter. Clear vLLM's compile cache "
                "(VLLM_CACHE_ROOT), and report this with vLLM's version"
            )
        self._checked = self.planned

    def read(self, hidden: torch.Tensor, residual: torch.Tensor | None, part: int) -> None:
        """Keeps the planned rows of an earlier layer's output for `steer`.

        Args:
            hidden: (tokens, D) what the layer adds to the residual stream.
            residual: (tokens, D) the stream before that; None if `hidden` is the whole stream.
            part: number of the layer among those that are read.
        """
        rows = self.rows
        self.earlier[part] = hidden[rows] if residual is None else hidden[rows] + residual[rows]

    def steer(self, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        """Steers the planned rows of a layer's output in place.

        Args:
            hidden: (tokens, D) what the layer adds to the residual stream; changed.
            residual: (tokens, D) the stream before that; the stream after the layer is their sum. None if `hidden` is
                the whole stream.
        """
        controller, rows = self.controller, self.rows
        rules = self.rules if controller.others else None
        added = hidden[rows]
        stream = added if residual is None else added + residual[rows]
        states = torch.cat([*self.earlier, stream.float()], dim=1) if len(self.earlier) else stream
        verdicts = controller.decide(states, rules)
        scaled = verdicts._replace(gate=verdicts.gate * self.factors)
        hidden[rows] = controller.steer(added, scaled, rules, stream)
        decided = torch.stack([part.float() for part in verdicts], dim=1)
        self.decided.copy_(torch.where((self.factors > 0)[:, None], decided, self.decided))
        self.ran += self.due

    def _write(self, buffer: str, values: list[Any]) -> None:
        """Copies into a buffer without waiting; the pinned copy is freed when the device has read it."""
        target: torch.Tensor = getattr(self, buffer)
        source = torch.tensor(values, dtype=target.dtype, device="cpu")
        if target.device.type == "cuda":
            source = source.pin_memory()
        target.copy_(source, non_blocking=True)


def _named(part: str, kind: int) -> str:
    """The buffer that holds a part of the controller of one kind of state."""
    return f"{part}_{kind}"
