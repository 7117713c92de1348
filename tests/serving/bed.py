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
from asa_adapter.matching.state_kinds import kind_of
from asa_adapter.modeling.fingerprint import model_fingerprint

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from fits import fitted_at, kinds_fitted_at

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
# The rule behind a tool's result, where an adapter has one of its own, and the cap of all steps.
BEHIND_RESULTS = {"alpha": 1.5, "alpha_down": 0.7, "tau": 0.6, "beta": 0.3}
CAP = 1.0
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


def make_bed(source: Path, work: Path, prompts: int, kinds: bool = False) -> Bed:
    """Fits an adapter and asks transformers.

    Args:
        source: folder of the model.
        work: folder for everything that is made.
        prompts: number of prompts.
        kinds: whether the prompts are of both kinds of state, for each of which the adapter has a rule, with capped
            steps.
    """
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    name = source.name.removeprefix("tiny_") + (" of two kinds" if kinds else "")
    served = served_copy(source, work / name / "model")
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    splits = load_splits(DATA / "conversations" if kinds else DATA)
    rows = list(splits["test"])
    chosen = [rows[i * len(rows) // prompts] for i in range(prompts)]
    ids = encode_rows(tokenizer, chosen, None)
    adapter = (fit_kinds if kinds else fit)(model, tokenizer, list(splits["train"]))
    adapter.save_pretrained(work / name / "adapter")
    base = answers(model, tokenizer, ids)
    with adapter.attach(model, tokenizer=tokenizer) as handle, handle.recording() as calls:
        steered = answers(model, tokenizer, ids)
    changed = [a != b for a, b in zip(base, steered, strict=True)]
    print(
        f"{name}: the adapter at layer {adapter.config.layer} changes {sum(changed)} of {prompts} answers", flush=True
    )
    for state in adapter.config.states if kinds else ():
        at = [i for i, row in enumerate(chosen) if kind_of(row) == state]
        capped = sum(calls[i][0].relative_step > 0.999 * CAP for i in at)
        pushed = sum(changed[i] for i in at)
        print(f"{state}: {len(at)} prompts, {pushed} of them changed, {capped} steps capped", flush=True)
        if pushed < LEAST_CHANGED * len(at):
            raise SystemExit(f"{name}: too few {state}; equal tokens would not show its rule")
    if sum(changed) < LEAST_CHANGED * prompts:
        raise SystemExit(f"{name}: too few; equal tokens would not show that the model is steered")
    return Bed(name, source, served, work / name / "adapter", [list(p) for p in ids], base, steered)


def fit(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> ASAAdapter:
    """An adapter at the middle layer, so that the cache of the layers above depends on it; it reads two layers."""
    return fitted_at(model, tokenizer, _few(rows), **_fields(model))


def fit_kinds(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> ASAAdapter:
    """The same with a rule for each kind of state, and capped steps."""
    rules = {"after_result": BEHIND_RESULTS}
    return kinds_fitted_at(model, tokenizer, _few(rows), by_state=rules, cap=CAP, **_fields(model))


def _few(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[i * len(rows) // CALIBRATION_ROWS] for i in range(CALIBRATION_ROWS)]


def _fields(model: Any) -> dict[str, Any]:
    return {
        "layer": model.config.num_hidden_layers // 2,
        "alpha": 1.0,
        "base_model": str(model.name_or_path),
        "base_model_fingerprint": model_fingerprint(model),
    }


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
