"""Runs that compare more than answers: what leaks from one turn to the next, compile caches, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bed import Bed, make_bed
from cases import BLOCK, Case, Row, factors, failed, run, start
from safetensors.torch import load_file, save_file
from widen import widened

SILENCE = {"asa": 0}
COMPILED = {"enforce_eager": False}


def next_turns(bed: Bed, work: Path) -> Iterator[Row]:
    """Does a chat's next turn, unsteered, see that the turn before was steered?

    The reference serves, unsteered, just the whole blocks before the one where the first turn's prompt ends: then the
    same tokens come from the cache as must with keys, and the rest is computed alike, to the bit.
    """
    first = [{"prompt": ids, "extra": None} for ids in bed.prompts]
    shared = [
        {"prompt": ids[: (len(ids) - 1) // BLOCK * BLOCK + 1], "extra": SILENCE, "tokens": 1} for ids in bed.prompts
    ]
    second = [
        {"prompt": [*ids, *answer, *ids[-8:]], "extra": SILENCE, "tokens": 1, "logprobs": True}
        for ids, answer in zip(bed.prompts, bed.steered, strict=True)
    ]
    case = Case("next turn")
    asked = {
        "reference": (case, [shared, second]),
        "keyed": (case, [first, second]),
        "unkeyed": (replace(case, options={"unkeyed": True}), [first, second]),
    }
    found = {}
    for name, (how, passes) in asked.items():
        result, log = start(bed, how, work, passes)
        if not result:
            yield failed(f"next turn, {name}", bed, len(second), log)
            return
        found[name] = result["passes"][1]["logprobs"]
    for name, must_be_equal in (("keyed", True), ("unkeyed", False)):
        apart = [_apart(a, b) for a, b in zip(found["reference"], found[name], strict=True)]
        changed = sum(d > 0 for d in apart)
        if must_be_equal:
            note = f"largest difference of log-probabilities {max(apart):g}"
            yield Row("next turn, unsteered, behind a steered one", bed.name, len(apart) - changed, len(apart), note)
        else:
            told = f"{changed} of {len(apart)} next turns differ, by up to {max(apart):.2g}"
            print(f"(without the keys {told})", flush=True)


def _apart(a: dict[str, float], b: dict[str, float]) -> float:
    """Largest difference of two lists of log-probabilities; infinity where they name other tokens."""
    return max(abs(a[token] - b[token]) for token in a) if a.keys() == b.keys() else float("inf")


def compiled(bed: Bed, work: Path) -> Iterator[Row]:
    """Steered, unsteered and steered again with one compile cache: each has its own graph."""
    folder = work / "compiled"
    shutil.rmtree(folder, ignore_errors=True)
    keys: list[set[str]] = []
    for steered in (True, False, True):
        case = Case("compiled", COMPILED, steered=steered, environment={"VLLM_CACHE_ROOT": str(folder)})
        kinds = factors("third" if steered else "off", len(bed.prompts))
        requests = [
            {"prompt": ids, "extra": None if on else SILENCE} for ids, on in zip(bed.prompts, kinds, strict=True)
        ]
        result, log = start(bed, case, work, [requests])
        name = f"torch.compile, {'every third off' if steered else 'unsteered in between'}"
        if not result:
            yield failed(name, bed, len(requests), log)
            return
        tokens, seen = result["passes"][0]["tokens"], result["passes"][0]["steered"][0]
        equal = sum(a == b for a, b in zip(tokens, bed.expected(kinds), strict=True))
        keys.append({path.name for path in folder.glob("torch_compile_cache/*/*")})
        yield Row(name, bed.name, equal, len(requests), f"steered {seen}", ok=seen == sum(kinds))
    new = keys[1] - keys[0]
    note = f"{len(keys[0])} cache keys with the adapter, {len(new)} more without"
    yield Row("compile cache keys differ", bed.name, int(bool(new)), 1, note, ok=keys[2] == keys[1])


def halved(bed: Bed, work: Path) -> Iterator[Row]:
    """Two workers share the model: one with a head of zeros more, since five cannot be shared.

    Raises:
        SystemExit: in transformers the wider model answers otherwise than the model.
    """
    wide = make_bed(widened(bed.source, work / f"{bed.name} of even heads"), work, len(bed.prompts))
    if wide.base != bed.base:
        raise SystemExit(f"{wide.name}: not the answers of {bed.name}; equal tokens would say nothing about it")
    free = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}  # else each worker wants a NUMA node of its own
    yield from run(wide, Case("tensor parallel 2", {"tensor_parallel_size": 2}, ("third",), environment=free), work)


def refused(bed: Bed, work: Path) -> Iterator[Row]:
    """Engines that must not start, and what they must say."""
    retrained = _retrained(bed, work)
    trials = [
        ("no adapter there", {}, {"ASA_ADAPTER": str(work / "nowhere")}, "no adapter folder at"),
        ("speculation by a draft model", {"speculative_config": _draft(bed)}, {}, "other than 'ngram'"),
        ("LoRA", {"enable_lora": True}, {}, "was not tried with LoRA"),
        ("other weights", {"model": str(retrained)}, {}, "are not those the adapter was fitted for"),
        ("another width", {"hf_overrides": {"hidden_size": 2 * _width(bed)}}, {}, "hidden size is"),
    ]
    for name, engine, environment, expected in trials:
        result, log = start(bed, Case(name, engine, environment=environment), work, [[]])
        said = not result and expected in log
        if not said:
            print(log[-3000:], flush=True)
        yield Row(f"refused: {name}", bed.name, int(said), 1, f"says '{expected}'")


def _width(bed: Bed) -> int:
    return int(json.loads((bed.model / "config.json").read_text())["hidden_size"])


def _draft(bed: Bed) -> dict[str, Any]:
    return {"method": "draft_model", "model": str(bed.model), "num_speculative_tokens": 2}


def _retrained(bed: Bed, work: Path) -> Path:
    """The model with other weights, as after a bit of training."""
    folder = work / bed.name / "retrained"
    shutil.copytree(bed.model, folder, dirs_exist_ok=True)
    weights = load_file(bed.model / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    changed = {
        name: (w.float() * (1 + 0.05 * torch.randn(w.shape, generator=generator))).to(w.dtype)
        for name, w in weights.items()
    }
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
