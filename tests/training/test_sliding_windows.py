"""Trainings of models whose attention sees the last eight tokens only, on rows of two tool lists."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from architectures import OVERRIDES, shrunk
from models import traces
from rows import labelled
from trainings import SMALL

from asa_adapter import ASATrainer, ASATrainingArguments

# The types whose layers hold the keys of a window or a chunk.
SLIDING = (
    *("cohere2", "cwm", "exaone4", "gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "lfm3", "llama4_text"),
    *("ministral", "mistral", "mixtral", "olmo3", "phi3", "smollm3", "starcoder2", "vaultgemma"),
)


def tools(name: str, parameters: list[str]) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {parameter: {"type": "string"} for parameter in parameters}}
    return [{"type": "function", "function": {"name": name, "parameters": schema}}]


TOOLS = (tools("search", ["query"]), tools("translate", ["text", "source_language", "target_language"]))


def letters(seed: int, count: int) -> str:
    """Letters, each of them one token."""
    return " ".join(np.random.default_rng(seed).choice(list("abcdefghijklmnopqrstuvwxyz"), count))


def rows_of_two_tool_lists() -> dict[str, list[dict[str, Any]]]:
    """Texts of several lengths for the first list, of one length for the second: it begins with more tokens."""
    splits = {}
    for k, name in enumerate(("cal", "train", "valid", "test")):
        first = labelled(8, first=100 * k, tools=TOOLS[0])
        second = labelled(8, first=100 * k + 50, tools=TOOLS[1])
        splits[name] = [{**row, "instruction": letters(100 * k + i, 15 + i % 3)} for i, row in enumerate(first)]
        splits[name] += [{**row, "instruction": letters(100 * k + 50 + i, 16)} for i, row in enumerate(second)]
    return splits


def model_of(model_type: str, vocabulary: int) -> Any:
    config_class = transformers.CONFIG_MAPPING[model_type]
    settings = shrunk(config_class, OVERRIDES.get(model_type, {}))
    sizes = {name: vocabulary for name in ("vocab_size", "vocab_size_per_layer_input") if name in settings}
    config = config_class(**{**settings, **sizes, "max_position_embeddings": 1024})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*max_new_tokens")  # a random model never ends an answer,
@pytest.mark.filterwarnings("ignore:the router is no better than chance")  # and tells no domains apart
@pytest.mark.parametrize("model_type", SLIDING)
def test_a_model_with_sliding_windows_is_trained_on_two_tool_lists(model_type: str, tiny_lfm2: Any) -> None:
    tokenizer = tiny_lfm2[1]
    model = model_of(model_type, len(tokenizer))
    grid = {"layers": (2,), "alphas": (1.0,), "taus": (0.5,), "betas": (0.0,), "Cs": (0.1,), "finalists": 1}
    # Random weights: no push moves anything, and without `exhaustive` the run would end before it generates.
    arguments = ASATrainingArguments(**{**SMALL, **grid, "max_new_tokens": 4, "exhaustive": True})
    adapter = ASATrainer(model, tokenizer, rows_of_two_tool_lists(), arguments).train()
    assert adapter.config.layer == 2
    assert traces(model) == []
