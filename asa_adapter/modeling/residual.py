"""Where the residual stream is: the decoder blocks, the last prompt token, and the state in a block's output.

Calibration (`states`) and steering (`hook`) both read through this module, so what is learnt is what is steered.
"""

from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError

# Parts of a model that hold blocks of their own but not the text decoder's.
_SIDE_TOWERS = ("encoder", "vision", "visual", "audio", "image", "speech", "tower", "mtp", "draft")


def generating_model(model: nn.Module) -> nn.Module:
    """The model whose generate() does the work, inside the wrappers of torch.compile() and PEFT."""
    if isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
        return generating_model(compiled)
    if hasattr(model, "get_base_model"):
        return generating_model(model.get_base_model())  # type: ignore[operator]
    return model


def text_config(model: Any) -> Any:
    """The configuration of the text decoder, which multimodal models keep inside their own."""
    config = getattr(model, "config", None)
    if config is None:
        raise IncompatibleModelError(
            f"{type(model).__name__} has no config; expected a transformers AutoModelForCausalLM"
        )
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def hidden_size(model: Any) -> int:
    """Width D of the residual stream, from the model's configuration."""
    config = text_config(model)
    for name in ("hidden_size", "n_embd", "d_model"):
        if isinstance(size := getattr(config, name, None), int):
            return size
    raise IncompatibleModelError(f"{type(config).__name__} names no hidden_size; this model cannot be steered")


def _decoder_depth(model: Any) -> int | None:
    config = text_config(model)
    for name in ("num_hidden_layers", "n_layer", "num_layers"):
        if isinstance(depth := getattr(config, name, None), int):
            return depth
    return None


def decoder_blocks(model: nn.Module, layer_path: str | None = None) -> nn.ModuleList:
    """The list of decoder blocks: the output of element l is the residual stream after block l, (B, T, D).

    The rule: of the ModuleLists that are not inside another one, those as long as the configuration's depth, or the
    longest where none has that length; of these the ones whose path names the fewest encoders and towers, since a
    decoder itself may be called an encoder; and of these the one with the most parameters.

    Args:
        model: a causal language model.
        layer_path: dotted path of the list, where the rule would not find it.

    Raises:
        IncompatibleModelError: no such list, or `layer_path` leads to something else.
    """
    if layer_path is not None:
        try:
            blocks = model.get_submodule(layer_path)
        except AttributeError as error:
            raise IncompatibleModelError(f"{type(model).__name__} has no {layer_path!r}: {error}") from error
        if not isinstance(blocks, nn.ModuleList) or not len(blocks):
            raise IncompatibleModelError(
                f"{layer_path!r} is a {type(blocks).__name__}; expected the ModuleList of decoder blocks"
            )
        return blocks
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and not _inside_a_list(model, name)
    }
    if not found:
        raise IncompatibleModelError(
            f"no list of decoder blocks found in {type(model).__name__}; name it with layer_path, as in 'model.layers'"
        )
    depth = _decoder_depth(model)
    right_length = {name: blocks for name, blocks in found.items() if len(blocks) == depth}
    candidates = right_length or {n: b for n, b in found.items() if len(b) == max(map(len, found.values()))}
    name = max(candidates, key=lambda n: (-_side_towers(n), _parameter_count(candidates[n])))
    return candidates[name]


def headless(model: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    """The decoder without the head that makes logits, where the model has it as a part; else the model itself."""
    whole: Any = generating_model(model)
    inner = getattr(whole, getattr(whole, "base_model_prefix", "") or "", None)
    return inner if isinstance(inner, nn.Module) and any(part is blocks for part in inner.modules()) else model


def _inside_a_list(model: nn.Module, name: str) -> bool:
    parents = name.split(".")[:-1]
    return any(
        isinstance(model.get_submodule(".".join(parents[:i])), nn.ModuleList) for i in range(1, len(parents) + 1)
    )


def _side_towers(name: str) -> int:
    return sum(name.lower().count(tower) for tower in _SIDE_TOWERS)


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def hidden_state(output: Any) -> torch.Tensor:
    """The residual stream (B, T, D) in a block's output: that tensor itself, or the first of a tuple or list."""
    state = output[0] if type(output) in (tuple, list) and output else output
    if not isinstance(state, torch.Tensor):
        raise IncompatibleModelError(
            f"a decoder block returned a {type(output).__name__}; expected a tensor or a tuple that begins with one"
        )
    return state


def replace_hidden_state(output: Any, state: torch.Tensor) -> Any:
    """A block's output with another residual stream, in the same kind of container."""
    if isinstance(output, torch.Tensor):
        return state
    return type(output)((state, *output[1:]))


def last_prompt_index(mask: torch.Tensor) -> torch.Tensor:
    """Index of each row's last unmasked token.

    Args:
        mask: (B, T), non-zero where there is a token; padding may stand on either side.

    Returns:
        (B,) int64 on the CPU.

    Raises:
        ValueError: a row has no token.
    """
    if mask.ndim != 2:
        raise ValueError(f"the attention mask has shape {tuple(mask.shape)}; expected (rows, tokens)")
    present = mask.ne(0).cpu().numpy()
    rows, length = present.shape
    if length and present[:, -1].all():  # no padding on the right, as nearly always
        return torch.full((rows,), length - 1)
    if not present.any(axis=1).all():
        raise ValueError("a row of the attention mask is all zeros; expected at least one token in each row")
    return torch.from_numpy(length - 1 - present[:, ::-1].argmax(axis=1))
