"""Ways to run vLLM, each in a process of its own, and what each must answer."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bed import Bed
from engine import NEW_TOKENS, run_engine

HERE = Path(__file__).resolve().parent
# A server forks each engine's process off one that has imported vLLM already: that takes longer than all else here.
_ENGINES = multiprocessing.get_context("forkserver")
_ENGINES.set_forkserver_preload(["__main__", "vllm.entrypoints.llm", "vllm.v1.worker.cpu_worker"])
AT_ONCE, BLOCK = 32, 32  # requests under way; tokens of a cache block, of which vLLM's CPU attention wants 32


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        run: what was run.
        model: short name of the model.
        equal: number of answers with the very token ids that transformers gives.
        of: number of answers.
        note: what else was counted.
        ok: whether all of it is as it must be.
        shown: False where vLLM cannot do this here, steered or not, so that the line claims nothing.
    """

    run: str
    model: str
    equal: int
    of: int
    note: str = ""
    ok: bool = True
    shown: bool = True

    @property
    def passed(self) -> bool:
        return self.ok and self.equal == self.of

    def __str__(self) -> str:
        mark = "" if self.passed else " **FAILED**" if self.shown else " **not shown**"
        return f"| {self.run} | {self.model} | {self.equal} / {self.of} | {self.note}{mark} |"


@dataclass(frozen=True)
class Case:
    """One start of an engine.

    Attributes:
        name: what the table calls it.
        engine: arguments of `vllm.LLM` beside the usual ones.
        passes: one for each pass over the prompts: "on", "off" or "third" (every third request off).
        steered: whether ASA_ADAPTER is set.
        environment: further variables.
        preempts: least number of preemptions that it must see in all its passes; in the last, ends were recomputed.
        accepts: whether draft tokens must have been accepted.
        doubtful: whether vLLM may be unable to do this on a CPU: then it is asked unsteered first.
        prompts: number of prompts, where not all.
        options: further keys of the engine's spec.
    """

    name: str
    engine: dict[str, Any] = field(default_factory=dict)
    passes: tuple[str, ...] = ("on",)
    steered: bool = True
    environment: dict[str, str] = field(default_factory=dict)
    preempts: int = 0
    accepts: bool = False
    doubtful: bool = False
    prompts: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


def factors(kind: str, n: int) -> list[int]:
    """Which of n requests are steered."""
    return [int(kind == "on" or (kind == "third" and i % 3 != 2)) for i in range(n)]


def longest(bed: Bed) -> int:
    """Room for the longest prompt, its answer and a next turn, in whole blocks."""
    return -(-(max(map(len, bed.prompts)) + 2 * NEW_TOKENS + 8) // BLOCK) * BLOCK


def scarce_blocks(bed: Bed) -> int:
    """Blocks for three usual prompts and hardly for their answers, so that requests are preempted."""
    usual_length = sorted(map(len, bed.prompts))[len(bed.prompts) // 2]
    return max(3 * -(-usual_length // BLOCK) + 1, longest(bed) // BLOCK + 1)  # one is vLLM's own


def usual(bed: Bed) -> dict[str, Any]:
    """Arguments of every engine."""
    arguments: dict[str, Any] = {
        "model": str(bed.model),
        "dtype": "float32",
        "enforce_eager": True,
        "max_num_seqs": AT_ONCE,
        "max_model_len": longest(bed),
        "block_size": BLOCK,
        "enable_prefix_caching": True,
        "kv_cache_memory_bytes": 2**28,
        "seed": 0,
    }
    if bed.name.startswith("lfm2"):
        # vLLM 0.32's CPU kernel rotates the wrong elements of LFM2's queries and keys, steered or not.
        arguments["compilation_config"] = {"custom_ops": ["all", "-rotary_embedding"]}
    return arguments


def environment(bed: Bed, work: Path, steered: bool, extra: dict[str, str]) -> dict[str, str]:
    """The environment of a process of vLLM."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ASA_ADAPTER", "VLLM_"))}
    adapter = {"ASA_ADAPTER": str(bed.adapter)} if steered else {}
    return {
        **inherited,
        **adapter,
        "VLLM_CACHE_ROOT": str(work / "cache"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        **extra,
    }


def start(bed: Bed, case: Case, work: Path, passes: list[list[dict[str, Any]]]) -> tuple[dict[str, Any], str]:
    """Runs an engine to its end.

    Returns:
        What it answered, {} where it failed, and what it wrote.
    """
    spec, output, log = work / "spec.json", work / "answers.json", work / "engine.log"
    output.unlink(missing_ok=True)
    engine = {**usual(bed), **case.engine}
    spec.write_text(json.dumps({"engine": engine, "passes": passes, "output": str(output), **case.options}))
    variables = environment(bed, work, case.steered, case.environment)
    if case.options.get("interpreter"):  # is chosen before Triton is imported
        with log.open("w") as written:
            command = [sys.executable, str(HERE / "engine.py"), str(spec)]
            code = subprocess.run(command, env=variables, stdout=written, stderr=subprocess.STDOUT).returncode
    else:
        process = _ENGINES.Process(target=run_engine, args=(spec, variables, log))
        process.start()
        process.join()
        code = process.exitcode
    return (json.loads(output.read_text()) if output.is_file() and not code else {}), log.read_text()


def run(bed: Bed, case: Case, work: Path) -> Iterator[Row]:
    """Runs a case and compares each pass with transformers; one row for each."""
    if case.doubtful:
        bare = list(run(bed, replace(case, name=f"{case.name}, unsteered", steered=False, doubtful=False), work))
        if not all(row.passed for row in bare):
            note = f"vLLM cannot without the adapter either: {bare[-1].note}"
            yield replace(bare[-1], run=case.name, note=note, shown=False)
            return
        yield from bare
    n = case.prompts or len(bed.prompts)
    asked = [factors(kind, n) for kind in case.passes]
    passes = [
        [{"prompt": bed.prompts[i], "extra": None if factor else {"asa": 0}} for i, factor in enumerate(kinds)]
        for kinds in asked
    ]
    result, log = start(bed, case, work, passes)
    if not result:
        yield failed(case.name, bed, n * len(passes), log)
        return
    for number, (kinds, found) in enumerate(zip(asked, result["passes"], strict=True), start=1):
        expected = bed.expected(kinds if case.steered else [0] * n)
        equal = sum(a == b for a, b in zip(found["tokens"], expected, strict=True))
        name = case.name + (f", pass {number}" if len(passes) > 1 else "")
        last = number == len(passes)
        yield Row(name, bed.name, equal, n, *_counted(case, sum(kinds) if case.steered else 0, found, last))


def failed(name: str, bed: Bed, of: int, log: str) -> Row:
    """The line of an engine that failed, with the end of what it wrote."""
    print(log[-6000:], flush=True)
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b.*", log, re.MULTILINE)
    return Row(
        name, bed.name, 0, of, f"the engine failed: {errors[-1] if errors else 'no error was written':.160}", ok=False
    )


def _counted(case: Case, steered: int, found: dict[str, Any], last: bool) -> tuple[str, bool]:
    """What a pass counted, and whether it is as it must be."""
    notes = [f"steered {'/'.join(map(str, found['steered']))}"]
    ok = True
    for worker in found["steered"]:
        alone = case.engine.get("tensor_parallel_size", 1) == 1
        # What was recomputed was steered again; the scheduler's side says how often an end was to be computed.
        ok &= worker == found["ends"] >= steered if alone and case.steered else worker == steered
        ok &= worker == steered or case.preempts > 0
    if case.engine.get("enable_prefix_caching", True):
        notes.append(f"{found['cached']} tokens from the cache")
    ok &= bool(found["cached"]) == case.engine.get("enable_prefix_caching", True)
    if case.preempts:
        notes.append(f"{found['preemptions']} preemptions so far")
        ok &= not last or (found["preemptions"] >= case.preempts and found["ends"] > steered)
    if case.accepts:
        notes.append(f"{found['accepted']} draft tokens accepted")
        ok &= found["accepted"] > 0
    return ", ".join(notes), ok
