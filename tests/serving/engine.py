"""One engine of vLLM in a process of its own: python engine.py SPEC.json; the answers go to the spec's "output".

The environment decides whether it is steered. A spec has "engine" (arguments of `vllm.LLM`), "passes" (lists of
requests, each {"prompt": ids, "extra": extra_args}), and "output".
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from bed import NEW_TOKENS


def counts(model: Any) -> list[int]:
    """How often the steered layer ran and how many rows it steered, in one worker; [] where nothing is steered."""
    injection = next((module for module in model.modules() if type(module).__name__ == "Injection"), None)
    return injection.ran.tolist() if injection is not None else []


def metric(llm: Any, name: str) -> int:
    return int(sum(getattr(found, "value", 0) for found in llm.get_metrics() if found.name == f"vllm:{name}"))


def main(spec: dict[str, Any]) -> None:
    from vllm import LLM, SamplingParams

    began = time.perf_counter()
    llm = LLM(disable_log_stats=False, **spec["engine"])
    result: dict[str, Any] = {"start": time.perf_counter() - began, "passes": []}
    for requests in spec["passes"]:
        params = [
            SamplingParams(
                temperature=0,
                max_tokens=request.get("tokens", NEW_TOKENS),
                extra_args=request.get("extra"),
                logprobs=5 if request.get("logprobs") else None,
            )
            for request in requests
        ]
        began = time.perf_counter()
        before = llm.apply_model(counts)
        outputs = llm.generate([{"prompt_token_ids": r["prompt"]} for r in requests], params, use_tqdm=False)
        after = llm.apply_model(counts)
        result["passes"].append(
            {
                "seconds": time.perf_counter() - began,
                "tokens": [list(output.outputs[0].token_ids) for output in outputs],
                "logprobs": [
                    {str(token): value.logprob for token, value in output.outputs[0].logprobs[0].items()}
                    if output.outputs[0].logprobs
                    else None
                    for output in outputs
                ],
                "cached": [output.num_cached_tokens for output in outputs],
                "steered": [b[1] - a[1] if a else 0 for a, b in zip(before, after, strict=True)],
                "ran": [b[0] - a[0] if a else 0 for a, b in zip(before, after, strict=True)],
                "ran_before": [a[0] if a else 0 for a in before],
                "preemptions": metric(llm, "num_preemptions"),
                "accepted": metric(llm, "spec_decode_num_accepted_tokens"),
            }
        )
    Path(spec["output"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
