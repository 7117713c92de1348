"""The plan of one generate() call: the last prompt token of each row, and the forward pass that processes it.

transformers runs a prompt in many ways: padded on either side, in chunks, followed by draft tokens, after a cache, or
again at every step without one. So the token's index is computed once for each run of its loop, and is then found in a
forward pass by counting the tokens of the passes before. A decoding strategy may run the loop several times and with
other prompts than generate() was given: `asa_adapter.steering.loop_prompts` reads each run's own from its first pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.steering.loop_prompts import Loop, Prompt, prompt_of_loop, shared_by_beams, whole_prompts_of_loop
from asa_adapter.steering.windows_and_records import Ending, Record, Window


@dataclass
class CallPlan:
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
        shown: shape of the tokens in which the records saw tools and kinds of state; None where there were none.
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
    shown: torch.Size | None = None

    @property
    def steered(self) -> bool:
        """Whether the call was steered, in each run of the loop."""
        return not (self.missed or self.asked_inside) and all(record.whole for record in self.records)

    def expect(
        self, last: NDArray[np.int64], width: int, cached: int, drafts: bool, mask: torch.Tensor | None = None
    ) -> None:
        """The next run of the loop comes from a generate() with this prompt (see `prompt_tokens`) and this mask."""
        self.given, self.drafts = Prompt(last, width, cached, mask), drafts

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
        prompt = prompt_of_loop(self.given, inputs, asked, count, loop, self.drafts, first=not again)
        self.last, self.width = shared_by_beams(prompt.last, rows, len(self.given.last)), prompt.width
        tokens = whole_prompts_of_loop(inputs, asked, loop, len(self.last))
        # Told by the shape alone: a look at the tokens would wait for the device.
        other = self.shown is not None and tokens is not None and tokens.shape != self.shown
        for record in self.records:
            record.last = self.last + prompt.before
            record.met, record.expand, record.biased = [], 1, False
            if again or other or len(self.last) != len(self.given.last):
                record.see(tokens)

    def close(self) -> None:
        """Closes all windows, when the prompt is done or generate() ends, also by an error."""
        self.closed = True
        for record in self.records:
            record.slot.window = record.slot.ending = None
