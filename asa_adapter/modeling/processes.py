"""`Processes`: the processes of one run (`accelerate launch`, `torchrun`), which divide the rows among them.

Each runs the model on its part of the rows. Then they exchange the results, arrays and texts on the CPU, and each
computes the same things from all of them. Only the main process writes files and shows progress.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed


class Processes:
    """The processes of this run; without torch.distributed it is a single one.

    `arrays`, `texts` and `from_main` are collective: every process must make the same calls in the same order.

    Attributes:
        index: rank of this process, from 0.
        count: number of processes.
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.index: int = distributed.get_rank() if together else 0
        self.count: int = distributed.get_world_size() if together else 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process (rank 0), the only one that writes files."""
        return self.index == 0

    def part(self, rows: int) -> list[int]:
        """Indices, of `rows` rows, of those that this process runs; all where there are fewer rows than processes."""
        return list(range(rows)[self._slice(rows, self.index)])

    def arrays(self, mine: NDArray[Any], rows: int) -> NDArray[Any]:
        """The arrays of all processes as one.

        Args:
            mine: (A, n, ...) values for the n rows of this process's `part`.
            rows: number of all rows.

        Returns:
            (A, rows, ...) of the same dtype.
        """
        whole = np.empty((len(mine), rows, *mine.shape[2:]), dtype=mine.dtype)
        for index, content in enumerate(self._all(np.ascontiguousarray(mine).tobytes())):
            part = whole[:, self._slice(rows, index)]
            part[...] = np.frombuffer(content, mine.dtype).reshape(part.shape)
        return whole

    def texts(self, mine: list[str], rows: int) -> list[str]:
        """The texts of all `rows` rows; `mine` are those of this process's `part`."""
        whole = [""] * rows
        for index, content in enumerate(self._all(json.dumps(mine).encode())):
            whole[self._slice(rows, index)] = json.loads(content)
        return whole

    def from_main(self, read: Callable[[], bytes | None]) -> bytes | None:
        """What `read` returns in the main process; the others do not call it."""
        found = read() if self.is_main else None
        content = self._all(b"" if found is None else b"1" + found)[0]
        return content[1:] if content else None

    def _slice(self, rows: int, index: int) -> slice:
        return slice(index, None, self.count) if rows >= self.count else slice(None)

    def _all(self, content: bytes) -> list[bytes]:
        """The bytes of each process, in the order of rank."""
        if self.count == 1:
            return [content]
        lengths = [int(length) for length in self._gathered(torch.tensor([len(content)]))]
        padded = torch.from_numpy(np.frombuffer(content.ljust(max(lengths), b"\0"), dtype=np.uint8).copy())
        return [part[:length].numpy().tobytes() for part, length in zip(self._gathered(padded), lengths, strict=True)]

    def _gathered(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        # The user's own process group may be for GPUs only (nccl), which exchanges no CPU tensors.
        here = tensor if "cpu" in str(distributed.get_backend_config()) else tensor.to("cuda")
        parts = [torch.empty_like(here) for _ in range(self.count)]
        distributed.all_gather(parts, here)
        return [part.cpu() for part in parts]


@contextlib.contextmanager
def launched_processes() -> Iterator[Processes]:
    """Sets up a process group inside the `with` block if a launcher (`accelerate launch`) started several processes.

    A process group that exists already is used and left in place.

    Yields:
        The processes of this run.
    """
    joins = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized()
    if joins:
        # gloo, on GPUs too: each process runs a model of its own, and they exchange CPU tensors only.
        distributed.init_process_group("gloo")
    try:
        yield Processes()
    finally:
        if joins:
            distributed.destroy_process_group()
