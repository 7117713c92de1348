"""What the plug-in does not serve, each with its reason: models that do not fit, untested settings."""

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from asa_adapter.config.asa_config import ASAConfig
from asa_adapter.errors import IncompatibleModelError
from asa_adapter.matching.compatibility import misfits, other_origin

# Architectures whose steered tokens were compared with those of transformers. Others are served, which the log says.
PROVEN = (
    *("Lfm2ForCausalLM", "Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"),
    *("Qwen3MoeForCausalLM", "Phi3ForCausalLM", "Gemma3ForCausalLM", "GraniteForCausalLM", "Olmo2ForCausalLM"),
    *("SmolLM3ForCausalLM", "Lfm2MoeForCausalLM", "Gemma2ForCausalLM", "GPT2LMHeadModel", "CohereForCausalLM"),
    *("MixtralForCausalLM", "OlmoeForCausalLM", "Starcoder2ForCausalLM", "Glm4ForCausalLM", "StableLmForCausalLM"),
    "Qwen2MoeForCausalLM",
)


def architecture_of(config: ASAConfig) -> str:
    """The architecture that vLLM must serve an adapter's model as: what transformers calls the model's class.

    Raises:
        IncompatibleModelError: transformers knows none, or the adapter does more than steer.
    """
    if config.action != "steer":
        raise IncompatibleModelError(
            f"the adapter's action is {config.action!r}: it biases the logits of the first answer token, which the "
            'plug-in does not. Serve it with transformers, or save `adapter.with_action("steer")` and serve that'
        )
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type or "")
    if not isinstance(name, str):
        raise IncompatibleModelError(
            f"the adapter is for a model of type {config.model_type!r}, which transformers {version('transformers')} "
            "knows as no causal language model, so vLLM's class for it was not found. Steer it with transformers"
        )
    return name


def registered_class(registered: Mapping[str, Any], architecture: str) -> Any:
    """vLLM's own entry for an architecture, refused if it has none, with its class's `module_name` and `class_name`.

    Args:
        registered: entries by architecture.
        architecture: its name.

    Raises:
        IncompatibleModelError: vLLM has no such architecture, or another plug-in's class for it.
    """
    found = registered.get(architecture)
    if not hasattr(found, "module_name"):
        what = "does not know" if found is None else "was given another class for"
        raise IncompatibleModelError(
            f"this vLLM {what} the architecture {architecture!r} of the adapter's model. Steer it with transformers"
        )
    return found


class _RefusedSetting(NamedTuple):
    """A setting that is refused."""

    name: str
    is_on: Callable[[Any], Any]


_SETTINGS = (
    _RefusedSetting("pooling models (--runner pooling)", lambda c: c.model_config.runner_type != "generate"),
    _RefusedSetting("encoder-decoder models", lambda c: c.model_config.is_encoder_decoder),
    _RefusedSetting("multimodal models", lambda c: c.model_config.is_multimodal_model),
    _RefusedSetting("prompt embeddings (--enable-prompt-embeds)", lambda c: c.model_config.enable_prompt_embeds),
    _RefusedSetting("pipeline parallelism", lambda c: c.parallel_config.pipeline_parallel_size > 1),
    _RefusedSetting("data parallelism", lambda c: c.parallel_config.data_parallel_size > 1),
    _RefusedSetting("prefill context parallelism", lambda c: c.parallel_config.prefill_context_parallel_size > 1),
    _RefusedSetting("decode context parallelism", lambda c: c.parallel_config.decode_context_parallel_size > 1),
    _RefusedSetting("sequence parallelism", lambda c: c.parallel_config.use_sequence_parallel_moe),
    _RefusedSetting("dual batch overlap (--enable-dbo)", lambda c: c.parallel_config.use_ubatching),
    _RefusedSetting("several nodes", lambda c: c.parallel_config.nnodes > 1),
    _RefusedSetting(
        "executors other than 'mp' and 'uni'",  # others start processes that do not inherit ASA_ADAPTER
        lambda c: c.parallel_config.distributed_executor_backend not in (None, "mp", "uni"),
    ),
    _RefusedSetting("--kv-sharing-fast-prefill", lambda c: c.cache_config.kv_sharing_fast_prefill),
    _RefusedSetting("KV connectors and KV offloading", lambda c: c.kv_transfer_config is not None),
    _RefusedSetting("encoder-cache connectors", lambda c: getattr(c, "ec_transfer_config", None) is not None),
    _RefusedSetting("weights offloaded to the CPU", lambda c: _offloads_weights(c.offload_config)),
    _RefusedSetting(  # its requests bypass the place where they are checked
        "the Rust front end (VLLM_USE_RUST_FRONTEND)",
        lambda c: os.environ.get("VLLM_USE_RUST_FRONTEND", "0") != "0",
    ),
    _RefusedSetting("LoRA (--enable-lora)", lambda c: c.lora_config is not None),
    _RefusedSetting("diffusion decoding", lambda c: c.diffusion_config is not None),
    _RefusedSetting(
        "speculative decoding other than 'ngram'",  # a draft model of the same architecture would be steered too
        lambda c: c.speculative_config is not None and c.speculative_config.method != "ngram",
    ),
)


def check_engine(vllm_config: Any, config: ASAConfig, architecture: str) -> None:
    """Refuses an engine whose model is not the adapter's, or that serves it in an untested way.

    Args:
        vllm_config: vLLM's whole configuration.
        config: the adapter's.
        architecture: what the served model must have.

    Raises:
        IncompatibleModelError: all reasons, in one message.
    """
    reasons = [f"asa_adapter was not tried with {setting.name}" for setting in _SETTINGS if setting.is_on(vllm_config)]
    if reasons := [*_why_other_model(vllm_config.model_config, config, architecture), *reasons]:
        raise IncompatibleModelError(
            f"{'; '.join(reasons)}. Change this, or unset ASA_ADAPTER to serve the bare model"
        )


def _why_other_model(model: Any, config: ASAConfig, architecture: str) -> list[str]:
    facts = (
        ("architecture", model.architecture, architecture),
        ("hidden size", model.get_hidden_size(), config.hidden_size),
        ("number of decoder blocks", model.get_total_num_hidden_layers(), config.num_layers),
    )
    revision = getattr(model.hf_config, "_commit_hash", None)
    return misfits(facts, config) or other_origin(config.base_model, config.base_model_revision, model.model, revision)


def _offloads_weights(offload: Any) -> bool:
    return bool(offload.uva.cpu_offload_gb > 0 or offload.prefetch.offload_group_size > 0)
