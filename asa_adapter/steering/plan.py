"""The plan of one generate() call: the last prompt token of each row, and the forward pass that processes it.

transformers runs a prompt in many ways: padded on either side, in chunks, followed by draft tokens, after a cache, or
again at every step without one. So the token's index is computed once for each run of its loop, and is then found in a
forward pass by counting the tokens of the passes before. A decoding strategy may run the loop several times and with
other prompts than generate() was given: `asa_adapter.steering.runs` reads each run's own prompt from its first pass.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.matching.resemblance import NO_TOOLS, Resemblance
from asa_adapter.parts.openings import biased
from asa_adapter.steering.controller import Controller, Decision, Verdicts
from asa_adapter.steering.runs import Loop, Prompt, own_prompt, shared_by_beams, whole_rows


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
        controller = self.record.controller.to(hidden.device)
        states = hidden[where]
        if self.again:
            verdicts = self.record.met[0].verdicts
        else:
            verdicts = self.record.allowed(controller.decide(self._read_with(states)), where[0])
            self.record.met.append(Met(self.rows, states, verdicts))
        if not controller.step:
            return hidden
        steered = hidden if in_place else hidden.clone()
        steered[where] = controller.steer(states, verdicts)
        return steered

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
        logits[:, index] = biased(logits[:, index], biases)


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
    """

    rows: NDArray[np.int64]
    states: torch.Tensor
    verdicts: Verdicts


@dataclass
class Record:
    """What one adapter did in one generate() call.

    Attributes:
        slot: where the adapter's hook finds the next window.
        controller: the adapter's controller when the call began.
        domains: (K,) names of the controller's domains.
        last: (B,) index of the last prompt token in each row as given to generate(), or to the latest run of its loop.
        earlier: layers below the steered one that the probes read.
        fitted: tells which prompts offer tools, since one that does not is left alone; None steers all.
        offers_tools: (B,) bool, what it told; None where it cannot tell.
        met: one entry for each forward pass with last prompt tokens that were not steered before.
        expand: number of beams or return sequences for each of the B rows.
        biased: whether the logits of the first answer tokens were biased.
    """

    slot: Slot
    controller: Controller
    domains: tuple[str, ...]
    last: NDArray[np.int64]
    earlier: tuple[int, ...] = ()
    fitted: Resemblance | None = None
    offers_tools: torch.Tensor | None = None
    met: list[Met] = field(default_factory=list)
    expand: int = 1
    biased: bool = False

    @property
    def whole(self) -> bool:
        """Whether all was done that the adapter does in a run of the loop."""
        return bool(self.met) and (self.biased or self.controller.opening is None)

    def gates(self, logits: torch.Tensor) -> torch.Tensor:
        """(B,) the gates of the rows of (B, T, V) logits, on their device; 0 for rows that are not decided."""
        found = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        for rows, _, verdicts in self.met:
            found[torch.from_numpy(rows).to(found.device)] = verdicts.gate.to(found.device)
        return found

    def see(self, tokens: torch.Tensor | None) -> None:
        """Looks for tools in (B, T) prompts; None where these are not known."""
        self.offers_tools = None if self.fitted is None or tokens is None else self.fitted.offers_tools(tokens)

    def allowed(self, verdicts: Verdicts, rows: torch.Tensor) -> Verdicts:
        """The verdicts for some (n,) rows of a pass, with gate 0 where the prompt offers no tools."""
        if self.offers_tools is None:
            return verdicts
        offers = self.offers_tools.to(rows.device)[rows // self.expand]
        return verdicts._replace(gate=verdicts.gate * offers)

    def decisions(self) -> list[Decision]:
        """One decision for each row decided so far, in order; the beams of a row share its prompt and its decision."""
        found: dict[int, Decision] = {}
        controller = self.controller if self.biased else replace(self.controller, opening=None)
        action = controller.action
        offers = [True] * len(self.last) if self.offers_tools is None else self.offers_tools.tolist()
        for rows, states, verdicts in self.met:
            shares = self.controller.step / states.float().norm(dim=1).clamp(min=1e-12)
            for row, share, domain, p_tool, gate in zip(
                *(values.tolist() for values in (rows, shares, *verdicts)), strict=True
            ):
                position = int(self.last[row // self.expand])
                done = {"applied": True, "relative_step": share, "action": action} if gate and action else {}
                reason = "" if offers[row // self.expand] else NO_TOOLS
                decision = Decision(self.domains[domain], p_tool, gate, position, **done, reason=reason)
                found.setdefault(row // self.expand, decision)
        return [found[row] for row in sorted(found)]


@dataclass
class Call:
    """One running generate() call.

    Attributes:
        last: (B,) index of the last prompt token in each row of the tokens that this call feeds to the model.
        width: number of prompt tokens in each of these rows, without those that a given cache already holds.
        records: one for each adapter that steers the call.
        fed: number of tokens in each row that went through the model so far.
        done: all prompt tokens went through the model, so a pass with a cache has no last prompt token any more.
        begun: a pass was said to be of the prompt; a later one that is not said to be so is of the answer.
        closed: no more windows will be opened, unless another run of the loop begins.
        given: the prompt that generate() was given.
        drafts: generate() was asked for draft tokens.
        loop: what transformers said about the run that begins next.
        looped: depth of the innermost generate(), of those inside each other, that ran the model itself; 0: none yet.
        asked_inside: a generate() inside this one was not steered, and no pass of this one came after it.
        missed: a run of the loop was not steered.
    """

    last: NDArray[np.int64]
    width: int
    records: list[Record]
    fed: int = 0
    done: bool = False
    begun: bool = False
    closed: bool = False
    given: Prompt | None = None
    drafts: bool = False
    loop: Loop | None = None
    looped: int = 0
    asked_inside: bool = False
    missed: bool = False

    @property
    def steered(self) -> bool:
        """Whether the call was steered, in each run of the loop."""
        return not (self.missed or self.asked_inside) and all(record.whole for record in self.records)

    def expect(self, last: NDArray[np.int64], width: int, cached: int, drafts: bool) -> None:
        """The next run of the loop comes from a generate() with this prompt (see `prompt_tokens`)."""
        self.given, self.drafts = Prompt(last, width, cached), drafts

    def locate(
        self,
        inputs: Mapping[str, Any],
        cached: bool,
        of_prompt: bool = False,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens each record's window on the next forward pass, if that has last prompt tokens.

        Args:
            inputs: what prepare_inputs_for_generation() returned for the pass.
            cached: whether the pass continues where the one before ended; without a cache it starts at token 0.
            of_prompt: whether transformers says that the pass is of the prompt (`is_first_iteration`).
            asked: the arguments of prepare_inputs_for_generation() by name.

        Raises:
            IncompatibleModelError: the pass has a number of rows that is not a multiple of B.
        """
        tokens = inputs.get("inputs_embeds")
        tokens = inputs["input_ids"] if tokens is None else tokens
        rows, count = tokens.shape[:2]
        if self._begins(count, cached, of_prompt):
            self._begin(inputs, asked or {}, rows, count)
        elif cached and (self.done or (self.begun and not of_prompt)):
            # A strategy with a loop of its own may feed a second prompt without saying so.
            self.missed |= not self.begun and count > 1 and not self.drafts
            self.close()
            return
        self.begun |= of_prompt
        expand, rest = divmod(rows, len(self.last))
        if rest:
            raise IncompatibleModelError(
                f"generate() made {rows} rows out of {len(self.last)}; cannot tell which is which"
            )
        start = self.fed if cached else 0
        self.fed = start + count
        self.done = cached and self.fed >= self.width
        index = np.repeat(self.last, expand) - start
        met = np.flatnonzero((index >= 0) & (index < count))
        where = tuple(torch.from_numpy(x).to(tokens.device) for x in (met, index[met])) if len(met) else ()
        end = self.width - 1 - start
        ending = Ending((rows, count), end, self.records) if 0 <= end < count else None
        for record in self.records:
            record.expand, record.slot.ending = expand, ending
            again = not cached and bool(record.met)
            record.slot.window = Window((rows, count), met, where, record, again) if len(met) else None

    def _begins(self, count: int, cached: bool, of_prompt: bool) -> bool:
        """Whether a run of the loop begins with a pass; one that goes on where the pass before ended is a chunk."""
        if of_prompt:
            return not self.begun or self.done or self.closed or not cached
        if self.begun or self.given is None:
            return False
        if not self.fed:
            return count > self.width and not self.drafts
        return not cached and count < self.fed

    def _begin(self, inputs: Mapping[str, Any], asked: Mapping[str, Any], rows: int, count: int) -> None:
        """Plans a run of the loop from what its first pass is given; its decisions replace those of an earlier run."""
        again = self.fed > 0
        if again:
            self.missed |= not all(record.whole for record in self.records)
        self.fed, self.done, self.closed = 0, False, False
        loop, self.loop = self.loop, None
        if self.given is None:
            return
        prompt = own_prompt(self.given, inputs, asked, count, loop, self.drafts, first=not again)
        self.last, self.width = shared_by_beams(prompt.last, rows, len(self.given.last)), prompt.width
        tokens = whole_rows(inputs, asked, loop, len(self.last))
        for record in self.records:
            record.last = self.last + prompt.before
            record.met, record.expand, record.biased = [], 1, False
            if again or len(self.last) != len(self.given.last):
                record.see(tokens)

    def close(self) -> None:
        """Closes all windows, when the prompt is done or generate() ends, also by an error."""
        self.closed = True
        for record in self.records:
            record.slot.window = record.slot.ending = None
