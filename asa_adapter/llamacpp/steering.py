"""`GGUFSteering`: the handle of an adapter on a model that llama.cpp runs; what it decides is decided as elsewhere."""

from collections.abc import Sequence

import numpy as np
import torch

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.libllama.context import Visit
from asa_adapter.policy.controller import Controller
from asa_adapter.policy.decision import Decision
from asa_adapter.steering.hook import SteeringHandle
from asa_adapter.steering.replaced_methods import Attached
from asa_adapter.steering.windows_and_records import Ending, Record, Window


class GGUFSteering(SteeringHandle):
    """An attached adapter with the verbs of `SteeringHandle`; nothing of the model's graph or weights is changed.

    Args:
        attached: the adapters on the model.
        controller: makes the decisions and the steps.
        config: the adapter's config, of which the controller was made.
        steer_without_tools, every_state: as in `SteeringHandle`.

    Raises:
        ValueError: the model already has an adapter at this layer.
    """

    def __init__(
        self,
        attached: "AttachedAdapters",
        controller: Controller,
        config: ASAConfig,
        steer_without_tools: bool,
        every_state: bool,
    ) -> None:
        self._begin_with(controller, config, steer_without_tools, every_state)
        attached.add(self)
        self._steering = attached

    def row(self, tokens: torch.Tensor, last: int) -> "SteeredGGUFRow":
        """What the adapter does in one row of a generate() call, by its (1, T) tokens, padding included.

        Args:
            tokens: the token ids.
            last: index of the last prompt token.
        """
        record = self._open(np.array([last]), tokens)
        return SteeredGGUFRow(record, self._earlier, self.layer)

    def tell(self, tokens: torch.Tensor, last: int) -> None:
        """Warns once where a row, (1, T), does not end as the prompts of the fit did."""
        self._tell(np.array([last]), tokens)

    def keep(self, records: list[Record] | None) -> None:
        """Keeps what was decided in the rows of a generate() call that ends; None for one that was not steered."""
        self._record = None if records is None else GGUFRecords(records)
        self._end(self._record)


class GGUFRecords:
    """What was decided in a generate() call that has ended."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def decisions(self) -> list[Decision]:
        """One decision for each row."""
        return [decision for record in self._records for decision in record.decisions()]


class SteeredGGUFRow:
    """One adapter in one row, while the row's last prompt token is read."""

    def __init__(self, record: Record, earlier: Sequence[int], layer: int) -> None:
        self.record = record
        self.earlier, self.layer = tuple(earlier), layer
        # Nothing but the state at the last token is shown: its row and column are the first.
        where = (torch.zeros(1, dtype=torch.long),) * 2
        self._window = Window((1, 1), np.zeros(1, dtype=np.int64), where, record, again=False)

    def read(self, layer: int) -> Visit:
        """Keeps the state behind an earlier block."""

        def visit(states: torch.Tensor) -> None:
            self._window.states[layer] = states

        return visit

    def steer(self, states: torch.Tensor) -> torch.Tensor | None:
        """Decides by the (1, D) state behind the steered block, and steers it; None where it stays as it is."""
        left = self._window.steer_states(states, self._window.where[0])
        return None if torch.equal(left, states) else left


class AttachedAdapters:
    """The adapters on one model."""

    def __init__(self) -> None:
        self.handles: list[GGUFSteering] = []

    def add(self, handle: GGUFSteering) -> None:
        """Adds an adapter.

        Raises:
            ValueError: there is one at its layer.
        """
        if any(other.layer == handle.layer for other in self.handles):
            raise ValueError(
                f"this model already has an adapter at layer {handle.layer}; remove() that one first, or attach at "
                "another layer"
            )
        self.handles.append(handle)

    def discard(self, handle: Attached) -> None:
        """Removes an adapter, if it is there."""
        self.handles = [other for other in self.handles if other is not handle]

    def running(self) -> None:
        """There is no plan of a generate() call here: the last token is known."""

    def active(self) -> list[GGUFSteering]:
        """Those that steer calls that begin now."""
        return [handle for handle in self.handles if handle._is_active()]


def adapter_visits(rows: Sequence[SteeredGGUFRow]) -> dict[int, Visit]:
    """What adapters do behind which blocks; where one reads what another steers, it reads what was steered."""
    found: dict[int, Visit] = {row.layer: row.steer for row in rows}
    for row in rows:
        for layer in row.earlier:
            found[layer] = _both_visits(found.get(layer), row.read(layer))
    return found


def _both_visits(first: Visit | None, second: Visit) -> Visit:
    """Both, of which the second changes nothing."""
    if first is None:
        return second

    def visit(states: torch.Tensor) -> torch.Tensor | None:
        changed = first(states)
        second(states if changed is None else changed)
        return changed

    return visit


def biased_by_adapters(rows: Sequence[SteeredGGUFRow], logits: torch.Tensor) -> torch.Tensor:
    """The (V,) logits of a row's first answer token, with the openings of calls biased as its adapters want."""
    records = [row.record for row in rows if row.record.controller.opening is not None]
    if not records:
        return logits
    found = logits[None, None].clone()
    Ending((1, 1), 0, records).bias(found)
    return found[0, 0]
