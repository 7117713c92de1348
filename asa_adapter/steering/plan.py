"""The plan of one generate() call: which token of each row is the prompt's last, and which forward pass meets it.

transformers runs a prompt in many ways: padded on either side, in chunks, with draft tokens behind it, behind a cache,
or again and again without one. So the token is fixed once, from what generate() was given, and then looked for in
each forward pass by counting the tokens that were fed before it.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.forward import CACHE
from asa_adapter.modeling.residual import last_prompt_index
from asa_adapter.steering.controller import Controller, Decision, Verdicts


@dataclass
class Window:
    """Where one forward pass meets last prompt tokens.

    Attributes:
        shape: (rows, tokens) of the pass.
        rows: (n,) rows to steer.
        where: the same rows and the index of the token in each of them, two (n,) tensors on the model's device.
        record: where the verdicts go.
        again: the pass repeats tokens that were steered before (there is no cache): the same verdicts hold.
        used: the pass was steered; whatever runs before the next one is located (guidance, a block that the model
            runs twice) is not.
    """

    shape: tuple[int, int]
    rows: NDArray[np.int64]
    where: tuple[torch.Tensor, ...]
    record: "Record"
    again: bool
    used: bool = False

    def steer(self, hidden: torch.Tensor, in_place: bool) -> torch.Tensor:
        """The (B, T, D) residual stream with its last prompt tokens steered; the same tensor if `in_place`."""
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
            verdicts = controller.decide(states)
            self.record.met.append(Met(self.rows, states, verdicts))
        if not controller.step:
            return hidden
        steered = hidden if in_place else hidden.clone()
        steered[where] = controller.steer(states, verdicts)
        return steered


class Slot(threading.local):
    """A handle's window on the next forward pass of the running thread."""

    window: Window | None = None


class Met(NamedTuple):
    """What one forward pass met: (n,) rows, their (n, D) states before the step, and the verdicts."""

    rows: NDArray[np.int64]
    states: torch.Tensor
    verdicts: Verdicts


@dataclass
class Record:
    """What one adapter did during one generate() call.

    Attributes:
        slot: where its hook looks for the next window.
        controller: its controller as it was when the call began.
        domains: (K,) names of the controller's domains.
        last: (B,) index of the last prompt token in each row as given to generate().
        met: one for each forward pass that met last prompt tokens.
        expand: number of beams or return sequences made of each row.
    """

    slot: Slot
    controller: Controller
    domains: tuple[str, ...]
    last: NDArray[np.int64]
    met: list[Met] = field(default_factory=list)
    expand: int = 1

    def decisions(self) -> list[Decision]:
        """One decision for each row that was met so far, in order; a row's beams share their prompt and decision."""
        found: dict[int, Decision] = {}
        for rows, states, verdicts in self.met:
            shares = self.controller.step / states.float().norm(dim=1).clamp(min=1e-12)
            for row, share, domain, p_tool, gate in zip(
                *(values.tolist() for values in (rows, shares, *verdicts)), strict=True
            ):
                position = int(self.last[row // self.expand])
                step = {"applied": True, "relative_step": share} if gate else {}
                decision = Decision(self.domains[domain], p_tool, gate, position, **step)
                found.setdefault(row // self.expand, decision)
        return [found[row] for row in sorted(found)]


@dataclass
class Call:
    """One generate() call under way.

    Attributes:
        last: (B,) index of the last prompt token among the tokens that this call feeds.
        width: number of prompt tokens that this call feeds.
        records: one for each adapter that steers it.
        fed: number of tokens that went through the model so far.
        done: no later forward pass can meet a last prompt token.
        closed: all windows are shut for good.
    """

    last: NDArray[np.int64]
    width: int
    records: list[Record]
    fed: int = 0
    done: bool = False
    closed: bool = False

    def locate(self, inputs: Mapping[str, Any], cached: bool) -> None:
        """Opens each record's window on the forward pass that `inputs` are for.

        Args:
            inputs: what prepare_inputs_for_generation() returned.
            cached: the pass goes on where the one before ended; without a cache each begins at the first token.
        """
        if self.done and cached:
            self.close()
            return
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
        """Shuts all windows: the prompt is done, or generate() ended, by an error perhaps."""
        self.closed = True
        for record in self.records:
            record.slot.window = None


def prompt_tokens(model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[NDArray[np.int64], int, int]:
    """Reads the arguments of a generate() call.

    Returns:
        (B,) indices of the last prompt tokens among the tokens that the call feeds; the number of tokens it
        feeds; and the number of tokens of the rows as given that a cache already holds.
    """
    given = (kwargs.get("inputs_embeds"), kwargs.get("input_ids"), kwargs.get("inputs"), *args[:1])
    tokens = next((value for value in given if value is not None), None)
    if tokens is None:
        return np.zeros(1, dtype=np.int64), 1, 0  # generate() begins with one BOS
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
    cached = _cached_length(kwargs.get(CACHE))
    if cached and (
        kwargs.get("assistant_model") is not None or _setting("prompt_lookup_num_tokens", model, args, kwargs)
    ):
        raise ValueError(
            "generate() was given a filled cache together with draft tokens (assistant_model or "
            "prompt_lookup_num_tokens); transformers then feeds the cached tokens again, so the answer cannot be "
            "steered. Leave out one of the two"
        )
    if mask is None or mask.shape[1] == length:
        # The rows hold what the cache holds and more; else they are the new tokens alone, and only the mask is longer.
        width -= cached
    last = np.full(rows, width - 1) if mask is None else last_prompt_index(mask[:, -width:]).numpy()
    return last, width, length - width


def _cached_length(cache: Any) -> int:
    if cache is None:
        return 0
    try:
        return int(cache.get_seq_length())
    except ValueError:  # a cache of recurrent states alone does not count tokens
        return 0


def _inferred_mask(
    model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], tokens: torch.Tensor
) -> torch.Tensor | None:
    """The mask that generate() makes where it was given none: pad tokens are out, unless they end rows too."""
    if tokens.ndim != 2 or tokens.is_floating_point():
        return None
    pad, eos = (_setting(name, model, args, kwargs) for name in ("pad_token_id", "eos_token_id"))
    ends = eos.tolist() if isinstance(eos, torch.Tensor) else eos
    if pad is None or pad == ends or (isinstance(ends, list) and pad in ends):
        return None
    mask = tokens.ne(pad)
    return None if bool(mask.all()) else mask.long()


def _setting(name: str, model: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A setting as generate() finds it: its own argument, else the given configuration's, else the model's."""
    configs = (kwargs.get("generation_config"), *args[1:2], getattr(model, "generation_config", None))
    values = (kwargs.get(name), *(getattr(config, name, None) for config in configs))
    return next((value for value in values if value is not None), None)
