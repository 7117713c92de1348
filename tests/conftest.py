"""Fixtures of all tests: the shipped tiny LFM2, its data and an adapter of it, a Hub. Nothing here downloads."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_HUB_DISABLE_XET="1",  # the client would send LFS files to Xet's own servers
    TOKENIZERS_PARALLELISM="false",
)

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkout import DATA, TINY_LFM2
from hub import LocalHub
from huggingface_hub import constants

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors, load_splits
from asa_adapter.data.prompts import chat_template_sha256
from asa_adapter.data.splits import read_tools
from asa_adapter.states import collect_hidden_states

# Scripts, run by hand and by .ci/run.
collect_ignore = ["benchmarks", "serving", "support/gguf_files.py", "user_script.py"]

# The tensors here are tiny: on a busy machine, waiting for a second thread makes them a hundred times slower.
torch.set_num_threads(1)


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
