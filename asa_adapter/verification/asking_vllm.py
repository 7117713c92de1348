"""Asks vLLM about the samples: in a process of its own with the adapter, and in another without it.

This module is that process, too: `python -m asa_adapter.verification.asking_vllm SPEC`, with vLLM installed.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from asa_adapter.adapter import ASAAdapter
from asa_adapter.verification.sample_record import ANSWER_TOKENS, SampleRecord, SeenSample, Where
from asa_adapter.verification.samples import Sample, prompt_digest

_AT_ONCE = 16
_REPEATS = 3
_WRITTEN = 32  # tokens of the answers whose steps are timed


def ask_vllm(
    adapter: ASAAdapter, folder: str, tokenizer: Any, samples: Sequence[Sample], engine: Mapping[str, Any]
) -> tuple[SampleRecord, dict[str, float]]:
    """Answers every sample with the adapter, and without it by an engine that does not have the plug-in.

    Args:
        adapter: the adapter.
        folder: its folder or Hub id, for ASA_ADAPTER.
        tokenizer: the model's tokenizer.
        samples: what is asked.
        engine: arguments of `vllm.LLM`, among them `model`.

    Returns:
        What was seen, and the seconds of a step: "bare" in the engine without the plug-in; "off" and "steered" in the
        one with it.

    Raises:
        RuntimeError: an engine did not start, or failed; the message is the last error that it wrote.
    """
    prompts = [sample.prompt(tokenizer, adapter.config) for sample in samples]
    length = max(map(len, prompts)) + _WRITTEN
    spec = {"engine": {"max_num_seqs": _AT_ONCE, "max_model_len": length, **engine}, "prompts": prompts}
    steered, bare = (_run_engine(spec, name, adapter.commit) for name in (folder, None))
    names = adapter.config.domains
    seen = []
    for prompt, decided, with_it, without in zip(
        prompts, steered["decided"], steered["answers"], bare["answers"], strict=True
    ):
        # A direction that is a domain's own has a number behind those of all domains.
        domain, p_tool, gate = (names[int(decided[0]) % len(names)], *decided[1:]) if decided else ("", 0.0, 0)
        reason = "" if decided else "left alone by the plug-in"
        seen.append(SeenSample(prompt_digest(prompt), domain, p_tool, int(gate), with_it, without, reason=reason))
    seconds = {"bare": bare["seconds"]["off"], **steered["seconds"]}
    return SampleRecord(samples, seen, Where(**steered["where"])), seconds


def _run_engine(spec: dict[str, Any], adapter: str | None, revision: str | None) -> dict[str, Any]:
    """What a vLLM engine answers, in a process of its own; unsteered where no adapter is named."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ASA_ADAPTER")}
    variables |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}
    if adapter is not None:
        variables |= {"ASA_ADAPTER": adapter, **({"ASA_ADAPTER_REVISION": revision} if revision else {})}
    with tempfile.TemporaryDirectory() as place:
        given, output = Path(place) / "spec.json", Path(place) / "output.json"
        given.write_text(json.dumps({**spec, "output": str(output), "steered": adapter is not None}))
        command = [sys.executable, "-m", __name__, str(given)]
        done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode or not output.is_file():
            raise RuntimeError(f"vLLM {'with' if adapter else 'without'} the adapter: {_last_error(done.stdout)}")
        found: dict[str, Any] = json.loads(output.read_text())
        return found


def _last_error(log: str) -> str:
    """The line that says why a process ended: the last error's, else its last one."""
    errors = re.findall(r"^(?:\([^)]*\) )*(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*", log, re.MULTILINE)
    lines = [line for line in log.splitlines() if line.strip()]
    return " ".join((errors or lines or ["it wrote nothing"])[-1].split())


def _decided_in_worker(model: Any) -> list[float] | None:
    """The decision on the latest prompt, in a worker of vLLM, which is then forgotten; None where there is none.

    There is none where the model is not steered, and where the plug-in left the prompt alone.
    """
    injection = next((part for part in model.modules() if type(part).__name__ == "Injection"), None)
    if injection is None:
        return None
    found = list(map(float, injection.decided[0].tolist()))
    injection.decided.fill_(math.nan)
    return None if math.isnan(found[1]) else found


def _ask_engine(spec: dict[str, Any]) -> None:
    """Runs one engine."""
    from vllm import LLM, SamplingParams

    llm = LLM(**spec["engine"])
    prompts = [{"prompt_token_ids": ids} for ids in spec["prompts"]]

    def answered(prompts: list[dict[str, Any]], tokens: int, **more: Any) -> list[list[int]]:
        params = SamplingParams(temperature=0, max_tokens=tokens, **more)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    answers, decided = [], []
    llm.apply_model(_decided_in_worker)  # forgets those of the engine's own start
    for prompt in prompts:  # one by one, so that the decision is that of this prompt
        answers += answered([prompt], ANSWER_TOKENS)
        decided.append(llm.apply_model(_decided_in_worker)[0])

    def seconds(extra: dict[str, Any] | None) -> float:
        began = time.perf_counter()
        answered(prompts, _WRITTEN, ignore_eos=True, extra_args=extra)
        return (time.perf_counter() - began) / _WRITTEN

    ways: dict[str, dict[str, Any] | None] = {"off": {"asa": 0}, **({"steered": None} if spec["steered"] else {})}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_REPEATS + 1):
        for name, extra in ways.items():
            spent = seconds(extra)
            times[name] += [spent] if turn else []  # the first turn warms up
    result = {
        "answers": answers,
        "decided": decided,
        "seconds": {name: median(values) for name, values in times.items()},
        "where": _where_vllm_runs(llm.llm_engine.vllm_config),
    }
    Path(spec["output"]).write_text(json.dumps(result))


def _where_vllm_runs(vllm_config: Any) -> dict[str, str]:
    """What a vLLM engine runs on."""
    import torch
    from vllm.version import __version__

    model, kind = vllm_config.model_config, vllm_config.device_config.device_type
    runner = "V2" if vllm_config.use_v2_model_runner else "V1"
    graphs = "eager" if model.enforce_eager else f"graphs {vllm_config.compilation_config.cudagraph_mode.name}"
    return {
        "engine": f"vLLM {__version__}, runner {runner}, {graphs}",
        "device": torch.cuda.get_device_name() if kind == "cuda" else str(kind),
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantised": str(model.quantization or ""),
    }


if __name__ == "__main__":
    _ask_engine(json.loads(Path(sys.argv[1]).read_text()))
