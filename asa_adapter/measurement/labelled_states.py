"""`LabelledStates`: the states of one split at one layer, with what is known of its rows; and their labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelledStates:
    """One split at one layer.

    Attributes:
        states: (N, D) float32 residual states.
        labels: (N,) int64, 1 where a tool is needed, else 0.
        domains: (N,) domain names.
        groups: (N,) int64; rows that belong together, also of CAL and TRAIN, have the same number. None makes each row
            a group of its own.
        kinds: (N,) kinds of state in which the prompts end; None where one rule is for all of them.
        made: (N,) bool, True for rows that were made from others, with other tools; None where none was.
    """

    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    domains: list[str]
    groups: NDArray[np.int64] | None = None
    kinds: list[str] | None = None
    made: NDArray[np.bool_] | None = None

    @property
    def given(self) -> NDArray[np.bool_]:
        """(N,) bool, True for the rows as they were given."""
        return np.ones(len(self.labels), dtype=bool) if self.made is None else ~self.made

    def joined(self, others: Sequence["LabelledStates"]) -> "LabelledStates":
        """These rows and all others, as one; with groups where all have them."""
        parts = [self, *others]
        groups = [part.groups for part in parts if part.groups is not None]
        return LabelledStates(
            np.concatenate([part.states for part in parts]),
            np.concatenate([part.labels for part in parts]),
            [domain for part in parts for domain in part.domains],
            np.concatenate(groups) if len(groups) == len(parts) else None,
            None if self.kinds is None else [kind for part in parts for kind in part.kinds or []],
            ~np.concatenate([part.given for part in parts]),
        )

    def of_domains(self, names: Sequence[str]) -> "LabelledStates":
        """The rows of some domains."""
        rows = [i for i, domain in enumerate(self.domains) if domain in names]
        return LabelledStates(
            self.states[rows],
            self.labels[rows],
            [self.domains[i] for i in rows],
            None if self.groups is None else self.groups[rows],
            self.kinds and [self.kinds[i] for i in rows],
            None if self.made is None else self.made[rows],
        )

    def of_kind(self, kind: str) -> "LabelledStates":
        """The rows of one kind of state, without groups."""
        rows = [i for i, other in enumerate(self.kinds or []) if other == kind]
        return LabelledStates(self.states[rows], self.labels[rows], [self.domains[i] for i in rows])

    def behind(self, others: "LabelledStates", taken: Sequence[int] | None = None) -> "LabelledStates":
        """The other rows and those of these that are `taken` (None: all), as one, without groups.

        A row of the others is left out where it is in one group with a row that is not taken.
        """
        mine = np.arange(len(self.labels)) if taken is None else np.asarray(taken)
        theirs = np.arange(len(others.labels))
        if self.groups is not None and others.groups is not None:
            theirs = theirs[~np.isin(others.groups, np.setdiff1d(self.groups, self.groups[mine]))]
        return LabelledStates(
            np.concatenate([others.states[theirs], self.states[mine]]),
            np.concatenate([others.labels[theirs], self.labels[mine]]),
            [*(others.domains[i] for i in theirs), *(self.domains[i] for i in mine)],
            kinds=self.kinds and [*((others.kinds or [])[i] for i in theirs), *(self.kinds[i] for i in mine)],
            made=~np.concatenate([others.given[theirs], self.given[mine]]),
        )
