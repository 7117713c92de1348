"""Hidden states of a data set: the output of every decoder block at the last prompt token of each row."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from asa_adapter.data.prompts import encode_rows
from asa_adapter.data.rows import Row
from asa_adapter.engine.padded_batches import batches_by_tokens, pad_batch, pad_token_id
from asa_adapter.engine.prefix_tree import Prompt
from asa_adapter.engine.protocol import EngineModel, is_engine_model
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.forward import evaluation_mode, forward, input_device, rounding
from asa_adapter.modeling.prefix_cache import PrefixSharing, SharedPrefix, unusable_cache_ignored
from asa_adapter.modeling.progress import progress_bar
from asa_adapter.modeling.recording import BlockCall, recorded
from asa_adapter.modeling.residual_stream import decoder_blocks, headless, hidden_size, hidden_state, last_prompt_index
from asa_adapter.notations.tool_schemas import Tools
from asa_adapter.tool_calls.parser import ToolCallParser

# Spread of a layer's states over the prompts, relative to their norm, below which they do not depend on the prompt.
_BLIND_SPREAD = 1e-4

# Rows whose prompts are held, as token ids, at once; what these begin with is shared among them.
_AT_ONCE = 2048

# Greatest distance between states with and without a shared prefix, relative to their norm.
_PREFIX_TOLERANCE = 1e-4


@dataclass(frozen=True)
class HiddenStates:
    """Residual states of N rows at L layers.

    Attributes:
        states: (L, N, D) float32 on the CPU: the OUTPUT of decoder block l for each row, in the order of the data.
    """

    states: torch.Tensor

    def sees_prompt(self) -> list[bool]:
        """For each of the L layers, whether its states depend on the prompt at all.

        The last prompt tokens come from the chat template and are the same in every prompt. So blocks that see only a
        few tokens back (short convolutions before the first attention) have the same output for all prompts.
        """
        return [
            bool(_mean_norm_of_states(states, states.mean(dim=0)) > _BLIND_SPREAD * _mean_norm_of_states(states))
            for states in self.states
        ]


def _mean_norm_of_states(states: torch.Tensor, origin: torch.Tensor | float = 0.0) -> torch.Tensor:
    """The mean distance of (N, D) states from an origin; no copy of all of them is made."""
    return torch.cat([(some - origin).norm(dim=1) for some in states.split(_AT_ONCE)]).mean()


def collect_hidden_states(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    tools: Tools | None = None,
    batch_size: int = 16,
    progress: bool = True,
    layer_path: str | None = None,
    parser: ToolCallParser | None = None,
    file: str | os.PathLike[str] | None = None,
) -> HiddenStates:
    """Runs each row's prompt once and collects the states of all layers at its last token.

    Shared prompt prefixes are run once, and rows of different lengths together, where a sample shows that this does
    not change the states. The memory needed besides the result depends on the batch size, not on the number of rows.

    Args:
        model: a causal language model, also one that another engine runs.
        tokenizer: its tokenizer, with a chat template.
        rows: rows with `instruction` or `messages`, and optionally `tools` of their own.
        tools: JSON-schema tools for the rows that have none.
        batch_size: a forward pass has at most `2 * batch_size` rows, and at most `batch_size` times the tokens of the
            longest prompt.
        progress: whether to show a progress bar.
        layer_path: dotted path of the list of decoder blocks; None finds it by the rule of `decoder_blocks`.
        parser: writes the tool calls of a chat if the template drops them; None finds one by the tokenizer.
        file: a NumPy file (.npy) that is made to hold the result, of 4 L N D bytes, in place of memory; the states are
            mapped from it, so it has to stay while they are used. Changes to them are not written to it.

    Raises:
        ValueError: no rows, a row without a prompt, a prompt that cannot be rendered, or a tokenizer without a chat
            template.
        IncompatibleModelError: the decoder blocks are not found, a block does not run, or its output has no residual
            stream of shape (B, T, D).
        OSError: the file cannot be written, or the disk is too small for it.
    """
    if not len(rows):
        raise ValueError("there are no rows to collect hidden states from")
    engine = is_engine_model(model)
    run = _StatesOfEngine(model) if engine else _StatesOfTransformers(model, tokenizer, batch_size, layer_path)
    shape = (run.layers, len(rows), run.width)
    with (
        evaluation_mode(model),
        progress_bar(len(rows), "hidden states", progress) as bar,
        _StatesInFile(Path(file), shape) if file is not None else _StatesInMemory(shape) as kept,
    ):
        for begin in range(0, len(rows), _AT_ONCE):
            some = [rows[i] for i in range(begin, min(begin + _AT_ONCE, len(rows)))]
            prompts = encode_rows(tokenizer, some, tools, parser)
            with kept.part(begin, len(some)) as states:
                run(prompts, states, bar.update)
    return HiddenStates(kept.all())


class _StatesInMemory(contextlib.nullcontext[Any]):
    """(L, N, D) states in memory."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._states = torch.empty(shape, dtype=torch.float32, device="cpu")
        super().__init__(self)

    @contextlib.contextmanager
    def part(self, begin: int, rows: int) -> Iterator[torch.Tensor]:
        """The (L, n, D) states of n rows, to be filled."""
        yield self._states[:, begin : begin + rows]

    def all(self) -> torch.Tensor:
        """All states."""
        return self._states


class _StatesInFile:
    """(L, N, D) states in a NumPy file, which has its name when it is whole."""

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path, self._shape = path, shape

    def __enter__(self) -> Self:
        self._unfinished = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}.part")
        self._stream = self._unfinished.open("xb")
        header = {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._start = self._stream.tell()
        return self

    @contextlib.contextmanager
    def part(self, begin: int, rows: int) -> Iterator[torch.Tensor]:
        """The (L, n, D) states of n rows, to be filled; written behind."""
        layers, count, width = self._shape
        states = torch.empty(layers, rows, width, dtype=torch.float32, device="cpu")
        yield states
        for layer, some in enumerate(states.numpy().astype("<f4", copy=False)):
            self._stream.seek(self._start + 4 * width * (layer * count + begin))
            self._stream.write(some.data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stream.close()
        if kind is None:
            os.replace(self._unfinished, self._path)
        else:
            self._unfinished.unlink()

    def all(self) -> torch.Tensor:
        """All states, mapped from the file; changes are not written to it."""
        return torch.from_numpy(np.load(self._path, mmap_mode="c"))


class _StatesOfTransformers:
    """Runs prompts through a model of transformers."""

    def __init__(self, model: nn.Module, tokenizer: Any, batch_size: int, layer_path: str | None) -> None:
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size
        self._blocks = decoder_blocks(model, layer_path)
        self._sharing = PrefixSharing(model, self._faithful)
        self.layers, self.width = len(self._blocks), hidden_size(model)

    def __call__(self, prompts: Sequence[Prompt], states: torch.Tensor, done: Callable[[int], Any]) -> None:
        """Fills the (L, n, D) states of n prompts."""
        most_tokens = self._batch_size * max(map(len, prompts))
        for prefix, members in self._sharing.prefixes(prompts):
            lengths = [len(prompts[i]) - prefix.length for i in members]
            for batch in batches_by_tokens(lengths, 2 * self._batch_size, most_tokens):
                taken = [members[i] for i in batch]
                states[:, taken] = self._behind(prefix, [prompts[i] for i in taken])
                done(len(taken))

    def _behind(self, prefix: SharedPrefix, prompts: Sequence[Prompt]) -> torch.Tensor:
        # Padding on the right comes after the token that is read, and a causal model does not attend to it.
        suffixes = [prompt[prefix.length :] for prompt in prompts]
        padded = pad_batch(suffixes, pad_token_id(self._tokenizer), "right", input_device(self._model))
        return last_token_states(self._model, self._blocks, *padded, prefix)

    def _faithful(self, prefix: SharedPrefix, sample: list[Prompt]) -> bool:
        with unusable_cache_ignored():
            found = self._behind(prefix, sample)
            alone = torch.cat([self._behind(SharedPrefix(), [prompt]) for prompt in sample], dim=1)
            return _alike_states(self._model, found, alone)
        return False  # the cache cannot be used


class _StatesOfEngine:
    """Lets a model of another engine run prompts."""

    def __init__(self, model: EngineModel) -> None:
        self._model = model
        self.layers, self.width = model.facts.num_layers, model.facts.hidden_size

    def __call__(self, prompts: Sequence[Prompt], states: torch.Tensor, done: Callable[[int], Any]) -> None:
        """Fills the (L, n, D) states of n prompts."""
        states[:] = self._model.last_states(prompts, done)


def _alike_states(model: nn.Module, found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two ways of running prompts gave the same (L, N, D) states, except for rounding."""
    error = (found - expected).norm(dim=2) / expected.norm(dim=2).clamp(min=1e-12)
    return bool((error <= max(_PREFIX_TOLERANCE, rounding(model))).all())


def last_token_states(
    model: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor, mask: torch.Tensor, prefix: SharedPrefix
) -> torch.Tensor:
    """States at each row's last token, from one forward pass.

    Args:
        model: a causal language model.
        blocks: its L decoder blocks.
        ids: (B, T) token ids after the prefix.
        mask: (B, T), non-zero where there is a token.
        prefix: the tokens that all rows begin with.

    Returns:
        (L, B, D) float32 on the CPU.

    Raises:
        IncompatibleModelError: a block does not run, or its output has no residual stream of shape (B, T, D).
    """
    last = last_prompt_index(mask)

    def at_last(call: BlockCall) -> torch.Tensor:
        state = hidden_state(call.output)
        if state.ndim != 3 or state.shape[:2] != ids.shape:
            raise IncompatibleModelError(
                f"block {call.layer} returned a state of shape {tuple(state.shape)}; expected (rows, tokens, width) "
                f"for {ids.shape[0]} rows of {ids.shape[1]} tokens"
            )
        where = last.to(state.device)
        return state[torch.arange(len(where), device=state.device), where]

    with recorded(blocks, range(len(blocks)), at_last) as taken:
        if prefix.length:
            mask = torch.cat([mask.new_ones(len(ids), prefix.length), mask], dim=1)
        cache = prefix.spread(len(ids)) if prefix.length else None
        forward(headless(model, blocks), ids, mask, cache, use_cache=bool(prefix.length))
    if idle := [layer for layer in range(len(blocks)) if layer not in taken]:
        raise IncompatibleModelError(
            f"blocks {idle} of {type(model).__name__} do not run on text alone, so there is no state behind them to "
            "learn from"
        )
    return torch.stack([taken[layer][-1].float().cpu() for layer in range(len(blocks))])
