"""`Context`: sequences of tokens that llama.cpp has read, to be continued, copied, saved, read from and changed."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.libllama.library import Batch, EvalCallback, Library

# Most tokens in one pass; longer runs are cut, so that the last token lies in the last pass.
PASS = 512
_F32 = 0  # ggml_type

_INT8, _INT32 = ctypes.POINTER(ctypes.c_int8), ctypes.POINTER(ctypes.c_int32)
_POINTERS = ctypes.POINTER(_INT32)

State = NDArray[np.uint8]
# Called with the (n, D) float32 states behind a block, at the last token of each of n runs; returns the states to go
# on with, or None to keep them.
Visit = Callable[[torch.Tensor], torch.Tensor | None]


class Run(NamedTuple):
    """Tokens to read in one sequence.

    Attributes:
        sequence: number of the sequence.
        tokens: token ids.
        begin: number of tokens that the sequence holds already.
        answers: whether the logits behind the last token are wanted.
    """

    sequence: int
    tokens: Sequence[int]
    begin: int
    answers: bool = True


class Context:
    """Sequences of one model, each with a memory of its own.

    Args:
        library: llama.cpp.
        model: the model's handle.
        width: width D of its residual stream.
        vocabulary: number of its tokens.
        tokens: number of tokens that all sequences together may hold.
        sequences: number of sequences.
        threads: number of threads.
        watched: whether the states behind blocks can be visited; decoding then costs a little more.
        exact: whether attention keeps to float32, where llama.cpp's own way rounds to float16.

    Raises:
        IncompatibleModelError: llama.cpp makes no such context.
    """

    def __init__(
        self,
        library: Library,
        model: int,
        width: int,
        vocabulary: int,
        *,
        tokens: int,
        sequences: int = 1,
        threads: int = 1,
        watched: bool = False,
        exact: bool = False,
    ) -> None:
        self._library, self._width, self._vocabulary = library, width, vocabulary
        self._visits: dict[bytes, Visit] = {}  # those that are still to come in this pass
        self._once = True
        self._error: BaseException | None = None
        self._ends: list[int] = []
        self._buffer = np.empty(0, dtype=np.uint8)
        self.tokens = tokens
        params = library.context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = tokens, PASS, PASS
        params.n_seq_max, params.kv_unified = sequences, True
        params.n_threads = params.n_threads_batch = threads
        if exact:
            params.type_k = params.type_v = _F32
            params.flash_attn_type = 0  # it rounds to float16 inside
        # The callback is a part of the context for good, so only contexts that are to be visited have one.
        self._callback = EvalCallback(self._called)
        if watched:
            params.cb_eval = self._callback
        library.errors()
        self._handle = library.init_from_model(model, params)
        if not self._handle:
            raise IncompatibleModelError(
                f"llama.cpp makes no context of {tokens} tokens: {library.errors() or 'it gives no reason'}"
            )
        self._memory = library.get_memory(self._handle)

    def close(self) -> None:
        """Frees the memory; the context must not be used any more."""
        if self._handle:
            self._library.free(self._handle)
            self._handle = None

    def read(self, runs: Sequence[Run], visits: Mapping[int, Visit] | None = None, once: bool = True) -> None:
        """Reads tokens, the last up to 512 of them in one pass with what ends each run.

        Args:
            runs: what to read, each in another sequence. More than one must fit into one pass.
            visits: what is done with the states behind a block, by layer, at the last token of each run; the logits of
                all of them must be wanted.
            once: whether a block is visited at its first tensor alone, after which nothing more is asked for; else at
                each of that name, of which there should be no second.

        Raises:
            ValueError: there is no room for the tokens.
            RuntimeError: llama.cpp fails.
        """
        if len(runs) == 1:
            run = runs[0]
            while len(run.tokens) > PASS:
                self._pass([run._replace(tokens=run.tokens[:PASS], answers=False)])
                run = run._replace(tokens=run.tokens[PASS:], begin=run.begin + PASS)
            runs = [run]
        self._once = once
        self._visits = {f"l_out-{layer}".encode(): visit for layer, visit in (visits or {}).items()}
        try:
            self._pass(runs)
        finally:
            self._visits = {}

    def _pass(self, runs: Sequence[Run]) -> None:
        arrays = [
            np.concatenate([np.asarray(run.tokens, dtype=np.int32) for run in runs]),
            np.concatenate([np.arange(run.begin, run.begin + len(run.tokens), dtype=np.int32) for run in runs]),
        ]
        count = len(arrays[0])
        ends = self._ends = (np.cumsum([len(run.tokens) for run in runs]) - 1).tolist()
        wanted = np.zeros(count, dtype=np.int8)
        wanted[[end for end, run in zip(ends, runs, strict=True) if run.answers]] = 1
        sequences = np.repeat(np.array([run.sequence for run in runs], dtype=np.int32), [len(r.tokens) for r in runs])
        base, step = sequences.ctypes.data, sequences.itemsize
        pointers = np.arange(base, base + count * step, step, dtype=np.uintp)
        ones = np.ones(count, dtype=np.int32)
        batch = Batch(count)
        batch.token, batch.pos = (array.ctypes.data_as(_INT32) for array in arrays)
        batch.n_seq_id, batch.logits = ones.ctypes.data_as(_INT32), wanted.ctypes.data_as(_INT8)
        batch.seq_id = pointers.ctypes.data_as(_POINTERS)
        status = self._library.decode(self._handle, batch)
        if (error := self._error) is not None:
            self._error = None
            raise error
        if status == 1:
            raise ValueError(
                f"there is no room for {count} more tokens: the context holds {self.tokens}; open the model with a "
                "greater n_ctx"
            )
        if status:
            raise RuntimeError(f"llama.cpp failed with status {status}: {self._library.errors()}")

    def _called(self, tensor: int, asks: bool, _: Any) -> bool:
        """llama.cpp's callback: whether a node's data are wanted; then, with the data, whether to go on."""
        if self._error is not None:
            return False
        try:
            name = self._library.ggml_get_name(tensor) if self._visits else b""
            if name not in self._visits:
                return False
            if not asks:
                self._visit(tensor, self._visits.pop(name) if self._once else self._visits[name])
            return True
        except BaseException as error:  # it cannot pass through C; it is raised when llama.cpp returns
            self._error = error
            return False

    def _visit(self, tensor: int, visit: Visit) -> None:
        size = 4 * self._width
        rows, ends = self._library.ggml_nbytes(tensor) // size, self._ends
        if rows == len(ends):  # as behind the last block, which computes nothing but what logits are wanted of
            ends = list(range(rows))
        states = np.empty((len(ends), self._width), dtype=np.float32)
        for row, place in zip(ends, range(states.ctypes.data, states.ctypes.data + states.nbytes, size), strict=True):
            self._library.ggml_backend_tensor_get(tensor, place, row * size, size)
        if (changed := visit(torch.from_numpy(states))) is not None:
            changed = changed.float().contiguous()
            for own, row in enumerate(ends):
                self._library.ggml_backend_tensor_set(tensor, changed.data_ptr() + own * size, row * size, size)

    def logits(self, number: int = -1) -> torch.Tensor:
        """(V,) float32 logits behind the last token of a run of the latest `read`, by the number of the run."""
        found = self._library.get_logits_ith(self._handle, self._ends[number])
        if not found:
            raise RuntimeError(f"llama.cpp has no logits: {self._library.errors()}")
        return torch.from_numpy(np.ctypeslib.as_array(found, (self._vocabulary,)).copy())

    def control(self, layer: int, step: torch.Tensor | None) -> None:
        """Adds a (D,) step to the states of all tokens behind a block from now on; None ends that.

        Raises:
            RuntimeError: llama.cpp refuses it.
        """
        if step is None:
            status = self._library.set_adapter_cvec(self._handle, None, 0, self._width, 0, 0)
        else:
            values = np.zeros((layer, self._width), dtype=np.float32)  # rows begin with block 1: block 0 takes none
            values[layer - 1] = step.numpy()
            data = values.ctypes.data_as(ctypes.c_void_p)
            status = self._library.set_adapter_cvec(self._handle, data, values.size, self._width, layer, layer)
        if status:
            raise RuntimeError(f"llama.cpp refused a control vector with status {status}")

    def save(self, sequence: int = 0) -> State:
        """What the memory of a sequence holds."""
        size = self._library.state_seq_get_size(self._handle, sequence)
        if len(self._buffer) < size:
            self._buffer = np.empty(size, dtype=np.uint8)  # kept: fresh pages cost more than the copy
        written = self._library.state_seq_get_data(self._handle, self._buffer.ctypes.data, size, sequence)
        return self._buffer[:written]

    def load(self, state: State, sequence: int = 0) -> None:
        """Replaces a sequence by a saved one, also of another context of the model.

        Raises:
            RuntimeError: it does not fit.
        """
        self.drop(sequence)
        if not self._library.state_seq_set_data(self._handle, state.ctypes.data, len(state), sequence):
            raise RuntimeError(f"llama.cpp cannot go on from a saved sequence: {self._library.errors()}")

    def copy(self, source: int, sequence: int) -> None:
        """Replaces a sequence by another one of this context."""
        self.drop(sequence)
        self._library.memory_seq_cp(self._memory, source, sequence, -1, -1)

    def drop(self, sequence: int) -> None:
        """Empties a sequence."""
        self._library.memory_seq_rm(self._memory, sequence, -1, -1)

    def clear(self) -> None:
        """Empties all sequences."""
        self._library.memory_clear(self._memory, True)
