"""Hidden states of a data set: the output of every decoder block at the last prompt token of each row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asa_adapter.data.batches import batches_by_tokens, pad_batch, pad_token_id
from asa_adapter.data.prompts import Row, encode_rows
from asa_adapter.engine.protocol import EngineModel, is_engine_model
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.modeling.forward import evaluation_mode, forward, input_device, rounding
from asa_adapter.modeling.prefix import SharedPrefix, Sharing, unusable_cache_ignored
from asa_adapter.modeling.processes import progress_bar
from asa_adapter.modeling.recording import BlockCall, recorded
from asa_adapter.modeling.residual import decoder_blocks, headless, hidden_size, hidden_state, last_prompt_index
from asa_adapter.notations.schemas import Tools
from asa_adapter.tool_calls.parser import ToolCallParser

# Spread of a layer's states over the prompts, relative to their norm, below which they do not depend on the prompt.
_BLIND_SPREAD = 1e-4

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
        spread = (self.states - self.states.mean(dim=1, keepdim=True)).norm(dim=2).mean(dim=1)
        return [bool(s > _BLIND_SPREAD * n) for s, n in zip(spread, self.states.norm(dim=2).mean(dim=1), strict=True)]


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

    Raises:
        ValueError: no rows, a row without a prompt, a prompt that cannot be rendered, or a tokenizer without a chat
            template.
        IncompatibleModelError: the decoder blocks are not found, a block does not run, or its output has no residual
            stream of shape (B, T, D).
    """
    if not len(rows):
        raise ValueError("there are no rows to collect hidden states from")
    prompts = encode_rows(tokenizer, rows, tools, parser)
    if is_engine_model(model):
        return _by_engine(model, prompts, progress)
    return _by_transformers(model, prompts, pad_token_id(tokenizer), batch_size, progress, layer_path)


def _by_transformers(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
    progress: bool,
    layer_path: str | None,
) -> HiddenStates:
    blocks = decoder_blocks(model, layer_path)
    states = torch.empty(len(blocks), len(prompts), hidden_size(model))
    most_tokens = batch_size * max(map(len, prompts))

    def behind(prefix: SharedPrefix, some: Sequence[Sequence[int]]) -> torch.Tensor:
        # Padding on the right comes after the token that is read, and a causal model does not attend to it.
        suffixes = [prompt[prefix.length :] for prompt in some]
        return last_token_states(model, blocks, *pad_batch(suffixes, pad_id, "right", input_device(model)), prefix)

    def faithful(prefix: SharedPrefix, sample: list[Sequence[int]]) -> bool:
        with unusable_cache_ignored():
            found = behind(prefix, sample)
            alone = torch.cat([behind(SharedPrefix(), [prompt]) for prompt in sample], dim=1)
            return _alike(model, found, alone)
        return False  # the cache cannot be used

    with evaluation_mode(model), progress_bar(len(prompts), "hidden states", progress) as bar:
        for prefix, members in Sharing(model, faithful).prefixes(prompts):
            lengths = [len(prompts[i]) - prefix.length for i in members]
            for batch in batches_by_tokens(lengths, 2 * batch_size, most_tokens):
                taken = [members[i] for i in batch]
                states[:, taken] = behind(prefix, [prompts[i] for i in taken])
                bar.update(len(taken))
    return HiddenStates(states)


def _by_engine(model: EngineModel, prompts: Sequence[Sequence[int]], progress: bool) -> HiddenStates:
    with progress_bar(len(prompts), "hidden states", progress) as bar:
        return HiddenStates(model.last_states(prompts, bar.update))


def _alike(model: nn.Module, found: torch.Tensor, expected: torch.Tensor) -> bool:
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
