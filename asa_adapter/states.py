"""Hidden states of a data set: the output of every decoder block at each row's last prompt token, in one pass."""

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError
from asa_adapter.progress import progress_bar
from asa_adapter.prompts import Row, Tools, batches_by_length, encode_rows, pad_batch, pad_token_id
from asa_adapter.residual import decoder_blocks, hidden_state, last_prompt_index

# Spread of a layer's states over different prompts, relative to their norm, below which it cannot have read them.
_BLIND_SPREAD = 1e-4


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

    Raises:
        ValueError: no rows, a row without a prompt, or a tokenizer without a chat template.
        IncompatibleModelError: the decoder blocks are not found, or put out no (B, T, D) state.
    """
    if not len(rows):
        raise ValueError("there are no rows to collect hidden states from")
    prompts = encode_rows(tokenizer, rows, tools)
    blocks = decoder_blocks(model, layer_path)
    result: torch.Tensor | None = None
    with evaluation_mode(model), progress_bar(len(prompts), "hidden states", progress) as bar:
        for batch in batches_by_length(prompts, batch_size):
            # Right padding comes after the token that is read, and a causal model does not look ahead.
            ids, mask = pad_batch([prompts[i] for i in batch], pad_token_id(tokenizer), "right", input_device(model))
            states = last_token_states(model, blocks, ids, mask)
            if result is None:
                result = torch.empty(len(blocks), len(prompts), states.shape[-1])
            result[:, batch] = states
            bar.update(len(batch))
    assert result is not None  # batches_by_length gave at least one batch
    return HiddenStates(result)


def last_token_states(model: nn.Module, blocks: nn.ModuleList, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(L, B, D) float32 CPU states at each row's last token, from one forward pass without a cache."""
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
        model(input_ids=ids, attention_mask=mask, use_cache=False, **forward_keywords(model, logits_to_keep=1))
    return torch.stack([taken[layer] for layer in range(len(blocks))])


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, for a moment; each module's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def input_device(model: nn.Module) -> torch.device:
    """Where the model wants its token ids."""
    device = getattr(model, "device", None)
    return device if isinstance(device, torch.device) else next(model.parameters()).device


def forward_keywords(model: nn.Module, **keywords: Any) -> dict[str, Any]:
    """Those of the keywords that the model's forward pass takes."""
    taken = inspect.signature(model.forward).parameters
    return {name: value for name, value in keywords.items() if name in taken}
