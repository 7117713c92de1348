"""Tiny random models, an adapter that fits them, prompts, and what an adapter could leave on a model."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors
from asa_adapter.policy.controller import Controller

WIDTH, DEPTH, VOCABULARY = 32, 4, 64
PAD, BOS, EOS = 0, 1, 2

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
FAMILIES: dict[str, Callable[[], Any]] = {
    "lfm2": lambda: transformers.Lfm2Config(**_COMMON, layer_types=["conv", "full_attention"] * (DEPTH // 2)),
    "lfm2_moe": lambda: transformers.Lfm2MoeConfig(
        **_COMMON,
        **_EXPERTS,
        num_dense_layers=1,
        layer_types=["conv", "full_attention"] * (DEPTH // 2),
    ),
    "llama": lambda: transformers.LlamaConfig(**_COMMON),
    "mistral": lambda: transformers.MistralConfig(**_COMMON, head_dim=8, sliding_window=6),
    "phi3": lambda: transformers.Phi3Config(**_COMMON),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON, head_dim=8),
    "qwen3_moe": lambda: transformers.Qwen3MoeConfig(**_COMMON, **_EXPERTS, head_dim=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_COMMON,
        head_dim=8,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention"] * (DEPTH // 2),
    ),
    "falcon_h1": lambda: transformers.FalconH1Config(
        **_COMMON,
        mamba_d_ssm=32,
        mamba_n_heads=4,
        mamba_d_head=8,
        mamba_d_state=8,
        mamba_n_groups=1,
        mamba_chunk_size=8,
    ),
    "mamba2": lambda: transformers.Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        state_size=8,
        num_heads=8,
        head_dim=8,
        n_groups=1,
        chunk_size=8,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=DEPTH,
        n_head=4,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
    ),
}


def random_model(family: str = "lfm2", seed: int = 0) -> Any:
    """A tiny random model; its weights are large enough for the greedy tokens to depend on the prompt."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """PyTorch's default dtype is another one inside the `with` block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def fitted_adapter(domains: tuple[str, ...] = ("code", "math"), width: int = WIDTH, **changes: Any) -> ASAAdapter:
    """An adapter fitted on random separable states, by default of the random models' width."""
    generator = np.random.default_rng(0)
    names = [domains[i % len(domains)] for i in range(40 * len(domains))]
    labels = np.array([(i // len(domains)) % 2 for i in range(len(names))])
    states = generator.normal(size=(len(names), width))
    states[:, 0] += 4 * labels
    for i, name in enumerate(names):
        states[i, 1 + domains.index(name)] += 4
    settings: dict[str, Any] = {"num_layers": DEPTH, "alpha": 20.0, "layer": 2, **changes}
    config = ASAConfig(hidden_size=width, domains=domains, **settings)
    read = np.concatenate([states + 0.1 * layer for layer in config.reading], axis=1)
    return ASAAdapter(
        config,
        SteeringVectors.fit(states, labels.tolist(), names, domains),
        Router.fit(states, names),
        Probes.fit(read, labels, names),
    )


def prompts(rows: int = 3, length: int = 9, seed: int = 1) -> torch.Tensor:
    """(rows, length) random token ids without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def controller_of(adapter: ASAAdapter) -> Controller:
    """What decides and steers for an adapter."""
    return Controller.build(adapter.config, adapter.vectors, adapter.router, adapter.probes)


# Keywords of generate(), for each way through a prompt that a row may be left alone on.
WAYS: tuple[dict[str, Any], ...] = (
    {},
    {"use_cache": False},
    {"prefill_chunk_size": 2},
    {"num_beams": 2},
    {"do_sample": True, "num_return_sequences": 2, "temperature": 0.01},
)


def greedy(model: Any, ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
    """Eight greedy tokens behind each row."""
    settings = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": PAD, **keywords}
    return model.generate(ids, **settings)


def traces(model: nn.Module) -> list[str]:
    """Everything that an adapter could leave on a model: instance attributes and hooks, by name."""
    own = [name for name in model.__dict__ if name in ("generate", "prepare_inputs_for_generation", "__deepcopy__")]
    hooked = [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    ]
    return own + hooked
