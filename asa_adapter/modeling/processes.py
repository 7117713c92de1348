"""`Processes`: the processes of one run (`accelerate launch`, `torchrun`), which share the model's work.

Each does a part of the rows; then all have all results, and everything behind them is computed alike in each. What is
exchanged are arrays and texts on the CPU; only the main process writes, and shows the progress bars of long work.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]
from numpy.typing import NDArray
from torch import distributed


class Processes:
    """The processes of this run; without torch.distributed this one is the only one.

    What they exchange is exchanged by all of them: each has to make the same calls in the same order.

    Attributes:
        index: this one's number, from 0.
        count: how many there are.
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.index: int = distributed.get_rank() if together else 0
        self.count: int = distributed.get_world_size() if together else 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0

    def part(self, rows: int) -> list[int]:
        """Which of so many rows this process does; all, where there are fewer rows than processes."""
        return list(range(rows)[self._slice(rows, self.index)])

    def arrays(self, mine: NDArray[Any], rows: int) -> NDArray[Any]:
        """(A, rows, ...) made of what each process has for its part of the rows, (A, part, ...)."""
        whole = np.empty((len(mine), rows, *mine.shape[2:]), dtype=mine.dtype)
        for index, content in enumerate(self._all(np.ascontiguousarray(mine).tobytes())):
            part = whole[:, self._slice(rows, index)]
            part[...] = np.frombuffer(content, mine.dtype).reshape(part.shape)
        return whole

    def texts(self, mine: list[str], rows: int) -> list[str]:
        """The texts of all rows, made of what each process has for its part of them."""
        whole = [""] * rows
        for index, content in enumerate(self._all(json.dumps(mine).encode())):
            whole[self._slice(rows, index)] = json.loads(content)
        return whole

    def from_main(self, read: Callable[[], bytes | None]) -> bytes | None:
        """What the main process reads, or None where it finds nothing; the others do not look."""
        found = read() if self.is_main else None
        content = self._all(b"" if found is None else b"1" + found)[0]
        return content[1:] if content else None

    def _slice(self, rows: int, index: int) -> slice:
        return slice(index, None, self.count) if rows >= self.count else slice(None)

    def _all(self, content: bytes) -> list[bytes]:
        """What each process has to say, in order."""
        if self.count == 1:
            return [content]
        lengths = [int(length) for length in self._gathered(torch.tensor([len(content)]))]
        padded = torch.from_numpy(np.frombuffer(content.ljust(max(lengths), b"\0"), dtype=np.uint8).copy())
        return [part[:length].numpy().tobytes() for part, length in zip(self._gathered(padded), lengths, strict=True)]

    def _gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        # A process group for GPUs alone, which is the user's own, takes nothing from the CPU.
        here = tensor if "cpu" in str(distributed.get_backend_config()) else tensor.to("cuda")
        parts = [torch.empty_like(here) for _ in range(self.count)]
        distributed.all_gather(parts, here)
        return [part.cpu() for part in parts]


@contextlib.contextmanager
def launched_processes() -> Iterator[Processes]:
    """Joins the other processes, where a launcher such as `accelerate launch` started several of this one."""
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if joins:
        # gloo, on GPUs too: each process runs a model of its own, and what they exchange lies on the CPU.
        distributed.init_process_group("gloo")
    try:
        yield Processes()
    finally:
        if joins:
            distributed.destroy_process_group()


def progress_bar(total: int, name: str, show: bool) -> Any:
    """A bar with count and ETA, to be used as a context manager; `HF_HUB_DISABLE_PROGRESS_BARS` hides it too.

    Of several processes (`accelerate launch`) the first one shows it.
    """
    shown = show and os.environ.get("RANK", "0") == "0"
    return tqdm(total=total, desc=name, disable=None if shown else True, smoothing=0.1)
