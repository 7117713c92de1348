"""What the serving tests compare with: a tiny model, an adapter at its middle layer, prompts, transformers' answers.

The expectations are transformers' greedy tokens, float32, one prompt at a time, without and with the adapter.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from engine import NEW_TOKENS
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from asa_adapter import ASAAdapter, load_splits
from asa_adapter.data.prompts import encode_rows
from asa_adapter.modeling.fingerprint import model_fingerprint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from fits import fitted_at

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
CALIBRATION_ROWS = 160
NO_TOKEN = 10**9  # as the end of a turn: none
# Steering must change at least this share of the answers, or equal tokens would say little.
LEAST_CHANGED = 0.1


@dataclass(frozen=True)
class Bed:
    """One model's test bed.

    Attributes:
        name: short name of the model.
        source: folder of the model.
        model: folder of the copy that vLLM serves.
        adapter: folder of the adapter.
        prompts: token ids.
        base: transformers' greedy tokens without the adapter.
        steered: the same with it.
    """

    name: str
    source: Path
    model: Path
    adapter: Path
    prompts: list[list[int]]
    base: list[list[int]]
    steered: list[list[int]]

    def expected(self, factors: list[int]) -> list[list[int]]:
        """What requests with these factors, 0 or 1, must answer."""
        return [self.steered[i] if factor else self.base[i] for i, factor in enumerate(factors)]


def make_bed(source: Path, work: Path, prompts: int) -> Bed:
    """Fits an adapter and asks transformers.

    Args:
        source: folder of the model.
        work: folder for everything that is made.
        prompts: number of prompts.
    """
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    name = source.name.removeprefix("tiny_")
    served = served_copy(source, work / name / "model")
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    splits = load_splits(DATA)
    rows = list(splits["test"])
    chosen = [rows[i * len(rows) // prompts] for i in range(prompts)]
    ids = encode_rows(tokenizer, chosen, None)
    adapter = fit(model, tokenizer, list(splits["train"]))
    adapter.save_pretrained(work / name / "adapter")
    base = answers(model, tokenizer, ids)
    with adapter.attach(model, tokenizer=tokenizer):
        steered = answers(model, tokenizer, ids)
    changed = sum(a != b for a, b in zip(base, steered, strict=True))
    print(f"{name}: the adapter at layer {adapter.config.layer} changes {changed} of {prompts} answers", flush=True)
    if changed < LEAST_CHANGED * prompts:
        raise SystemExit(f"{name}: too few; equal tokens would not show that the model is steered")
    return Bed(name, source, served, work / name / "adapter", [list(p) for p in ids], base, steered)


def fit(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> ASAAdapter:
    """An adapter at the middle layer, so that the cache of the layers above depends on it; it reads two layers."""
    rows = [rows[i * len(rows) // CALIBRATION_ROWS] for i in range(CALIBRATION_ROWS)]
    return fitted_at(
        model,
        tokenizer,
        rows,
        layer=model.config.num_hidden_layers // 2,
        alpha=1.0,
        base_model=str(model.name_or_path),
        base_model_fingerprint=model_fingerprint(model),
    )


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens behind each prompt, one prompt at a time; they go on behind the end of a turn."""
    found = []
    for ids in prompts:
        given = torch.tensor([ids])
        mask = torch.ones_like(given)
        output = model.generate(
            given, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=NO_TOKEN
        )
        found.append(output[0, len(ids) :].tolist())
    return found


def served_copy(source: Path, folder: Path) -> Path:
    """The model's folder, with what vLLM's LFM2 reads and transformers no longer writes into a configuration."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"].startswith("lfm2"):
        width = config["hidden_size"]
        config = {"conv_dim": width, "conv_dim_out": width, "block_dim": width, **config}
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder
