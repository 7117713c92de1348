"""Where the residual stream is: the decoder blocks, the last prompt token, and the state in a block's output.

Calibration (`asa_adapter.states`) and steering (`asa_adapter.steering.hook`) both read the state through this module,
so the adapter steers the same state that it was fitted on.
"""

from typing import Any

import torch
from torch import nn

from asa_adapter.errors import IncompatibleModelError

# Parts of names of modules that have blocks of their own, other than the text decoder's.
_SIDE_TOWERS = ("encoder", "vision", "visual", "audio", "image", "speech", "tower", "mtp", "draft")


def generating_model(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile() and PEFT, whose generate() is the one that runs.

    Raises:
        IncompatibleModelError: as in `refuse_parallel`.
    """
    refuse_parallel(model)
    if isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
        return generating_model(compiled)
    if hasattr(model, "get_base_model"):
        return generating_model(model.get_base_model())  # type: ignore[operator]
    return model


def refuse_parallel(model: nn.Module) -> None:
    """Refuses a wrapper such as `DataParallel`, which has no generate() of its own.

    Raises:
        IncompatibleModelError: the model is such a wrapper.
    """
    if not hasattr(model, "config") and isinstance(getattr(model, "module", None), nn.Module):
        raise IncompatibleModelError(
            f"{type(model).__name__} is a wrapper for training on several devices and has no generate(); pass "
            "model.module"
        )


def text_config(model: Any) -> Any:
    """The configuration of the text decoder; in multimodal models it is part of the model's configuration.

    Raises:
        IncompatibleModelError: the model has no `config`.
    """
    config = getattr(model, "config", None)
    if config is None:
        refuse_parallel(model)
        raise IncompatibleModelError(
            f"{type(model).__name__} has no config; expected a transformers AutoModelForCausalLM"
        )
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def hidden_size(model: Any) -> int:
    """Width D of the residual stream, from the model's configuration.

    Raises:
        IncompatibleModelError: the model has no configuration, or this has no hidden size.
    """
    config = text_config(model)
    for name in ("hidden_size", "n_embd", "d_model"):
        if isinstance(size := getattr(config, name, None), int):
            return size
    raise IncompatibleModelError(f"{type(config).__name__} names no hidden_size; this model cannot be steered")


def _decoder_depth(model: Any) -> int | None:
    """Number of decoder blocks by the model's configuration; None where it does not say."""
    config = text_config(model)
    for name in ("num_hidden_layers", "n_layer", "num_layers"):
        if isinstance(depth := getattr(config, name, None), int):
            return depth
    return None


def decoder_blocks(model: nn.Module, layer_path: str | None = None) -> nn.ModuleList:
    """The list of decoder blocks; the output of block l is the residual stream after it, (B, T, D).

    The list is found by a rule. It looks at each `nn.ModuleList` that is not inside another one, and takes those whose
    length is the number of layers in the configuration, or the longest if none has it. Of these it takes those whose
    path has the fewest words such as "encoder" or "vision" (a decoder may itself be called an encoder), and of these
    the one with the most parameters.

    Args:
        model: a causal language model.
        layer_path: dotted path of the list, such as "model.layers"; None finds it by the rule.

    Raises:
        IncompatibleModelError: no list is found, `layer_path` is not a non-empty `nn.ModuleList`, or the model is
            refused by `refuse_parallel`.
    """
    refuse_parallel(model)
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
        if isinstance(module, nn.ModuleList) and len(module) and not _is_inside_blocks(model, name)
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
    """The decoder without the language-model head, where it is a submodule that has the blocks; else the model."""
    whole: Any = generating_model(model)
    inner = getattr(whole, getattr(whole, "base_model_prefix", "") or "", None)
    return inner if isinstance(inner, nn.Module) and any(part is blocks for part in inner.modules()) else model


def _is_inside_blocks(model: nn.Module, name: str) -> bool:
    parents = name.split(".")[:-1]
    return any(
        isinstance(model.get_submodule(".".join(parents[:i])), nn.ModuleList) for i in range(1, len(parents) + 1)
    )


def _side_towers(name: str) -> int:
    return sum(name.lower().count(tower) for tower in _SIDE_TOWERS)


def _parameter_count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def hidden_state(output: Any) -> torch.Tensor:
    """The residual stream (B, T, D) in a block's output: a tensor, or the first element of a tuple or list.

    Raises:
        IncompatibleModelError: neither is a tensor.
    """
    state = output[0] if type(output) in (tuple, list) and output else output
    if not isinstance(state, torch.Tensor):
        raise IncompatibleModelError(
            f"a decoder block returned a {type(output).__name__}; expected a tensor or a tuple that begins with one"
        )
    return state


def replace_hidden_state(output: Any, state: torch.Tensor) -> Any:
    """A block's output with its residual stream replaced by `state`; the type of the output stays the same."""
    if isinstance(output, torch.Tensor):
        return state
    return type(output)((state, *output[1:]))


def last_prompt_index(mask: torch.Tensor) -> torch.Tensor:
    """Index of each row's last unmasked token, whose residual stream is read.

    Args:
        mask: (B, T), non-zero where there is a token; padding may be on either side.

    Returns:
        (B,) int64 on the CPU.

    Raises:
        ValueError: the mask is not two-dimensional, or a row has no token.
    """
    if mask.ndim != 2:
        raise ValueError(f"the attention mask has shape {tuple(mask.shape)}; expected (rows, tokens)")
    present = mask.ne(0).cpu().numpy()
    rows, length = present.shape
    if length and present[:, -1].all():  # no padding on the right, the usual case
        return torch.full((rows,), length - 1, device="cpu")
    if empty := [row for row, tokens in enumerate(present) if not tokens.any()]:
        raise ValueError(f"rows {empty} of the attention mask are all zeros; expected at least one token in each row")
    return torch.from_numpy(length - 1 - present[:, ::-1].argmax(axis=1))
