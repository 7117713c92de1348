"""What does steering cost in vLLM? python tests/serving/cost.py [--width N] [--repeats N] [MODEL_FOLDER ...]

Three engines live side by side in this one run, with the adapter, without it, and without it once more (which shows
what is noise), and take turns. Prints how long their steps take by those of the second: a step that reads one prompt,
and one that writes a token of each of 32 answers. With --width also for a model of that width with random weights.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from bed import DATA, ROOT, Bed, fit, served_copy
from cases import AT_ONCE, environment, usual
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from asa_adapter import load_splits

ENGINES = {"steered": True, "bare": False, "bare again": False}
READ, SHORT, WRITTEN = 512, 16, 32  # tokens: of a prompt that is read, of one that is answered, and of the answer
HEAD = 128  # width of a head, in the random model


def prepared(source: Path, work: Path) -> Bed:
    """A model with an adapter at its middle layer, of which no answers are expected."""
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    rows = list(load_splits(DATA)["train"])
    adapter = fit(model, AutoTokenizer.from_pretrained(source), rows).save_pretrained(work / source.name / "adapter")
    name = source.name.removeprefix("tiny_")
    return Bed(name, source, served_copy(source, work / source.name / "model"), adapter, [[0] * READ], [], [])


def random_model(width: int, work: Path) -> Path:
    """A Qwen3 of that width with random weights and the tiny one's tokens."""
    tiny, folder = ROOT / "examples" / "tiny_qwen3", work / f"random qwen3 of width {width}"
    config = AutoConfig.from_pretrained(tiny)
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "head_dim": HEAD}
    config.update({**sizes, "num_attention_heads": width // HEAD, "num_key_value_heads": width // HEAD})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
    return folder


def time_steps(pipe: Connection, variables: dict[str, str], engine: dict[str, Any], log: Path) -> None:
    """One engine in a process of its own: gets prompts and a length of answers, gives the seconds of each step."""
    os.environ.clear()
    os.environ.update(variables)
    with log.open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    from vllm import LLM, SamplingParams

    running = LLM(**engine).llm_engine
    pipe.send("started")
    while asked := pipe.recv():
        prompts, length = asked
        params = SamplingParams(temperature=0, ignore_eos=True, max_tokens=length)
        for number, ids in enumerate(prompts):
            running.add_request(str(number), {"prompt_token_ids": ids}, params)
        seconds = []
        while running.has_unfinished_requests():
            began = time.perf_counter()
            running.step()
            seconds.append(time.perf_counter() - began)
        pipe.send(seconds)


def step_times(bed: Bed, work: Path, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Median seconds of a step in each repeat, by what it does and by engine."""
    context = multiprocessing.get_context("spawn")
    limits = {"enable_prefix_caching": False, "max_num_batched_tokens": READ}
    pipes, processes = {}, []
    for name, steered in ENGINES.items():
        pipes[name], theirs = context.Pipe()
        given = (theirs, environment(bed, work, steered, {}), {**usual(bed), **limits}, work / f"{name}.log")
        processes.append(context.Process(target=time_steps, args=given, daemon=True))
        processes[-1].start()
        theirs.close()
        try:
            pipes[name].recv()
        except EOFError:
            raise SystemExit(
                f"{name}: the engine did not start\n{(work / f'{name}.log').read_text()[-3000:]}"
            ) from None
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(100, 2000, (AT_ONCE, READ), generator=generator).tolist()
    found: dict[str, dict[str, list[float]]] = {what: {name: [] for name in ENGINES} for what in ("read", "write")}
    for turn in range(repeats + 1):
        for name in list(ENGINES) if turn % 2 else list(reversed(ENGINES)):
            pipes[name].send((drawn[:8], 1))
            read = pipes[name].recv()
            pipes[name].send(([ids[:SHORT] for ids in drawn], WRITTEN))
            write = pipes[name].recv()[1:]  # the first step reads the prompts
            if turn:  # the first turn warms up
                found["read"][name].append(median(read))
                found["write"][name].append(median(write))
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(None)
        process.join()
    return found


def lines(bed: Bed, found: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    """The table's lines: medians and quartiles, over the repeats, of one engine's time by that of the bare one."""
    whats = {"read": f"prefill, a prompt of {READ} tokens", "write": f"decode, {AT_ONCE} answers"}
    for what, times in found.items():
        shown = []
        for name in ("steered", "bare again"):
            ratios = [a / b for a, b in zip(times[name], times["bare"], strict=True)]
            low, _, high = quantiles(ratios, n=4)
            shown.append(f"{median(ratios):.3f} ({low:.3f} to {high:.3f})")
        yield f"| {bed.name} | {whats[what]} | {' | '.join(shown)} |"


def main() -> None:
    """Measures what was asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders of models (default: the tiny ones)")
    parser.add_argument("--width", type=int, help=f"of a model with random weights; a multiple of {HEAD}")
    parser.add_argument("--repeats", type=int, default=30, help="number of turns of each engine (default: 30)")
    options = parser.parse_args()
    models = options.models or [ROOT / "examples" / f"tiny_{name}" for name in ("lfm2", "qwen3")]
    print("| model | step | steered by bare | bare by bare |\n|---|---|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for source in [*models, *([random_model(options.width, work)] if options.width else [])]:
            bed = prepared(source, work)
            print(*lines(bed, step_times(bed, work, options.repeats)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
