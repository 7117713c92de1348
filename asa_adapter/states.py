"""Hidden states of a data set: the output of every decoder block at each row's last prompt token, in one pass."""

import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.parsing import ToolCallParser
from asa_adapter.progress import progress_bar
from asa_adapter.prompts import Row, batches_by_length, encode_rows, pad_batch, pad_token_id
from asa_adapter.residual import decoder_blocks, hidden_size, hidden_state, last_prompt_index
from asa_adapter.tools import Tools

# Spread of a layer's states over different prompts, relative to their norm, below which it cannot have read them.
_BLIND_SPREAD = 1e-4

# Shorter shared beginnings are not worth a cache; states behind one must be this near, relative to their norm.
_SHORTEST_PREFIX = 16
_PREFIX_TOLERANCE = 1e-4


@dataclass(frozen=True)
class HiddenStates:
    """Residual states of N rows at L layers.

    Attributes:
        states: (L, N, D) float32 on the CPU, layer l being the OUTPUT of decoder block l, rows in the data's order.
    """

    states: torch.Tensor

    def sees_prompt(self) -> list[bool]:
        """Whether each layer's state depends on the prompt at all.

        The last prompt tokens are the template's, alike in every prompt, so blocks that reach back a few tokens only
        (short convolutions before the first attention) put out the same state for all.
        """
        spread = (self.states - self.states.mean(dim=1, keepdim=True)).norm(dim=2).mean(dim=1)
        return [bool(s > _BLIND_SPREAD * n) for s, n in zip(spread, self.states.norm(dim=2).mean(dim=1), strict=True)]


def collect_hidden_states(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    tools: Tools | None = None,
    batch_size: int = 16,
    progress: bool = True,
    layer_path: str | None = None,
    parser: ToolCallParser | None = None,
) -> HiddenStates:
    """Runs each row's prompt once and keeps all layers' states at its last token.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer, with a chat template.
        rows: rows with `instruction` or `messages`, and optionally `tools` of their own.
        tools: JSON-schema tools for the rows that have none.
        batch_size: prompts in one forward pass.
        progress: whether to show a bar.
        layer_path: dotted path of the block list, where the rule does not find it.
        parser: writes the calls of a chat whose template drops them; found by the tokenizer where None.

    Raises:
        ValueError: no rows, a row without a prompt, or a tokenizer without a chat template.
        IncompatibleModelError: the decoder blocks are not found, or put out no (B, T, D) state.
    """
    if not len(rows):
        raise ValueError("there are no rows to collect hidden states from")
    prompts = encode_rows(tokenizer, rows, tools, parser)
    blocks = decoder_blocks(model, layer_path)
    states = torch.empty(len(blocks), len(prompts), hidden_size(model))
    with evaluation_mode(model), progress_bar(len(prompts), "hidden states", progress) as bar:
        prefix = SharedPrefix.of(model, blocks, prompts)
        for batch in batches_by_length(prompts, batch_size):
            # Right padding comes after the token that is read, and a causal model does not look ahead.
            suffixes = [prompts[i][prefix.length :] for i in batch]
            ids, mask = pad_batch(suffixes, pad_token_id(tokenizer), "right", input_device(model))
            states[:, batch] = last_token_states(model, blocks, ids, mask, prefix)
            bar.update(len(batch))
    return HiddenStates(states)


@dataclass(frozen=True)
class SharedPrefix:
    """What all prompts begin with (system turn and tools), run once.

    Attributes:
        length: number of shared tokens; 0 where nothing is shared, or the architecture cannot go on from a copy.
        cache: the model's cache behind them.
    """

    length: int = 0
    cache: Any = None

    @classmethod
    def of(cls, model: nn.Module, blocks: nn.ModuleList, prompts: Sequence[list[int]]) -> "SharedPrefix":
        """The prompts' common prefix, if states behind it are those of the whole prompt (checked on one prompt)."""
        first, last = min(prompts), max(prompts)
        length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        length = min(length, min(map(len, prompts)) - 1)
        if length < _SHORTEST_PREFIX or len(prompts) < 2:
            return cls()
        probe = torch.tensor([list(last)], device=input_device(model))
        mask = torch.ones_like(probe)
        keywords = forward_keywords(model, logits_to_keep=1)
        output = model(input_ids=probe[:, :length], attention_mask=mask[:, :length], use_cache=True, **keywords)
        prefix = cls(length, getattr(output, "past_key_values", None))
        if prefix.cache is None:
            return cls()
        whole = last_token_states(model, blocks, probe, mask, cls())
        try:
            # Two rows, so that the cache's copy has to be spread over a batch as it will be.
            behind = last_token_states(
                model, blocks, probe[:, length:].repeat(2, 1), mask[:, length:].repeat(2, 1), prefix
            )
        except (AttributeError, RuntimeError, TypeError, ValueError):
            return cls()  # a cache that cannot be copied or spread; running whole prompts is slower, not wrong
        tolerance = max(_PREFIX_TOLERANCE, rounding(model))
        error = (behind - whole).norm(dim=2) / whole.norm(dim=2).clamp(min=1e-12)
        return prefix if bool((error <= tolerance).all()) else cls()

    def spread(self, rows: int) -> Any:
        """A copy of the cache for a batch of rows; using a cache changes it."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return cache


def last_token_states(
    model: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor, mask: torch.Tensor, prefix: SharedPrefix
) -> torch.Tensor:
    """(L, B, D) float32 CPU states at each row's last token, from one forward pass behind the prefix."""
    last = last_prompt_index(mask)
    taken: dict[int, torch.Tensor] = {}

    def take(layer: int, output: Any) -> None:
        state = hidden_state(output)
        if state.ndim != 3 or state.shape[:2] != ids.shape:
            raise IncompatibleModelError(
                f"block {layer} put out a state of shape {tuple(state.shape)}; expected (rows, tokens, width) for "
                f"{ids.shape[0]} rows of {ids.shape[1]} tokens"
            )
        where = last.to(state.device)
        taken[layer] = state[torch.arange(len(where), device=state.device), where].float().cpu()

    with contextlib.ExitStack() as hooks:
        for layer, block in enumerate(blocks):
            hooks.enter_context(
                block.register_forward_hook(lambda _module, _args, output, layer=layer: take(layer, output))
            )
        keywords: dict[str, Any] = forward_keywords(model, logits_to_keep=1)
        if prefix.length:
            keywords["past_key_values"] = prefix.spread(len(ids))
            mask = torch.cat([mask.new_ones(len(ids), prefix.length), mask], dim=1)
        # The positions that generate() gives: some models, such as RoBERTa, would count otherwise by themselves.
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        keywords |= forward_keywords(model, position_ids=positions)
        model(input_ids=ids, attention_mask=mask, use_cache=bool(prefix.length), **keywords)
    if idle := [layer for layer in range(len(blocks)) if layer not in taken]:
        raise IncompatibleModelError(
            f"blocks {idle} of {type(model).__name__} do not run on text alone, so there is no state behind them to "
            "learn from"
        )
    return torch.stack([taken[layer] for layer in range(len(blocks))])


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, for a moment; each module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not inference_mode: what a model keeps for itself, such as rotary tables, must stay fit for training.
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def input_device(model: nn.Module) -> torch.device:
    """Where the model wants its token ids."""
    device = getattr(model, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device


def rounding(model: nn.Module) -> float:
    """Relative difference that the model's precision alone may make between two ways of running one prompt."""
    dtype = next(model.parameters()).dtype
    return 8 * torch.finfo(dtype).eps if dtype.is_floating_point else 0.1  # packed weights: quantised models


def forward_keywords(model: nn.Module, **keywords: Any) -> dict[str, Any]:
    """Those of the keywords that the model's forward pass takes."""
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in keywords.items() if name in taken}
