"""Tiny models as GGUF files, opened, beside the same models in transformers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from fits import fitted_at
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, load_splits
from asa_adapter.data.prompts import encode_rows

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Pair(NamedTuple):
    """One model in both engines, prompts of TEST, and an adapter that reads two layers."""

    file: Any
    torch: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    prompts: list[list[int]]
    adapter: ASAAdapter


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny model as a GGUF file; each but once."""
    from gguf_files import write_gguf

    made: dict[tuple[str, str], Path] = {}

    def write(name: str = "tiny_lfm2", kind: str = "F32") -> Path:
        if (name, kind) not in made:
            path = tmp_path_factory.mktemp("gguf") / f"{name}-{kind}.gguf"
            made[name, kind] = write_gguf(EXAMPLES / name, path, kind)
        return made[name, kind]

    return write


@pytest.fixture(scope="session", params=["tiny_lfm2", "tiny_qwen3"])
def pair(request: pytest.FixtureRequest, written: Callable[..., Path]) -> Iterator[Pair]:
    from asa_adapter.llamacpp import GGUFModel

    torch.set_num_threads(1)
    name = request.param
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / name)
    model = AutoModelForCausalLM.from_pretrained(EXAMPLES / name, dtype=torch.float32).eval()
    splits = load_splits(EXAMPLES / "data")
    rows = list(splits["test"])[::32]
    file = GGUFModel(written(name), n_ctx=1024, threads=1, ends=[tokenizer.eos_token_id])
    adapter = fitted_at(model, tokenizer, list(splits["train"])[::4], layer=-2)
    yield Pair(file, model, tokenizer, rows, encode_rows(tokenizer, rows), adapter)
    file.close()
