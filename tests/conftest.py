"""Shared pieces of the tests: tiny random models, fitted parts, the shipped tiny LFM2. Nothing here downloads."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",  # the client would send LFS files to Xet's own servers
    TOKENIZERS_PARALLELISM="false",
)

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from local_hub import LocalHub
from torch import nn

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors, load_splits
from asa_adapter.data.prompts import chat_template_sha256
from asa_adapter.data.splits import read_tools
from asa_adapter.states import collect_hidden_states

# The tensors here are tiny: on a busy machine, waiting for a second thread makes them a hundred times slower.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent
TINY_LFM2 = ROOT / "examples" / "tiny_lfm2"
DATA = ROOT / "examples" / "data"
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


def load_script(path: Path) -> Any:
    """A script as a module, with its neighbours importable as when it is run."""
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def random_model(family: str = "lfm2", seed: int = 0) -> Any:
    """A tiny random model; its weights are large enough for the greedy tokens to depend on the prompt."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model


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
    return ASAAdapter(
        config,
        SteeringVectors.fit(states, labels.tolist(), names, domains),
        Router.fit(states, names),
        Probes.fit(states, labels, names),
    )


def prompts(rows: int = 3, length: int = 9, seed: int = 1) -> torch.Tensor:
    """(rows, length) random token ids without special tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


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


@pytest.fixture(scope="session")
def tiny_lfm2() -> tuple[Any, Any]:
    """The shipped LFM2 in float32, and its tokenizer. Tests leave it as it was."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TINY_LFM2)
    model = transformers.AutoModelForCausalLM.from_pretrained(TINY_LFM2, dtype=torch.float32)
    return model.eval(), tokenizer


@pytest.fixture(scope="session")
def splits() -> Any:
    """The shipped data."""
    return load_splits(DATA)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, splits: Any) -> Path:
    """Every fourth row of the shipped data, as a folder."""
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(DATA / "tools.json", folder)
    for name in splits:
        lines = (DATA / f"{name}.jsonl").read_text().splitlines()[::4]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 rows of each split of the shipped data, for whole trainings that take seconds."""
    folder = tmp_path_factory.mktemp("few_rows")
    for name in ("cal", "train", "valid", "test"):
        kinds: dict[tuple[str, int], list[str]] = {}
        for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True):
            row = json.loads(line)
            kinds.setdefault((row["domain"], row["label"]), []).append(line)
        chosen = [line for lines in kinds.values() for line in lines[:3]]
        (folder / f"{name}.jsonl").write_text("".join(chosen), "utf-8")
    (folder / "tools.json").write_bytes((DATA / "tools.json").read_bytes())
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tiny_lfm2: tuple[Any, Any], splits: Any) -> ASAAdapter:
    """An adapter of the shipped LFM2, fitted on a part of CAL at one layer, without any search."""
    rows = list(splits["cal"])[::2]
    states = collect_hidden_states(*tiny_lfm2, rows, progress=False).states[6].numpy()
    domains, labels = [row["domain"] for row in rows], [row["label"] for row in rows]
    names = tuple(sorted(set(domains)))
    config = ASAConfig(
        hidden_size=states.shape[1],
        num_layers=8,
        layer=6,
        domains=names,
        alpha=1.0,
        tau=0.6,
        residual_norm=float(np.linalg.norm(states, axis=1).mean()),
        tool_call_format="lfm2",
        tool_call_start="<|tool_call_start|>",
        chat_template_sha256=chat_template_sha256(tiny_lfm2[1]),
        tools=read_tools(DATA / "tools.json"),
    )
    return ASAAdapter(
        config,
        SteeringVectors.fit(states, labels, domains, names),
        Router.fit(states, domains, 0.1),
        Probes.fit(states, labels, domains, 0.1),
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A Hub on 127.0.0.1 that the real client talks to, with an empty cache and nobody logged in.

    The client reads the environment once, when it is imported, into these constants: they are what is changed here.
    Nothing of ours is. `test_hub_process.py` has a process that is told by the environment alone.
    """
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with LocalHub() as local:
        for name, value in {
            "ENDPOINT": local.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": local.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_OFFLINE": False,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield local
