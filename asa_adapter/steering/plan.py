"""The plan of one generate() call: the last prompt token of each row, and the forward pass that processes it.

transformers runs a prompt in many ways: padded on either side, in chunks, followed by draft tokens, after a cache, or
again at every step without one. So the token's index is computed once, from the arguments of generate(), and is then
found in a forward pass by counting the tokens of the passes before.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.forward import given_cache
from asa_adapter.modeling.residual import last_prompt_index
from asa_adapter.steering.controller import Controller, Decision, Verdicts
from asa_adapter.steering.resemblance import NO_TOOLS


@dataclass
class Window:
    """The last prompt tokens in one forward pass.

    Attributes:
        shape: (rows, tokens) of the pass.
        rows: (n,) indices of the rows whose last prompt token is in this pass.
        where: these rows and the index of the token in each: two (n,) int64 tensors on the device of the inputs.
        record: where the decisions are stored.
        again: the pass repeats tokens that were steered before (there is no cache), so the same decisions apply.
        used: the pass has been steered. The block may run again before the next pass is located (for classifier-free
            guidance, or where a model runs a block twice); that run is not steered.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    where: tuple[torch.Tensor, ...]
    record: "Record"
    again: bool
    used: bool = False

    def steer(self, hidden: torch.Tensor, in_place: bool) -> torch.Tensor:
        """The residual stream `hidden`, (B, T, D), with its last prompt tokens steered; the same tensor if `in_place`.

        Raises:
            IncompatibleModelError: `hidden` has another shape than the pass.
        """
        self.used = True
        if hidden.ndim != 3 or tuple(hidden.shape[:2]) != self.shape:
            raise IncompatibleModelError(
                f"the steered block returned a state of shape {tuple(hidden.shape)}; expected (rows, tokens, width) "
                f"with {self.shape[0]} rows of {self.shape[1]} tokens. This architecture cannot be steered"
            )
        where = tuple(index.to(hidden.device) for index in self.where)
        controller = self.record.controller.to(hidden.device)
        states = hidden[where]
        if self.again:
            verdicts = self.record.met[0].verdicts
        else:
            verdicts = self.record.allowed(controller.decide(states), where[0])
            self.record.met.append(Met(self.rows, states, verdicts))
        if not controller.step:
            return hidden
        steered = hidden if in_place else hidden.clone()
        steered[where] = controller.steer(states, verdicts)
        return steered


class Slot(threading.local):
    """The window on the next forward pass, for each thread its own; None where there is nothing to steer."""

    window: Window | None = None


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
        last: (B,) index of the last prompt token in each row as given to generate().
        offers_tools: (B,) bool, whether each prompt offers tools; one that does not is left alone. None steers all.
        met: one entry for each forward pass with last prompt tokens that were not steered before.
        expand: number of beams or return sequences for each of the B rows.
    """

    slot: Slot
    controller: Controller
    domains: tuple[str, ...]
    last: NDArray[np.int64]
    offers_tools: torch.Tensor | None = None
    met: list[Met] = field(default_factory=list)
    expand: int = 1

    def allowed(self, verdicts: Verdicts, rows: torch.Tensor) -> Verdicts:
        """The verdicts for some (n,) rows of a pass, with gate 0 where the prompt offers no tools."""
        if self.offers_tools is None:
            return verdicts
        offers = self.offers_tools.to(rows.device)[rows // self.expand]
        return verdicts._replace(gate=verdicts.gate * offers)

    def decisions(self) -> list[Decision]:
        """One decision for each row decided so far, in order; the beams of a row share its prompt and its decision."""
        found: dict[int, Decision] = {}
        offers = [True] * len(self.last) if self.offers_tools is None else self.offers_tools.tolist()
        for rows, states, verdicts in self.met:
            shares = self.controller.step / states.float().norm(dim=1).clamp(min=1e-12)
            for row, share, domain, p_tool, gate in zip(
                *(values.tolist() for values in (rows, shares, *verdicts)), strict=True
            ):
                position = int(self.last[row // self.expand])
                step = {"applied": True, "relative_step": share} if gate else {}
                reason = "" if offers[row // self.expand] else NO_TOOLS
                decision = Decision(self.domains[domain], p_tool, gate, position, **step, reason=reason)
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
        closed: no more windows will be opened.
    """

    last: NDArray[np.int64]
    width: int
    records: list[Record]
    fed: int = 0
    done: bool = False
    begun: bool = False
    closed: bool = False

    def locate(self, inputs: Mapping[str, Any], cached: bool, of_prompt: bool = False) -> None:
        """Opens each record's window on the next forward pass, if that has last prompt tokens.

        Args:
            inputs: what prepare_inputs_for_generation() returned for the pass.
            cached: whether the pass continues where the one before ended; without a cache it starts at token 0.
            of_prompt: whether transformers says that the pass is of the prompt (`is_first_iteration`).

        Raises:
            IncompatibleModelError: the pass has a number of rows that is not a multiple of B.
        """
        if cached and (self.done or (self.begun and not of_prompt)):
            self.close()
            return
        self.begun |= of_prompt
        tokens = inputs.get("inputs_embeds")
        tokens = inputs["input_ids"] if tokens is None else tokens
        rows, count = tokens.shape[:2]
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
        for record in self.records:
            record.expand = expand
            record.slot.window = (
                Window(
                    shape=(rows, count),
                    rows=met,
                    where=where,
                    record=record,
                    again=not cached and bool(record.met),
                )
                if len(met)
                else None
            )

    def close(self) -> None:
        """Closes all windows, when the prompt is done or generate() ends, also by an error."""
        self.closed = True
        for record in self.records:
            record.slot.window = None


def prompt_tokens(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[NDArray[np.int64], int, int]:
    """Finds the last prompt tokens in the arguments of a generate() call.

    Args:
        model: the model whose generate() is called.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        last: (B,) index of the last prompt token in each row of the tokens that the call feeds to the model.
        width: number of prompt tokens that the call feeds in each row.
        cached: number of tokens in each given row that the cache already holds; they are not fed again.

    Raises:
        TypeError: the prompt is not a tensor of shape (rows, tokens), or the attention mask not one of two dimensions.
        ValueError: draft tokens together with a filled cache, or a row of the attention mask without a token.
    """
    given = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1])
    tokens = next((value for value in given if value is not None), None)
    if tokens is None:
        return np.zeros(1, dtype=np.int64), 1, 0  # generate() starts from one BOS token
    if not isinstance(tokens, torch.Tensor) or tokens.ndim < 2:
        found = tuple(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise TypeError(f"generate() was given {found}; expected a tensor of token ids, shape (rows, tokens)")
    rows, length = tokens.shape[:2]
    mask = kwargs.get("attention_mask")
    if mask is not None and not (isinstance(mask, torch.Tensor) and mask.ndim == 2):
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise TypeError(f"attention_mask is {found}; expected a tensor of shape (rows, tokens)")
    if mask is None:
        mask = _inferred_mask(model, args, kwargs, tokens)
    width = length
    cached = _cached_length(given_cache(kwargs))
    if cached and (
        kwargs.get("assistant_model") is not None or _setting("prompt_lookup_num_tokens", model, args, kwargs)
    ):
        raise ValueError(
            "generate() was given a filled cache together with draft tokens (assistant_model or "
            "prompt_lookup_num_tokens); transformers then feeds the cached tokens again, so the answer cannot be "
            "steered. Leave out one of the two"
        )
    if mask is None or mask.shape[1] == length:
        # The rows include the tokens in the cache. Where they do not, the mask is longer than the rows.
        width -= cached
    last = np.full(rows, width - 1) if mask is None else last_prompt_index(mask[:, -width:]).numpy()
    return last, width, length - width


def visible_tokens(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """The (B, T) token ids of whole prompts in the arguments of a generate() call.

    None where they cannot be seen: embeddings were given, or only the tokens behind those in a cache.
    """
    given = (kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1])
    tokens = next((value for value in given if value is not None), None)
    if kwargs.get("inputs_embeds") is not None or not isinstance(tokens, torch.Tensor):
        return None
    if tokens.ndim != 2 or tokens.is_floating_point() or not tokens.shape[1]:
        return None
    mask = kwargs.get("attention_mask")
    behind = isinstance(mask, torch.Tensor) and mask.shape[-1] > tokens.shape[1]
    return None if behind else tokens


def _cached_length(cache: Any) -> int:
    """Number of tokens in a cache; 0 for None."""
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except ValueError:  # a cache with recurrent states only does not count tokens
        return 0


def _inferred_mask(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], tokens: torch.Tensor
) -> torch.Tensor | None:
    """The (B, T) mask that generate() makes where it is given none: without pad tokens, unless these are EOS too."""
    if tokens.ndim != 2 or tokens.is_floating_point():
        return None
    pad, eos = (_setting(name, model, args, kwargs) for name in ("pad_token_id", "eos_token_id"))
    ends = eos.tolist() if isinstance(eos, torch.Tensor) else eos
    if pad is None or pad == ends or (isinstance(ends, list) and pad in ends):
        return None
    mask = tokens.ne(pad)
    return None if bool(mask.all()) else mask.long()


def _setting(name: str, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A setting as generate() resolves it: its own argument, else the given generation_config, else the model's."""
    configs = (kwargs.get("generation_config"), *args[1:2], getattr(model, "generation_config", None))
    values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
    return next((value for value in values if value is not None), None)
