"""Checks whether an adapter fits a model. A model that cannot be steered is refused; mere suspicions are listed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.data.prompts import chat_template_sha256
from asa_adapter.engine.protocol import EngineModel, is_engine_model
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.files import looks_like_path
from asa_adapter.matching.parser_and_openings import parser_of_config
from asa_adapter.matching.prompt_resemblance import Resemblance
from asa_adapter.modeling.fingerprint import is_quantised, model_fingerprint, same_fingerprint, same_packing
from asa_adapter.modeling.peft_tuners import changing_adapters
from asa_adapter.modeling.residual_stream import decoder_blocks, generating_model, hidden_size, text_config
from asa_adapter.notations.tool_schemas import Tools

QUANTISED = "the weights are quantised (packed): an adapter fitted on the full model reads other states here"
FIT_HERE = "fit and measure the adapter on these very weights"


def refuse_learnt_prompts(model: Any) -> None:
    """Refuses a PEFT model with prompt learning (prompt tuning, prefix tuning, P-tuning), which no adapter fits.

    Raises:
        IncompatibleModelError: the active PEFT method puts learnt tokens before the prompt.
    """
    peft_config = getattr(getattr(model, "_orig_mod", model), "active_peft_config", None)
    if getattr(peft_config, "is_prompt_learning", False):
        raise IncompatibleModelError(
            "the PEFT model puts learnt tokens before the prompt, so the last prompt token moves; only PEFT methods "
            "that change weights, such as LoRA, can be steered"
        )


def refuse_other_kinds(model: nn.Module) -> None:
    """Refuses a model that is no causal language model of transformers.

    Raises:
        IncompatibleModelError: it has no generate(), or is an encoder-decoder.
    """
    if not hasattr(model, "generate") or not hasattr(model, "prepare_inputs_for_generation"):
        raise IncompatibleModelError(
            f"{type(model).__name__} has no generate(); expected a transformers AutoModelForCausalLM"
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise IncompatibleModelError("the model is an encoder-decoder; only decoder-only models can be steered")


def fitting_model(model: Any, config: ASAConfig) -> tuple[Any, nn.ModuleList | None]:
    """The model inside its wrappers, and its decoder blocks; None for a model that another engine runs.

    Raises:
        IncompatibleModelError: the adapter does not fit the model, or it cannot be steered.
    """
    if is_engine_model(model):
        fitting_engine(model, config)
        return model, None
    refuse_learnt_prompts(model)
    model = generating_model(model)
    return model, fitting_blocks(model, config)


def fitting_blocks(model: nn.Module, config: ASAConfig) -> nn.ModuleList:
    """The decoder blocks of a model that the adapter fits.

    Raises:
        IncompatibleModelError: the model is not a causal language model of transformers, its blocks are not found, or
            its width, depth or type differs from the config's.
    """
    refuse_other_kinds(model)
    found, blocks = text_config(model), decoder_blocks(model, config.layer_path)
    _refuse_sizes(hidden_size(model), len(blocks), getattr(found, "model_type", None), config)
    return blocks


def fitting_engine(model: EngineModel, config: ASAConfig) -> None:
    """Refuses a model that another engine runs if the adapter does not fit it.

    Raises:
        IncompatibleModelError: its width, depth or type differs from the config's.
    """
    found = model.facts
    kind = config.model_type if config.model_type in found.model_types else found.model_types[0]
    _refuse_sizes(found.hidden_size, found.num_layers, kind, config)


def _refuse_sizes(width: int, depth: int, kind: str | None, config: ASAConfig) -> None:
    """Refuses a model whose width, depth or type is not the adapter's."""
    facts = (
        ("hidden size", width, config.hidden_size),
        ("number of decoder blocks", depth, config.num_layers),
        ("model type", kind, config.model_type),
    )
    if wrong := misfits(facts, config):
        raise IncompatibleModelError(wrong[0])


def misfits(facts: Iterable[tuple[str, Any, Any]], config: ASAConfig) -> list[str]:
    """How a model differs from the one that the adapter was fitted for, a sentence for each difference.

    Args:
        facts: (name, the model's value, the config's value) of each property; it is not compared where the config's
            value is None.
        config: the adapter's config.
    """
    fitted = f" ({config.base_model})" if config.base_model else ""
    return [
        f"the model's {name} is {actual!r}, but the adapter was fitted for {expected!r}{fitted}"
        for name, actual, expected in facts
        if expected is not None and actual != expected
    ]


def differences_from_fit(
    model: Any, tokenizer: Any, tools: Tools | None, config: ASAConfig, allow_mismatch: bool
) -> list[str]:
    """What a user should know before this model is steered, a sentence each.

    Args:
        model: a model that passed `fitting_blocks` or `fitting_engine`.
        tokenizer: its tokenizer; None skips the checks of chat template and tool-call marker.
        tools: the tools that prompts will offer; None does not compare them.
        config: the adapter's config.
        allow_mismatch: tell of `suspicions`, and do not refuse the model for them.

    Raises:
        IncompatibleModelError: there are suspicions, and these are not allowed.
    """
    found = suspicions(model, tokenizer, config)
    if found and not allow_mismatch:
        raise IncompatibleModelError(f"{'; '.join(found)}. If this is what you want, attach with allow_mismatch=True")
    if tools is not None and (other := Resemblance(config).other_tools(tools)):
        found.append(f"{other}. `evaluate` on rows that offer them tells what it is worth there")
    return [*found, packed] if (packed := quantisation_note(model, config)) else found


def suspicions(model: Any, tokenizer: Any, config: ASAConfig) -> list[str]:
    """Signs that a model is not the one that the adapter was fitted for, or renders prompts differently.

    Args:
        model: a model that passed `fitting_blocks` or `fitting_engine`.
        tokenizer: its tokenizer; None skips the checks of chat template and tool-call marker.
        config: the adapter's config.

    Returns:
        A sentence for each sign; empty if there is none.
    """
    name, revision = str(getattr(model, "name_or_path", "") or ""), getattr(model.config, "_commit_hash", None)
    found = other_origin(config.base_model, config.base_model_revision, name, revision)
    if config.base_model_fingerprint:
        same, why = same_fingerprint(config.base_model_fingerprint, _fingerprint_to_compare(model, config))
        if same is False:
            adapters = [] if is_engine_model(model) else changing_adapters(model)
            changing = " and ".join(f"the {adapter}" for adapter in adapters)
            found.append(f"{changing} changes the weights: {why}" if changing else why)
    return found if tokenizer is None else found + _other_prompts(config, tokenizer)


def quantisation_note(model: Any, config: ASAConfig) -> str | None:
    """What to know before an adapter steers quantised weights; None where they are plain or it was fitted on them.

    Args:
        model: a model that passed `fitting_blocks` or `fitting_engine`.
        config: the adapter's config.
    """
    if is_engine_model(model):
        kind = model.facts.quantised
        own = config.base_model_fingerprint == model.fingerprint()
        return f"{QUANTISED.replace('packed', kind)}; {FIT_HERE}" if kind and not own else None
    if (config.base_model_fingerprint or "").startswith("gguf:"):
        return f"the adapter was fitted on a GGUF file, whose states are not quite those of this model; {FIT_HERE}"
    if not is_quantised(model, decoder_blocks(model, config.layer_path)):
        return None
    if same_packing(config.base_model_fingerprint, _fingerprint_to_compare(model, config)):
        return None
    return f"{QUANTISED}; {FIT_HERE}"


def _fingerprint_to_compare(model: Any, config: ASAConfig) -> str | None:
    if is_engine_model(model):
        return model.fingerprint()
    return model_fingerprint(model, config.layer_path, config.base_model_fingerprint)


def other_origin(
    fitted_name: str | None, fitted_revision: str | None, name: str | None, revision: str | None
) -> list[str]:
    """Signs in a model's name and revision that it is not the one that the adapter was fitted for, a sentence each.

    Args:
        fitted_name: Hub id or folder of the model that the adapter was fitted with.
        fitted_revision: commit of that model.
        name: Hub id or folder of the model at hand.
        revision: commit of that model.
    """
    found = []
    # A folder may have any name, so only two Hub ids are compared.
    if _is_hub_id(name or "") and _is_hub_id(fitted_name or "") and str(name).lower() != str(fitted_name).lower():
        found.append(f"the model is {name!r}, but the adapter was fitted for {fitted_name!r}")
    if fitted_revision and revision and revision != fitted_revision:
        found.append(f"the model is at revision {revision}, but the adapter was fitted for {fitted_revision}")
    return found


def _is_hub_id(name: str) -> bool:
    """Whether a model's name is a Hub id, "user/model", and not a folder on this machine."""
    return name.count("/") == 1 and not looks_like_path(name) and not Path(name).exists()


def _calls_begin_as_fitted(config: ASAConfig, tokenizer: Any) -> bool:
    """Whether calls begin with the same tokens as in the fit."""
    if not config.opening_ids:
        return False
    try:
        return parser_of_config(config, tokenizer).opening_ids(tokenizer) == config.opening_ids
    except ValueError:  # the config's format is not known
        return False


def _other_prompts(config: ASAConfig, tokenizer: Any) -> list[str]:
    """Signs that prompts and tool calls are written differently from those that the adapter was fitted with."""
    found = []
    if config.chat_template_sha256 not in (None, chat_template_sha256(tokenizer)):
        own = "; set tokenizer.chat_template = adapter.config.chat_template, which it was fitted with"
        found.append(
            "the tokenizer's chat template is not the one the adapter was fitted with"
            + (own if config.chat_template else "")
        )
    marker = config.tool_call_start or ""
    # A marker in plain words, such as "functools[", need not be a token of its own; nor need one named by hand.
    is_token = marker.endswith((">", "]"))
    known = marker in tokenizer.get_vocab() or marker in str(tokenizer.chat_template)
    if is_token and not known and not _calls_begin_as_fitted(config, tokenizer):
        found.append(f"neither vocabulary nor chat template has the tool-call marker {marker!r}")
    return found
