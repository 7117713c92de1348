"""Tiny models of random weights, one for each architecture that vLLM is tried with."""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "examples" / "tiny_qwen3"
LAYERS = 4
# Large enough for greedy answers that depend on the prompt, and for no two logits to be nearly the same.
SCALE = 3.0

_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2), "sliding_window": 64}
_TIED = {"tie_word_embeddings": True}  # vLLM knows no other
_CONV = {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)}
# Changes to the sizes, by model type.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "lfm2": {**_CONV, **_TIED},
    "lfm2_moe": {**_CONV, **_TIED, **_EXPERTS, "num_experts": 4, "num_dense_layers": 1},
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {**_EXPERTS, "num_experts": 4},
    "mistral": {"sliding_window": None},
    "phi3": {},
    "gemma2": {**_SLIDING, "query_pre_attn_scalar": 32, **_TIED},
    "gemma3_text": {**_SLIDING, "query_pre_attn_scalar": 32},
    "granite": {
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.0,
    },
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "olmo2": {},
    "cohere": _TIED,
    "gpt2": {"n_embd": 128, "n_layer": LAYERS, "n_head": 4, "n_positions": 1024},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "glm4": {},
    "qwen2_moe": {**_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 64},
}


def tiny(model_type: str, folder: Path) -> Path:
    """Writes a tiny model of a type, with the tiny Qwen3's tokenizer.

    Args:
        model_type: one of `ARCHITECTURES`.
        folder: folder to write into.

    Returns:
        The model's folder.
    """
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": False,
        **ARCHITECTURES[model_type],
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**sizes), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(SCALE)
    model.save_pretrained(folder / model_type)
    tokenizer.save_pretrained(folder / model_type)
    return folder / model_type
