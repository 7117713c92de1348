"""One engine of vLLM in a process of its own (python engine.py SPEC.json); the answers go to the spec's "output".

The environment decides whether it is steered. A spec has "engine" (arguments of `vllm.LLM`), "passes" (lists of
requests, each {"prompt": ids, "extra": extra_args}), and "output"; "unkeyed" takes the keys off the cache's blocks
again, and "interpreter" runs Model Runner V2 without a GPU.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

NEW_TOKENS = 24


class Recount:
    """Counts from the scheduler's side how often the end of a steered prompt was to be computed."""

    def __init__(self) -> None:
        self.ends = 0
        self.requests: dict[str, Any] = {}

    def watch(self, llm: Any) -> None:
        """Listens to the scheduler of an engine in this process."""
        scheduler = llm.llm_engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def listening(*args: Any, **kwargs: Any) -> Any:
            output = schedule(*args, **kwargs)
            cached = output.scheduled_cached_reqs
            starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
            starts |= dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
            for name, start in starts.items():
                request = scheduler.requests[name]
                count = output.num_scheduled_tokens[name]
                is_on = (request.sampling_params.extra_args or {}).get("asa", 1)
                self.ends += is_on and start < request.num_prompt_tokens <= start + count
            return output

        scheduler.schedule = listening


def counts(model: Any) -> list[int]:
    """How often the steered layer ran and how many rows it steered, in one worker; [] where nothing is steered."""
    injection = next((module for module in model.modules() if type(module).__name__ == "Injection"), None)
    return injection.ran.tolist() if injection is not None else []


def metric(llm: Any, name: str) -> int:
    """A counter of the engine."""
    return int(sum(getattr(found, "value", 0) for found in llm.get_metrics() if found.name == f"vllm:{name}"))


def take_off_keys() -> None:
    """vLLM's own names for the blocks of its cache, for the test of what they let through."""
    from vllm.v1.core import block_pool, kv_cache_utils

    with_keys = kv_cache_utils.generate_block_hash_extra_keys
    plain = next(cell.cell_contents for cell in with_keys.__closure__ if callable(cell.cell_contents))
    for module in (kv_cache_utils, block_pool):
        module.generate_block_hash_extra_keys = plain


def answer(llm: Any, requests: list[dict[str, Any]], recount: Recount) -> dict[str, Any]:
    """One pass: all requests at once, greedily."""
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=0,
            ignore_eos=True,
            max_tokens=request.get("tokens", NEW_TOKENS),
            extra_args=request.get("extra"),
            logprobs=5 if request.get("logprobs") else None,
        )
        for request in requests
    ]
    before, ends = llm.apply_model(counts), recount.ends
    began = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": r["prompt"]} for r in requests], params, use_tqdm=False)
    seconds = time.perf_counter() - began
    after = llm.apply_model(counts)
    return {
        "seconds": seconds,
        "tokens": [list(output.outputs[0].token_ids) for output in outputs],
        "logprobs": [first_logprobs(output.outputs[0].logprobs) for output in outputs],
        "cached": sum(output.num_cached_tokens or 0 for output in outputs),
        "steered": [b[1] - a[1] if a else 0 for a, b in zip(before, after, strict=True)],
        "ends": recount.ends - ends,
        "preemptions": metric(llm, "num_preemptions"),
        "accepted": metric(llm, "spec_decode_num_accepted_tokens"),
    }


def first_logprobs(found: Any) -> dict[str, float] | None:
    """The first answer token's log-probabilities, by token."""
    return {str(token): value.logprob for token, value in found[0].items()} if found else None


def main(spec: dict[str, Any]) -> None:
    if spec.get("interpreter"):
        import interpreter

        interpreter.install()
    from vllm import LLM

    began = time.perf_counter()
    llm = LLM(disable_log_stats=False, **spec["engine"])
    started = time.perf_counter() - began
    if spec.get("unkeyed"):
        take_off_keys()
    recount = Recount()
    if spec["engine"].get("tensor_parallel_size", 1) == 1:
        recount.watch(llm)
    passes = [answer(llm, requests, recount) for requests in spec["passes"]]
    v2 = llm.llm_engine.vllm_config.use_v2_model_runner
    Path(spec["output"]).write_text(json.dumps({"start": started, "v2": v2, "passes": passes}))


def run_engine(spec: Path, environment: dict[str, str], log: Path) -> None:
    """One engine in a process that was forked for it, with an environment of its own; it writes into a file."""
    os.environ.clear()
    os.environ.update(environment)
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    main(json.loads(spec.read_text()))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("spec", type=Path)
    main(json.loads(arguments.parse_args().spec.read_text()))
