"""What one adapter does in a generate() call: the windows in which it reads and steers, and what it decided."""

import threading
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.matching.scope import Scope, SeenPrompts
from asa_adapter.parts.opening_bias import biased_logits
from asa_adapter.policy.controller import Controller, Verdicts
from asa_adapter.policy.decision import Decision


@dataclass
class Window:
    """The last prompt tokens in one forward pass.

    Attributes:
        shape: (rows, tokens) of the pass.
        rows: (n,) indices of the rows whose last prompt token is in this pass.
        where: these rows and the index of the token in each: two (n,) int64 tensors on the device of the inputs.
        record: where the decisions are stored.
        again: the pass repeats tokens that were steered before (there is no cache), so the same decisions apply.
        states: (n, D) states of the last prompt tokens behind earlier blocks that the probes read, by layer.
        used: the pass has been steered. The block may run again before the next pass is located (for classifier-free
            guidance, or where a model runs a block twice); that run is not steered.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    where: tuple[torch.Tensor, ...]
    record: "Record"
    again: bool
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    used: bool = False

    def read(self, layer: int, hidden: torch.Tensor) -> None:
        """Keeps what the probes read in the residual stream `hidden`, (B, T, D), behind an earlier block.

        Raises:
            IncompatibleModelError: `hidden` has another shape than the pass.
        """
        if layer not in self.states:  # a second run of the block in this pass is not steered
            self._check(hidden)
            self.states[layer] = hidden[tuple(index.to(hidden.device) for index in self.where)]

    def steer(self, hidden: torch.Tensor, in_place: bool) -> torch.Tensor:
        """The residual stream `hidden`, (B, T, D), with its last prompt tokens steered; the same tensor if `in_place`.

        Raises:
            IncompatibleModelError: `hidden` has another shape than the pass.
        """
        self.used = True
        self._check(hidden)
        where = tuple(index.to(hidden.device) for index in self.where)
        states = hidden[where]
        left = self.steer_states(states, where[0])
        if left is states:
            return hidden
        steered = hidden if in_place else hidden.clone()
        steered[where] = left
        return steered

    def steer_states(self, states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """The (n, D) states of the last prompt tokens, steered; the same tensor where the adapter adds nothing.

        Args:
            states: the states, which are kept: they must not be changed later.
            rows: (n,) indices of their rows, on the same device.

        Raises:
            IncompatibleModelError: an earlier block that is read did not run.
        """
        controller = self.record.controller.to(states.device)
        rule = self.record.rules(rows)
        if self.again:
            verdicts = self.record.met[0].verdicts
        else:
            verdicts = self.record.allowed(controller.decide(self._read_with(states), rule), rows)
        left = controller.steer(states, verdicts, rule) if controller.pushes else states
        if not self.again:
            self.record.met.append(Met(self.rows, states, verdicts, left))
        return left

    def _read_with(self, states: torch.Tensor) -> torch.Tensor:
        """(n, R D) states of all layers that are read, the steered one's (n, D) last."""
        earlier = self.record.earlier
        if missing := [layer for layer in earlier if layer not in self.states]:
            raise IncompatibleModelError(
                f"blocks {missing}, which the adapter reads, did not run before the steered one in this forward pass. "
                "This architecture cannot be steered by it"
            )
        read = [self.states[layer].to(states.device, states.dtype) for layer in earlier]
        return torch.cat([*read, states], dim=1) if read else states

    def _check(self, hidden: torch.Tensor) -> None:
        if hidden.ndim != 3 or tuple(hidden.shape[:2]) != self.shape:
            raise IncompatibleModelError(
                f"the steered block returned a state of shape {tuple(hidden.shape)}; expected (rows, tokens, width) "
                f"with {self.shape[0]} rows of {self.shape[1]} tokens. This architecture cannot be steered"
            )


@dataclass
class Ending:
    """The end of the prompts in one forward pass, where its logits are those of the first answer tokens.

    Attributes:
        shape: (rows, tokens) of the pass.
        index: index of the rows' last column in the pass; in rows padded on the right it is no token of theirs.
        records: those of all adapters that steer the call.
        used: the pass's logits have been biased. The model may run again before the next pass is located (for
            classifier-free guidance); that run's are not.
    """

    shape: tuple[int, int]
    index: int
    records: "list[Record]"
    used: bool = False

    def bias(self, logits: torch.Tensor) -> None:
        """Biases the openings in the (B, T', V) logits of the pass's last T' tokens, in place.

        Raises:
            IncompatibleModelError: `logits` has another number of rows than the pass.
        """
        self.used = True
        if logits.shape[0] != self.shape[0]:
            found = tuple(logits.shape)
            raise IncompatibleModelError(f"the model returned logits of shape {found}; expected {self.shape[0]} rows")
        index = self.index - self.shape[1] + logits.shape[1]
        if index < 0:
            return  # without a cache, a later pass, whose logits are those of a later token
        biases = []
        for record in self.records:
            if (opening := record.controller.opening) is not None:
                biases.append((opening, record.gates(logits)))
                record.biased = True
        logits[:, index] = biased_logits(logits[:, index], biases)


class Slot(threading.local):
    """What to change in the next forward pass, for each thread its own; None where there is nothing to."""

    window: Window | None = None
    ending: Ending | None = None


class Met(NamedTuple):
    """The last prompt tokens that one forward pass steered.

    Attributes:
        rows: (n,) indices of the rows.
        states: (n, D) their states before the step.
        verdicts: their decisions.
        left: (n, D) their states behind the step.
    """

    rows: NDArray[np.int64]
    states: torch.Tensor
    verdicts: Verdicts
    left: torch.Tensor


@dataclass
class Record:
    """What one adapter did in one generate() call.

    Attributes:
        slot: where the adapter's hook finds the next window.
        controller: the adapter's controller when the call began.
        domains: (K,) names of the controller's domains.
        last: (B,) index of the last prompt token in each row as given to generate(), or to the latest run of its loop.
        earlier: layers below the steered one that the probes read.
        scope: which prompts the adapter acts on; None for all.
        seen: what the prompts of the call are.
        met: one entry for each forward pass with last prompt tokens that were not steered before.
        expand: number of beams or return sequences for each of the B rows.
        biased: whether the logits of the first answer tokens were biased.
    """

    slot: Slot
    controller: Controller
    domains: tuple[str, ...]
    last: NDArray[np.int64]
    earlier: tuple[int, ...] = ()
    scope: Scope | None = None
    seen: SeenPrompts = field(default_factory=SeenPrompts)
    met: list[Met] = field(default_factory=list)
    expand: int = 1
    biased: bool = False
    _acts: torch.Tensor | None = None
    _rules: torch.Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether all was done that the adapter does in a run of the loop."""
        return bool(self.met) and (self.biased or self.controller.opening is None)

    def gates(self, logits: torch.Tensor) -> torch.Tensor:
        """(B,) the gates of the rows of (B, T, V) logits, on their device; 0 for rows that are not decided."""
        found = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        for rows, _, verdicts, _ in self.met:
            found[torch.from_numpy(rows).to(found.device)] = verdicts.gate.to(found.device)
        return found

    def see(self, tokens: torch.Tensor | None) -> None:
        """Looks at what (B, T) prompts are; None where these are not known."""
        seen = self.seen = SeenPrompts() if self.scope is None else self.scope.look(tokens, len(self.last))
        where = "cpu" if tokens is None else tokens.device  # now, as a copy in the hook would wait for the device
        rules = seen.rules if self.controller.others else None
        self._acts = None if seen.acts is None else torch.tensor(seen.acts, device=where)
        self._rules = None if rules is None else torch.tensor(rules, device=where)

    def rules(self, rows: torch.Tensor) -> torch.Tensor | None:
        """(n,) by which kind's controller some (n,) rows of a pass are decided; None where there is one alone."""
        return None if self._rules is None else self._rules.to(rows.device)[rows // self.expand]

    def allowed(self, verdicts: Verdicts, rows: torch.Tensor) -> Verdicts:
        """The verdicts for some (n,) rows of a pass, with gate 0 where the adapter does not act on the prompt."""
        if self._acts is None:
            return verdicts
        return verdicts._replace(gate=verdicts.gate * self._acts.to(rows.device)[rows // self.expand])

    def change(self, row: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The (D,) state of a row before its step and behind it; None where they are the same."""
        for met in self.met:
            for place in np.flatnonzero(met.rows == row):
                before, after = met.states[place], met.left[place]
                return (
                    None if torch.equal(before, after) else (before.float().cpu().numpy(), after.float().cpu().numpy())
                )
        return None

    def decisions(self) -> list[Decision]:
        """One decision for each row decided so far, in order; the beams of a row share its prompt and its decision."""
        found: dict[int, Decision] = {}
        controller = self.controller if self.biased else replace(self.controller, opening=None)
        action = controller.action
        for rows, states, verdicts, _ in self.met:
            rule = self.rules(torch.from_numpy(rows).to(states.device))
            shares = self.controller.lengths(verdicts, rule) / states.float().norm(dim=1).clamp(min=1e-12)
            if self.controller.cap:
                shares = shares.clamp(max=self.controller.cap)
            for row, share, domain, p_tool, gate in zip(
                *(values.tolist() for values in (rows, shares, *verdicts)), strict=True
            ):
                position = int(self.last[row // self.expand])
                done = {"applied": True, "relative_step": share, "action": action} if gate and action else {}
                state, reason = self.seen.of_row(row // self.expand)
                name = self.domains[domain % len(self.domains)]
                decision = Decision(name, p_tool, gate, position, reason=reason, state=state)
                found.setdefault(row // self.expand, replace(decision, **done))
        return [found[row] for row in sorted(found)]
