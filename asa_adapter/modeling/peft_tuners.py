"""What PEFT put into a model: which of its adapters change something, and which weights the model runs with."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from asa_adapter.modeling.forward import evaluation_mode

_NAMES = {"LORA": "LoRA", "ADALORA": "AdaLoRA", "VERA": "VeRA", "LOHA": "LoHa", "LOKR": "LoKr"}  # as they are written
_IDS_AT_ONCE = 4096  # rows of an embedding that are compared together


def running_parameters(module: nn.Module) -> list[torch.Tensor]:
    """The parameters that a module runs with, in the order of `parameters()`; a tied one may come twice.

    Layers of PEFT give their base's parameters; those of their adapters follow only if these change something. Of a
    module that PEFT keeps in copies (`modules_to_save`) the copy that runs is taken.
    """
    if (inner := _saved_module(module)) is not None:
        return running_parameters(inner)
    if _is_tuner(module):
        found = running_parameters(module.base_layer)  # type: ignore[arg-type]
        return found + _tuner_parameters(module) if _changes_output(module) else found
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    return own + [parameter for child in module.children() for parameter in running_parameters(child)]


def changing_adapters(model: nn.Module) -> list[str]:
    """The PEFT adapters that change what the model computes, merged or not, such as "LoRA adapter 'default'"."""
    names: dict[str, None] = {}
    for module in model.modules():
        if _is_tuner(module):
            tuner: Any = module
            names |= dict.fromkeys(tuner.merged_adapters or (tuner.active_adapters if _changes_output(tuner) else ()))
        elif hasattr(module, "modules_to_save") and _saved_module(module) is not getattr(
            module, "original_module", None
        ):
            names |= dict.fromkeys(name for name in module.active_adapters if name in module.modules_to_save)  # type: ignore[union-attr,operator]
    configs = getattr(model, "peft_config", None) or {}
    return [f"{_tuner_kind(configs.get(name))} adapter {name!r}" for name in names]


def _tuner_kind(config: Any) -> str:
    kind = str(getattr(getattr(config, "peft_type", None), "value", "PEFT"))
    return "DoRA" if getattr(config, "use_dora", False) else _NAMES.get(kind, kind)


def _is_tuner(module: nn.Module) -> bool:
    """Whether PEFT put this layer around another one."""
    return "base_layer" in module._modules and hasattr(type(module), "active_adapters")


def _saved_module(module: Any) -> nn.Module | None:
    """The module that runs inside a wrapper of PEFT that keeps the original beside it; None for other modules."""
    if "original_module" not in module._modules or not hasattr(type(module), "active_adapters"):
        return None
    if isinstance(tokens := module._modules.get("token_adapter"), nn.Module):  # single trained tokens
        return tokens
    copies = module._modules.get("modules_to_save") or {}
    active = [name for name in module.active_adapters if name in copies]
    return copies[active[0]] if active and not module.disable_adapters else module.original_module


def _tuner_parameters(tuner: Any) -> list[torch.Tensor]:
    """The parameters and scales of a layer's active adapters."""
    active = set(tuner.active_adapters)
    found = [
        parameter
        for name, parameter in tuner.named_parameters()
        if not name.startswith("base_layer.") and active & set(name.split("."))
    ]
    scaling = getattr(tuner, "scaling", None)
    scales = [float(scaling[name]) for name in sorted(active) if name in scaling] if isinstance(scaling, dict) else []
    return [*found, torch.tensor(scales, dtype=torch.float32)] if scales else found


@torch.no_grad()
def _changes_output(tuner: Any) -> bool:
    """Whether a layer's active adapters change its output: the layer is compared with its base.

    Merged adapters are part of the base's weights, which speak for themselves.
    """
    own = _tuner_parameters(tuner)
    if tuner.disable_adapters or tuner.merged or not own:
        return False
    base = tuner.base_layer.base_layer if _is_tuner(tuner.base_layer) else tuner.base_layer
    weight = getattr(base, "weight", None)
    if weight is None or any(tensor.device.type == "meta" for tensor in (weight, *own)):
        return True
    # DoRA divides by norms and multiplies with them again: what changes nothing is still rounded.
    rounding = 8 * torch.finfo(own[0].dtype).eps if any(getattr(tuner, "use_dora", {}).values()) else 0.0
    with evaluation_mode(tuner):
        return any(
            not torch.allclose(tuner(given), expected := tuner.base_layer(given), 0.0, rounding * _greatest(expected))
            for given in _inputs_that_show_changes(base, weight)
        )


def _greatest(tensor: torch.Tensor) -> float:
    return float(tensor.abs().max())


def _inputs_that_show_changes(base: Any, weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """Inputs that show every change of a layer: all ids of an embedding, or one dense vector."""
    if isinstance(base, nn.Embedding):
        yield from torch.arange(base.num_embeddings, device=weight.device).split(_IDS_AT_ONCE)
    else:
        width = (
            getattr(base, "in_features", None) or weight.shape[0]
        )  # GPT-2's layers name no width, and are (in, out)
        dtype = weight.dtype if weight.dtype.is_floating_point else torch.float32
        yield torch.arange(1, 1 + width, device=weight.device).cos().to(dtype)[None]
