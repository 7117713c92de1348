"""How a gate bears other lists of tools, and whether router and probes are fitted on such lists too."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.adapter import ASAAdapter
from asa_adapter.config.training_arguments import ASATrainingArguments
from asa_adapter.data.prompt_landmarks import landmarks
from asa_adapter.matching.state_kinds import state_kind_fields
from asa_adapter.measurement.measured_decisions import decisions
from asa_adapter.measurement.measurements import Measurements
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.parts.classifiers import Probes
from asa_adapter.policy.controller import ternary_gate
from asa_adapter.policy.decision import Decision
from asa_adapter.report_schema import GATES_BY_LABEL, VARIATIONS
from asa_adapter.tool_calls.parser import ToolCallParser
from asa_adapter.training.tool_variations import mixed, varied

# Balanced accuracy that a probe may lose on VALID by a variation before such rows are fitted on, and then as given.
_MOST_LOSS = 0.03
_MOST_LOSS_AS_GIVEN = 0.01
_BINS = 20

# Takes the name of a split; gives (N,) bool, where the gate is +1.
Gate = Callable[[str], NDArray[np.bool_]]


class Robustness:
    """What other lists of tools do to one training.

    Args:
        measured: collects the states; rows with other tools are added to it.
        args: of these, vary_tools, Cs and seed are used.
        tools: tools for rows that have none of their own.

    Attributes:
        fitted_on: names of the splits with varied rows that router and probes are fitted on.
    """

    def __init__(self, measured: Measurements, args: ASATrainingArguments, tools: Tools | None) -> None:
        self._measured, self._args, self._tools = measured, args, tools
        self._left_out: dict[str, int] = {}
        self.fitted_on: tuple[str, ...] = ()

    def settle(self, layers: Sequence[int]) -> dict[str, Any]:
        """Decides by VALID whether router and probes are fitted on varied rows of CAL and TRAIN too, and makes these.

        Args:
            layers: indices of decoder blocks that may be read.

        Returns:
            What the report says under `vary_tools`.
        """
        self._left_out, self.fitted_on = {}, ()
        asked = self._args.vary_tools
        best = self._best_reading(layers) if asked is None else None
        losses = {} if best is None else self._losses(*best)
        worst = max(losses, key=lambda name: losses[name], default=None)
        vary = asked if worst is None else losses[worst] > _MOST_LOSS
        if worst is not None:
            why = f"probes on VALID lose at most {losses[worst]:.3f} of their balanced accuracy, with tools {worst}"
        else:
            why = {
                True: "asked for",
                False: "ruled out by vary_tools=False",
                None: "no layer reads the prompts, or no row of VALID offers tools that could be varied",
            }[asked]
        facts = {"fitted": bool(vary), "why": why, "losses": losses}
        if vary:
            for split in ("cal", "train"):
                rows = mixed(self._measured.rows(split), self._tools, self._args.seed)
                self._measured.add(f"{split}-varied", split, rows.rows, rows.of)
            names = [f"{split}-varied" for split in ("cal", "train")]
            self.fitted_on = tuple(name for name in names if len(self._measured.rows(name)))
            for name in self.fitted_on:
                self._measured.states(name)
            count = sum(len(self._measured.rows(name)) for name in self.fitted_on)
            facts |= {"rows": count, "taken_away": sum(map(self._taken_away, self.fitted_on))}
            if best is not None and (lost := self._lost_as_given(*best)) > _MOST_LOSS_AS_GIVEN:
                why += f"; but fitted on such rows they would lose {lost:.3f} with tools as given"
                facts = {"fitted": False, "why": why, "losses": losses}
                self.fitted_on = ()
        return facts

    def landmarks(self, tokenizer: Any, parser: ToolCallParser | None = None) -> dict[str, Any]:
        """What prompts of CAL and TRAIN, with other lists of tools too, have in common, as fields of the config."""
        given = ("cal", "train")
        rows, varied = (
            [row for name in names for row in self._measured.rows(name)] for names in (given, self.fitted_on)
        )
        prompts = [ids for name in (*given, *self.fitted_on) for ids in self._measured.prompts(name)]
        found = landmarks(tokenizer, rows, prompts, self._tools, varied)._asdict()
        return found | state_kind_fields(tokenizer, rows, prompts[: len(rows)], self._tools, parser)

    def measure(self, split: str, adapter: ASAAdapter) -> dict[str, dict[str, float]]:
        """How an adapter's gate bears each variation of a split; see `compared_gates`. Abstaining ones have one."""
        adapter, config = adapter.for_split(split), adapter.config

        def gate(name: str) -> NDArray[np.bool_]:
            made = decisions(self._measured, name, adapter)
            p_tool, states = _p_tool_of_decisions(made), np.array([decision.state for decision in made])
            found = np.zeros(len(made), dtype=bool)
            for state in set(states.tolist()):
                # An abstaining adapter has a gate too, so it is not asked for its own.
                opens = (ternary_gate(torch.from_numpy(p_tool), config.rule(state).tau) == 1).numpy()
                found |= opens & (states == state)
            return found

        return self._compared(split, gate)

    def by_label(self, split: str, adapter: ASAAdapter) -> dict[str, list[int]]:
        """How often p(tool) lies in each twentieth of 0 to 1, for rows that need a tool and for those that do not."""
        made, labels = decisions(self._measured, split, adapter.for_split(split)), self._measured.labels(split)
        p_tool = _p_tool_of_decisions(made)
        counts = (np.histogram(p_tool[labels == label], _BINS, (0, 1))[0].tolist() for label in (1, 0))
        return dict(zip(GATES_BY_LABEL, counts, strict=True))

    def _compared(self, split: str, gate: Gate) -> dict[str, dict[str, float]]:
        self._add(split)
        given, labels = gate(split), self._measured.labels(split)
        found = {}
        for name in VARIATIONS:
            of = self._measured.sources(key := f"{split}-{name}")
            if len(of):
                called = gate(key)
                right = called == self._measured.labels(key)
                shares = compared_gates(called, right, given[of], (given == labels)[of])
                found[name] = shares | {"left_out": self._left_out[key]}
        return found

    def _add(self, split: str) -> None:
        """Makes the variations of a split, once."""
        for name in VARIATIONS:
            if (key := f"{split}-{name}") not in self._left_out:
                rows = varied(name, self._measured.rows(split), self._tools)
                self._measured.add(key, split, rows.rows, rows.of)
                refused = len(rows.rows) - len(self._measured.rows(key))
                self._left_out[key] = rows.unknown + refused

    def _losses(self, layer: int, probes: Probes) -> dict[str, float]:
        """By variation, the balanced accuracy on VALID that pooled probes of a layer lose."""
        measured = self._measured
        given = _right_by_label(self._right(probes, layer, "valid"), measured.labels("valid"))
        self._add("valid")
        return {
            name: float((given - _right_by_label(self._right(probes, layer, key), measured.labels(key), given)).mean())
            for name in VARIATIONS
            if len(measured.rows(key := f"valid-{name}"))
        }

    def _lost_as_given(self, layer: int, probes: Probes) -> float:
        """The balanced accuracy on VALID as given that a layer's probes lose by being fitted on varied rows too."""
        labels = self._measured.labels("valid")
        before, after = (
            _right_by_label(self._right(some, layer, "valid"), labels).mean()
            for some in (probes, self._pooled(layer, self.fitted_on))
        )
        return float(before - after)

    def _best_reading(self, layers: Sequence[int]) -> tuple[int, Probes] | None:
        """The layer whose pooled probe reads VALID best, and that probe; None where no layer sees the prompt."""
        sees, labels = self._measured.states("train").sees_prompt(), self._measured.labels("valid")
        probes = {layer: self._pooled(layer) for layer in layers if sees[layer]}
        scores = {
            layer: _right_by_label(self._right(some, layer, "valid"), labels).mean() for layer, some in probes.items()
        }
        best = max(scores, key=lambda layer: scores[layer], default=None)
        return None if best is None else (best, probes[best])

    def _pooled(self, layer: int, also: Sequence[str] = ()) -> Probes:
        """A probe of one layer's states for all domains, fitted on CAL, TRAIN and other splits."""
        Cs = sorted(self._args.Cs)
        known = self._measured.labelled("train", layer).behind(self._measured.labelled("cal", layer))
        known = known.joined([self._measured.labelled(name, layer) for name in also])
        names = ["all"] * len(known.labels)
        return Probes.fit(known.states, known.labels, names, Cs[(len(Cs) - 1) // 2], self._args.seed, known.given)

    def _right(self, probes: Probes, layer: int, split: str) -> NDArray[np.bool_]:
        """(N,) where a pooled probe is right on the rows of a split."""
        called = probes.p_tool(self._measured.labelled(split, layer).states) >= 0.5
        return np.asarray(called == self._measured.labels(split).astype(bool))

    def _taken_away(self, name: str) -> int:
        """How many rows of a varied split lost the tool that they need."""
        split = name.removesuffix("-varied")
        was = self._measured.labels(split)[self._measured.sources(name)]
        return int((was != self._measured.labels(name)).sum())


def compared_gates(
    called: NDArray[np.bool_], right: NDArray[np.bool_], was_called: NDArray[np.bool_], was_right: NDArray[np.bool_]
) -> dict[str, float]:
    """The gates of N rows with varied tools beside those of the same rows as they were given, all (N,) bool.

    Args:
        called: where the gate is +1.
        right: where it is right: +1 exactly where a needed tool is offered.
        was_called: where it is +1 for the row as given.
        was_right: where it is right there.

    Returns:
        `rows`; `right`, `given_right`, `called`, `given_called`: shares; `lost`, `won`: how many rows are decided
        rightly only as given, and only as varied.
    """
    return {
        "rows": len(called),
        "right": float(right.mean()),
        "given_right": float(was_right.mean()),
        "called": float(called.mean()),
        "given_called": float(was_called.mean()),
        "lost": int((was_right & ~right).sum()),
        "won": int((right & ~was_right).sum()),
    }


def _right_by_label(
    right: NDArray[np.bool_], labels: NDArray[np.int64], otherwise: Sequence[float] | NDArray[np.float64] = (0.0, 0.0)
) -> NDArray[np.float64]:
    """(2,) share of rows that are right, of label 0 and 1; where a label has no row, the share in `otherwise`."""
    chosen = [labels == label for label in (0, 1)]
    return np.array([right[rows].mean() if rows.any() else otherwise[i] for i, rows in enumerate(chosen)])


def _p_tool_of_decisions(made: Sequence[Decision]) -> NDArray[np.float32]:
    """(N,) what the probes say of the rows of some decisions."""
    return np.array([decision.p_tool for decision in made], dtype=np.float32)
