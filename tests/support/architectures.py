"""A tiny random model of any causal language model type, made from its config class by rule."""

import dataclasses
from typing import Any

import torch
import transformers
from models import BOS, EOS, PAD, VOCABULARY, WIDTH

DEPTH = 4
SPECIAL = 32  # ids behind those of the prompts, for image, audio and other placeholders

# What a config's fields are set to, by name, in nested configs too. Lists such as layer_types follow from these.
SIZES: tuple[tuple[int, str], ...] = (
    (
        1,
        "n_group topk_group num_expert_group n_shared_experts num_shared_experts first_k_dense_replace "
        "indexer_kv_heads",
    ),
    (
        2,
        "num_key_value_heads kv_n_heads swa_num_key_value_heads linear_num_key_heads num_query_groups "
        "indexer_n_heads num_experts_per_tok num_experts_per_token moe_topk moe_k moe_top_k split_ngram_parts",
    ),
    (
        DEPTH,
        "num_hidden_layers n_layer n_layers num_layers decoder_layers encoder_layers num_decoder_layers "
        "num_encoder_layers num_blocks depth num_attention_heads n_head n_heads num_heads decoder_attention_heads "
        "encoder_attention_heads attention_heads num_encoder_attention_heads num_decoder_attention_heads "
        "num_kv_heads swa_num_attention_heads num_experts n_routed_experts num_local_experts moe_num_experts "
        "linear_num_value_heads linear_num_heads zero_expert_num index_n_heads indexer_compress_ratio",
    ),
    (
        8,
        "head_dim swa_head_dim dim_head kv_channels attention_head_size d_head d_kv v_head_dim qk_nope_head_dim "
        "qk_rope_head_dim rotary_dim index_head_dim indexer_head_dim indexer_budget linear_key_head_dim "
        "linear_value_head_dim linear_head_dim sliding_window sliding_window_size attention_window_size window_size "
        "attention_chunk_size mamba_d_state mamba_d_head mamba_head_dim mamba_n_heads mamba_num_heads state_size "
        "ssm_state_size time_step_rank mamba_dt_rank hidden_size_per_layer_input",
    ),
    (
        16,
        "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size "
        "shared_experts_intermediate_size moe_shared_expert_intermediate_size q_lora_rank kv_lora_rank o_lora_rank "
        "hc_lowrank gated_norm_rank adapter_rank laurel_rank router_hidden_size ple_embed_dim",
    ),
    (
        WIDTH,
        "hidden_size d_model n_embd emb_dim embedding_size embedding_dim word_embed_proj_dim lru_width "
        "input_embedding_size output_embedding_size out_hidden_size hidden_size_global pronunciation_embed_dim "
        "shape_embed_dim image_size output_channels ext_pw_out_channel depthwise_separable_out_channel "
        "nemo_conv_channels output_proj_dims adapter_in_dim adapter_out_dim adapter_input_size "
        "downsample_hidden_size position_embedding_size",
    ),
    (
        2 * WIDTH,
        "intermediate_size intermediate_size_mlp dense_intermediate_size decoder_ffn_dim encoder_ffn_dim ffn_dim "
        "ffn_hidden_size dim_ff dff n_inner d_inner feed_forward_size d_ff mlp_dim mamba_d_ssm",
    ),
    (
        VOCABULARY + SPECIAL,
        "vocab_size vocab_size_per_layer_input decoder_vocab_size type_vocab_size audio_vocab_size "
        "pronunciation_vocab_size shape_vocab_size unpadded_vocab_size",
    ),
    (
        128,
        "max_position_embeddings n_positions n_ctx max_seq_len context_length max_source_positions model_max_length "
        "max_target_positions encoder_hash_byte_group_vocab ngram_vocab_size_base num_position_embeddings",
    ),
)
FIELDS: dict[str, Any] = {name: value for value, names in SIZES for name in names.split()} | {
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "is_decoder": True,
    "tie_word_embeddings": False,  # a tied head mostly repeats the last token
}

# What one type needs besides: every kind of block within four layers, and sizes that must fit each other.
_DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_DOTS3 = {
    "layer_types": ["indexed_attention", "sliding_attention"] * 2,
    "head_dim": 16,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 16,
    "swa_kv_lora_rank": 16,
    "swa_head_dim": 16,
    "swa_qk_nope_head_dim": 8,
    "swa_v_head_dim": 8,
}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"] * 2}
_CONV = {"layer_types": ["conv", "full_attention"] * 2}
_HYBRID = {"layer_types": ["hybrid_sliding", "hybrid"] * 2}
OVERRIDES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _DEFAULT_ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8}},
    "dots3_note": {"text_config": _DOTS3, "vision_config": {"pyramid_num_routed": [-1, -1, 2, 4]}},
    "dots3_note_text": _DOTS3,
    "gemma3": {"text_config": _SLIDING},
    "gemma3_text": _SLIDING,
    "gemma3n_text": {**_SLIDING, "num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": _LINEAR,
    "inkling2_text": _HYBRID,
    "inkling_text": _HYBRID,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": _LINEAR,
    "kolibri1": _SLIDING,
    "lfm2": _CONV,
    "lfm2_moe": _CONV,
    "lfm3": {"layer_types": ["conv", "sliding_attention", "conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2},
    "reformer": {"attn_layers": ["local", "lsh"] * 2, "axial_pos_shape": [8, 16], "axial_pos_embds_dim": [16, 16]},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "num_key_value_heads": 4},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "chunk_size": 8},
    "zaya": {"num_experts_per_tok": 1},
}


def shrunk(config_class: type, changes: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments that make a tiny config of a class, nested ones included."""
    names = {field.name: field.default for field in dataclasses.fields(config_class)}
    settings = {name: value for name, value in FIELDS.items() if name in names}
    if "kv_lora_rank" in names and "num_key_value_heads" in names:
        settings["num_key_value_heads"] = settings["num_attention_heads"]  # latent attention has no groups
    placeholders = [
        name
        for name, default in names.items()
        if name.endswith(("_token_id", "_token_index")) and isinstance(default, int) and name not in FIELDS
    ]
    settings |= {name: VOCABULARY + i for i, name in enumerate(placeholders)}
    if getattr(config_class, "sub_configs", None):
        for name, value in vars(config_class()).items():
            if name in names and isinstance(value, transformers.PreTrainedConfig):
                nested = shrunk(type(value), changes.get(name, {}))
                settings[name] = {"model_type": value.model_type, **nested}
    return {**settings, **{name: value for name, value in changes.items() if not isinstance(settings.get(name), dict)}}


def tiny_model(model_type: str) -> Any:
    """A random model of a type; its weights are large enough for the greedy tokens to depend on the prompt."""
    config_class = transformers.CONFIG_MAPPING[model_type]
    config = config_class(**shrunk(config_class, OVERRIDES.get(model_type, {})))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model
