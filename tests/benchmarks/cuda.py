"""Steering on a GPU: the same decisions and answers as on the CPU, nothing left behind, and what it costs.

    python tests/benchmarks/cuda.py [--json FILE] [--prompts N] [--repeats N]

The shipped tiny models answer prompts of TEST, in batches of 16, on the CPU and on the GPU, in float32 without TF32.
Costs are those of an LFM2 of the 1.2B's shape with random weights in bfloat16. Exit status 1 where something differs.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from lfm25_shape import lfm25_config
from torch.profiler import ProfilerActivity, profile

from asa_adapter import ASAAdapter, ASAConfig, Probes, Router, SteeringVectors, load_splits
from asa_adapter.data import encode_prompt, read_tools
from asa_adapter.states import collect_hidden_states

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NEW_TOKENS, BATCH = 24, 16
# The GPU and the CPU round differently, and the sums of a state are long.
TOLERANCE = 1e-4


def fitted(states: Any, rows: list[Any], layer: int, depth: int) -> ASAAdapter:
    """An adapter fitted at one layer, without any search; its gate is open on both sides."""
    labels, domains = [row["label"] for row in rows], [row["domain"] for row in rows]
    names = tuple(sorted(set(domains)))
    norm = float(np.linalg.norm(states, axis=1).mean())
    config = ASAConfig(
        hidden_size=states.shape[1], num_layers=depth, layer=layer, domains=names, tau=0.6, residual_norm=norm
    )
    vectors = SteeringVectors.fit(states, labels, domains, names)
    return ASAAdapter(config, vectors, Router.fit(states, domains, 0.1), Probes.fit(states, labels, domains, 0.1))


def batches(tokenizer: Any, rows: list[Any], device: str) -> list[dict[str, torch.Tensor]]:
    """The rows' prompts, padded on the left."""
    tools = read_tools(EXAMPLES / "data" / "tools.json")
    ids = [encode_prompt(tokenizer, [{"role": "user", "content": row["instruction"]}], tools) for row in rows]
    parts = [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]
    return [tokenizer.pad({"input_ids": part}, padding_side="left", return_tensors="pt").to(device) for part in parts]


def answers(model: Any, parts: list[Any], adapter: ASAAdapter | None, **settings: Any) -> tuple[list[Any], list[Any]]:
    """Greedy tokens and decisions for all batches."""
    tokens, decisions = [], []
    for part in parts:
        greedy = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, **settings}
        if adapter is None:
            output = model.generate(**part, **greedy)
        else:
            with adapter.attach(model, allow_mismatch=True) as steering:
                output = model.generate(**part, **greedy)
                decisions += steering.decisions
        tokens += output[:, part["input_ids"].shape[1] :].tolist()
    return tokens, decisions


def alike(a: list[Any], b: list[Any]) -> str:
    return f"{sum(x == y for x, y in zip(a, b, strict=True))} of {len(a)}"


def gates(decisions: list[Any]) -> list[Any]:
    return [(decision.domain, decision.gate) for decision in decisions]


def same_as_on_the_cpu(name: str, layer: int, prompts: int) -> dict[str, Any]:
    """What a shipped model does on both devices."""
    folder = EXAMPLES / name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    splits = load_splits(EXAMPLES / "data")
    cal, rows = list(splits["cal"])[::2], list(splits["test"])[:prompts]
    on_cpu = collect_hidden_states(model, tokenizer, cal, progress=False).states
    adapter = fitted(on_cpu[layer].numpy(), cal, layer, len(on_cpu))
    here = batches(tokenizer, rows, "cpu")
    bare, (steered, decided) = answers(model, here, None)[0], answers(model, here, adapter)

    model, there = model.to("cuda"), batches(tokenizer, rows, "cuda")
    on_gpu = collect_hidden_states(model, tokenizer, cal, progress=False).states
    gpu_bare, (gpu_steered, gpu_decided) = answers(model, there, None)[0], answers(model, there, adapter)
    logits = model(**there[0]).logits
    with adapter.attach(model, allow_mismatch=True):
        model.generate(**there[0], max_new_tokens=1)
    restored = torch.equal(model(**there[0]).logits, logits)
    static, static_decided = answers(model, there, adapter, cache_implementation="static", disable_compile=True)
    compiled, compiled_decided = answers(model, there, adapter, cache_implementation="static")
    halved = answers(model.to(torch.bfloat16), there, adapter)[1]
    return {
        "states_largest_relative_difference": float(
            ((on_gpu - on_cpu).norm(dim=2) / on_cpu.norm(dim=2).clamp(min=1e-12)).max()
        ),
        "gates": sorted({gate for _, gate in gates(decided)}),
        "steered_differs_from_bare": sum(a != b for a, b in zip(gpu_bare, gpu_steered, strict=True)),
        "bare": alike(bare, gpu_bare),
        "steered": alike(steered, gpu_steered),
        "decisions": alike(gates(decided), gates(gpu_decided)),
        "static cache": alike(gpu_steered, static),
        "static cache, decisions": alike(gates(decided), gates(static_decided)),
        "static cache, compiled": alike(gpu_steered, compiled),
        "static cache, compiled, decisions": alike(gates(decided), gates(compiled_decided)),
        "bfloat16, decisions": alike(gates(decided), gates(halved)),
        "restored": restored,
    }


def timed(repeats: int, *works: Callable[[], Any]) -> list[float]:
    """Median milliseconds of each work; they take turns."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(3 + repeats):
        for work, taken in zip(works, times, strict=True):
            torch.cuda.synchronize()
            began = time.perf_counter()
            work()
            torch.cuda.synchronize()
            if turn >= 3:
                taken.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(taken) for taken in times]


def waits(work: Callable[[], Any]) -> int:
    """How often the host waited for the GPU, or copied from it."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        work()
    names = ("cudaStreamSynchronize", "Memcpy DtoH")
    return sum(event.count for event in record.key_averages() if event.key.startswith(names))


def costs(repeats: int) -> dict[str, Any]:
    """What steering adds to a prompt and to a step."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(lfm25_config()).eval().to("cuda", torch.bfloat16)
    rng = np.random.default_rng(0)
    rows = [{"label": i // 4 % 2, "domain": "abcd"[i % 4]} for i in range(160)]
    states = rng.normal(size=(160, 2048)) + np.array([[row["label"]] for row in rows])
    adapter = fitted(states, rows, 8, 16)
    found: dict[str, Any] = {}
    for count in (1, 16):
        ids = torch.randint(3, 60000, (count, 512), device="cuda")
        ask = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}

        def run(tokens: int, ids: Any = ids, ask: dict[str, Any] = ask) -> Any:
            return model.generate(ids, **ask, max_new_tokens=tokens, min_new_tokens=tokens)

        with adapter.attach(model, allow_mismatch=True) as steering:

            def bare(tokens: int, run: Any = run, steering: Any = steering) -> Any:
                with steering.disabled():
                    return run(tokens)

            prefill = timed(repeats, lambda bare=bare: bare(1), lambda run=run: run(1))
            whole = timed(max(3, repeats // 5), lambda bare=bare: bare(65), lambda run=run: run(65))
            added = waits(lambda run=run: run(1)) - waits(lambda bare=bare: bare(1))
        steps = [(w - p) / 64 for w, p in zip(whole, prefill, strict=True)]
        found[f"{count} x 512 tokens"] = {
            "prefill_ms": prefill[0],
            "added_ms": prefill[1] - prefill[0],
            "step_ms": steps[0],
            "step_ratio": steps[1] / steps[0],
            "waits_added": added,
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results here")
    parser.add_argument("--prompts", type=int, default=64, metavar="N", help="prompts of TEST (default: 64)")
    parser.add_argument("--repeats", type=int, default=30, metavar="N", help="timings of each kind (default: 30)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA device here", file=sys.stderr)
        return 2
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    transformers.logging.set_verbosity_error()
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    with torch.no_grad():
        for name, layer in (("tiny_lfm2", 6), ("tiny_qwen3", 4)):
            results[name] = same_as_on_the_cpu(name, layer, options.prompts)
            print(json.dumps({name: results[name]}, indent=2), flush=True)
        results["costs"] = costs(options.repeats)
    print(json.dumps(results["costs"], indent=2))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2))
    whole = f"{options.prompts} of {options.prompts}"
    exact = ("steered", "decisions", "static cache", "static cache, decisions")
    sound = all(
        [results[name][key] for key in exact] == [whole] * len(exact)
        and results[name]["restored"]
        and results[name]["states_largest_relative_difference"] < TOLERANCE
        for name in ("tiny_lfm2", "tiny_qwen3")
    )
    print("the GPU does as the CPU" if sound else "the GPU DIFFERS from the CPU")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
