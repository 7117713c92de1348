"""`Leads`: answers that are made once, where several are asked for that cannot differ.

A greedy answer is given by what the model has read and by the first token. So a first token that is forced, by
whatever rule, goes on like any other answer to the prompt with that token; and so do rows that adapters leave alone,
or whose state they change alike.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.answering.forcing import Forcing

# What acts on a model's answers: an adapter, the first token forced; None for nothing.
Variant = ASAAdapter | Forcing | None

# The most answers that are tried before an answer is made.
_GUESSES = 2

# Takes the place of an answer, its tokens, and whether it was cut.
Deliver = Callable[[Any, list[int], bool], None]


class Lead:
    """An answer on its way, and the places it belongs to.

    Attributes:
        state: (D,) the state that an adapter left where the answer begins; None where it was left alone.
        guesses: other answers to the same prompt that began with the same token, the likeliest first.
    """

    def __init__(self, deliver: Deliver, place: Any) -> None:
        self._deliver, self._places = deliver, [place]
        self._answer: tuple[list[int], bool] | None = None
        self._other: Lead | None = None
        self.state: NDArray[np.float32] | None = None
        self.guesses: list[Lead] = []

    @property
    def guess(self) -> "list[int] | None":
        """The tokens of the likeliest guess; None where that is not there yet."""
        return self.guesses[0]._answer[0] if self.guesses and self.guesses[0]._answer else None

    def refuse(self) -> None:
        """The answer is not the likeliest guess. Of the others those stay that are there and have other tokens."""
        wrong = self.guess
        self.guesses = [one for one in self.guesses[1:] if one._answer is not None and one._answer[0] != wrong]

    def confirm(self) -> None:
        """The answer is the likeliest guess."""
        assert self.guesses[0]._answer is not None
        self.end(*self.guesses[0]._answer)

    def add(self, place: Any) -> None:
        """The answer, if it is there or when it is, is that of one more place."""
        if self._other is not None:
            self._other.add(place)
        elif self._answer is not None:
            self._deliver(place, *self._answer)
        else:
            self._places.append(place)

    def end(self, tokens: list[int], cut: bool) -> None:
        """The answer is there."""
        self._answer = tokens, cut
        for place in self._places:
            self._deliver(place, tokens, cut)

    def follow(self, other: "Lead") -> None:
        """The answer is that of another one from now on."""
        self._other = other
        for place in self._places:
            other.add(place)


class Round(NamedTuple):
    """First tokens to be made at once.

    Attributes:
        name: the variant.
        rows: places in the batch of the prompts to run.
        leads: their answers.
        forcing: what happens to the first tokens.
    """

    name: str
    rows: list[int]
    leads: list[Lead]
    forcing: Forcing | None


class Leads:
    """The answers that several variants ask for of one batch of prompts.

    Args:
        prompts: B numbers, which tell the prompts apart.
        deliver: takes each answer; its place is the variant's name and the prompt's number.
        shares: whether answers are made once; not where they are sampled.
        guesses: whether answers that may be the same are looked at in one pass.
    """

    def __init__(self, prompts: Sequence[int], deliver: Deliver, shares: bool, guesses: bool = False) -> None:
        self._prompts, self._deliver, self._shares, self._guesses = prompts, deliver, shares, guesses
        self._asked: dict[Hashable, Lead] = {}
        self._begun: dict[Hashable, dict[Hashable, Lead]] = {}

    def rounds(self, variants: Mapping[str, Variant]) -> Iterator[Round]:
        """The rounds of first tokens, of B rows or less for each variant; what was asked for already is left out."""
        for name, variant in variants.items():
            rows, leads = [], []
            for row, prompt in enumerate(self._prompts):
                key = self._key(row, variant)
                if key is not None and key in self._asked:
                    self._asked[key].add((name, prompt))
                    continue
                rows.append(row)
                leads.append(Lead(self._deliver, (name, prompt)))
                if key is not None:
                    self._asked[key] = leads[-1]
            if rows:
                yield Round(name, rows, leads, variant.of(rows) if isinstance(variant, Forcing) else None)

    def _key(self, row: int, variant: Variant) -> Hashable:
        """Equal for rows on whose first tokens the same is done; None where that is not known."""
        if not self._shares or isinstance(variant, ASAAdapter):
            return None
        amount = 0.0 if variant is None else float(variant.amounts[row])
        return row, amount, variant.tokens if variant is not None and amount else ()

    def joined(self, begun: Round, handle: Any, row: int, token: int) -> bool:
        """Whether a row of a round, whose first token is there, goes on as another one does, which answers for it.

        Args:
            begun: the round, which has just ended.
            handle: steered it; None where nothing did.
            row: index in the round.
            token: its first token.
        """
        if not self._shares:
            return False
        own = begun.leads[row]
        change = None if handle is None or handle._record is None else handle._record.change(row)
        state = None if change is None else (handle.layer, change[1].tobytes())
        others = self._begun.setdefault((begun.rows[row], token), {})
        if state in others:
            own.follow(others[state])
            return True
        if self._guesses:
            likeliest = [*others.values()]
            if change is not None:  # an answer that is given behind a state like this one
                before, after = change
                own.state = after
                likeliest.sort(key=lambda one: _state_distance(after, before if one.state is None else one.state))
            own.guesses = likeliest[:_GUESSES]
        others[state] = own
        return False


def _state_distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """How far two leads' steered states are from each other: the answer of a near one is the likeliest guess."""
    return float(np.linalg.norm(a - b))
