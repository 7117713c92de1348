"""Which rows of a call an adapter acts on, told from their prompts' token ids, and why it leaves others alone."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asa_adapter.config.value_checks import STATES
from asa_adapter.matching.prompt_resemblance import NO_TOOLS, Resemblance
from asa_adapter.matching.state_kinds import told_kinds
from asa_adapter.matching.token_runs import packed_rows

NO_KIND = "the kind of state in which the prompt ends is not known, and the adapter treats each kind in its own way"


def state_not_fitted(state: str) -> str:
    """Why a row of a kind of state that was not fitted is left alone."""
    where = {"first": "behind the user's turn", "after_result": "behind a tool's result"}[state]
    return f"the prompt ends {where} ({state!r}), and the adapter was not fitted on such states"


@dataclass(frozen=True)
class SeenPrompts:
    """What the prompts of one call are.

    Attributes:
        states: kinds of state that are fitted.
        offers: for each of B prompts whether it offers tools; None where that does not matter, or cannot be told.
        kinds: for each its kind of state as an index into `STATES`, -1 where it is not known; None where none is.
        every_state: whether rows of other kinds are steered too.
    """

    states: tuple[str, ...] = STATES[:1]
    offers: Sequence[bool] | None = None
    kinds: Sequence[int] | None = None
    every_state: bool = False

    @functools.cached_property
    def acts(self) -> list[bool] | None:
        """Whether each row is steered; None where all are."""
        fitted = None if self.every_state or self.rules is None else [rule >= 0 for rule in self.rules]
        known = [one for one in (self.offers, fitted) if one is not None]
        found = [all(row) for row in zip(*known, strict=True)]
        return None if all(found) else found

    @functools.cached_property
    def rules(self) -> list[int] | None:
        """By which of the fitted kinds each row is decided, -1 where it is of none of them; None where none is known.

        With one fitted kind, rows whose kind is not known are decided by it.
        """
        if self.kinds is None:
            return None
        places = [self.states.index(state) if state in self.states else -1 for state in STATES]
        unknown = -1 if len(self.states) > 1 else 0
        return [places[kind] if kind >= 0 else unknown for kind in self.kinds]

    def of_row(self, row: int) -> tuple[str, str]:
        """The kind of a row's state, "" where it is not known, and why the row is left alone, "" where it is not."""
        kind = -1 if self.kinds is None else self.kinds[row]
        state = STATES[kind] if kind >= 0 else ""
        if self.offers is not None and not self.offers[row]:
            return state, NO_TOOLS
        if self.every_state or self.acts is None or self.acts[row]:
            return state, ""
        return state, state_not_fitted(state) if state else NO_KIND


@dataclass(frozen=True)
class Scope:
    """Which prompts an adapter acts on.

    Attributes:
        fitted: what the prompts of the fit look like.
        without_tools: whether prompts that offer no tools are steered too.
        every_state: whether prompts are steered that end in a kind of state that was not fitted.
    """

    fitted: Resemblance
    without_tools: bool = False
    every_state: bool = False

    def look(self, tokens: torch.Tensor | None, rows: int) -> SeenPrompts:
        """What (B, T) prompts are, by their token ids; None where these are not known."""
        config = self.fitted.config
        several = len(config.states) > 1
        if tokens is None:
            unknown = [-1] * rows if several else None
            return SeenPrompts(config.states, None, unknown, self.every_state)
        prompts = packed_rows(tokens) if config.tools_marks or config.state_marks else []
        offers = None if self.without_tools else self.fitted.offers_tools(prompts)
        kinds = told_kinds(prompts, config.state_marks) if config.state_marks else None
        return SeenPrompts(config.states, offers, kinds, self.every_state)
