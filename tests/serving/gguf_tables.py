"""Does a GGUF file in llama.cpp decide and answer as transformers does? python tests/serving/gguf_tables.py [--short]

Needs the extra [gguf]; no GPU and no network. The tiny models of examples/ are written as GGUF files, an adapter is
fitted in transformers, and both engines read and answer the prompts of TEST. Prints a table; the exit code is 1 where
a line failed. `--fit` also fits an adapter on each file by the trainer's defaults, which takes minutes for each.
`--real FOLDER` measures a real model instead: a folder with a model for transformers, and the same as model.gguf; of
a Qwen2 the same weights in float16 too, which are written first.
"""

import os

if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from bed import DATA, ROOT, fit
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from asa_adapter import ASAAdapter, ASATrainer, ASATrainingArguments, load_splits
from asa_adapter.data.prompts import encode_rows
from asa_adapter.evaluation.answers import Evaluation
from asa_adapter.libllama.context import Run
from asa_adapter.llamacpp import GGUFModel
from asa_adapter.states import collect_hidden_states
from asa_adapter.tool_calls.parser import ToolCallParser

# The least share of gates that must be equal to those of transformers, by how the weights are stored.
LEAST_GATES = {"F32": 1.0, "F16": 318 / 320, "Q8_0": 318 / 320, "Q4_0": 310 / 320}
NEW_TOKENS = 48
REPEATS = 60


def written(folder: Path, path: Path, kind: str) -> Path:
    """A model of a folder as a GGUF file; --help needs no package that writes one."""
    from gguf_files import write_gguf

    return write_gguf(folder, path, kind)


class Row(NamedTuple):
    """A line of the table; `ok` is None where nothing is asked of it."""

    model: str
    what: str
    found: str
    ok: bool | None


class Bed(NamedTuple):
    """One model in transformers, what it decided and answered, and an adapter."""

    name: str
    folder: Path
    model: Any
    tokenizer: Any
    rows: list[dict[str, Any]]
    adapter: ASAAdapter
    gates: list[int]
    answers: dict[str, list[str]]
    seconds: float


def make_bed(folder: Path, prompts: int) -> Bed:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    splits = load_splits(DATA)
    rows = list(splits["test"])
    rows = [rows[i * len(rows) // prompts] for i in range(prompts)]
    shipped = ROOT / "examples" / f"{folder.name}_asa"
    own = shipped.is_dir()
    adapter = ASAAdapter.from_pretrained(shipped) if own else fit(model, tokenizer, list(splits["train"]))
    began = time.process_time()
    gates = decided(adapter, model, tokenizer, rows)
    seconds = time.process_time() - began
    return Bed(
        folder.name, folder, model, tokenizer, rows, adapter, gates, answers(model, tokenizer, rows, adapter), seconds
    )


def decided(adapter: ASAAdapter, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> list[int]:
    states = collect_hidden_states(model, tokenizer, rows, progress=False).states[list(adapter.config.hooked)]
    return [d.gate for d in adapter.decide(states if len(adapter.config.hooked) > 1 else states[0])]


def answers(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], adapter: ASAAdapter) -> dict[str, list[str]]:
    parser = ToolCallParser.from_tokenizer(tokenizer)
    evaluation = Evaluation(model, tokenizer, parser, max_new_tokens=NEW_TOKENS, progress=False)
    found = evaluation.answers_of_each(rows, {"bare": None, "steered": adapter})
    return {name: [str(answer) for answer in own] for name, own in found.items()}


def equal(one: Sequence[Any], other: Sequence[Any]) -> int:
    return sum(a == b for a, b in zip(one, other, strict=True))


def compared(bed: Bed, file: GGUFModel, kind: str) -> Iterator[Row]:
    """Gates, answers and off again of one file."""
    count, name = len(bed.rows), f"{bed.name} {kind}"
    began = time.process_time()
    same = equal(decided(bed.adapter, file, bed.tokenizer, bed.rows), bed.gates)
    seconds = time.process_time() - began
    yield Row(name, "gates equal to transformers'", f"{same} of {count}", same >= LEAST_GATES[kind] * count)
    yield Row(name, f"states of {count} prompts, seconds", f"{seconds:.2f}; transformers {bed.seconds:.2f}", None)
    own = answers(file, bed.tokenizer, bed.rows, bed.adapter)
    for way, expected in bed.answers.items():
        same = equal(own[way], expected)
        yield Row(name, f"{way} greedy answers equal", f"{same} of {count}", same == count if kind == "F32" else None)
    prompt = torch.tensor([encode_rows(bed.tokenizer, bed.rows[:1])[0]])
    before = first_logits(file, prompt)
    with bed.adapter.attach(file, allow_mismatch=True):
        changed = not torch.equal(first_logits(file, prompt), before)
    off = torch.equal(first_logits(file, prompt), before)
    yield Row(name, "steered, then off again", "every bit as before" if off else "changed", off and changed)
    yield from costs(bed, file, name)


def first_logits(file: GGUFModel, prompt: torch.Tensor) -> torch.Tensor:
    wanted = {"output_logits": True, "return_dict_in_generate": True, "max_new_tokens": 1}
    found: torch.Tensor = file.generate(prompt, **wanted).logits[0][0]  # type: ignore[union-attr]
    return found


def costs(bed: Bed, file: GGUFModel, name: str, repeats: int = REPEATS) -> Iterator[Row]:
    """Steered prompt and decode step against llama.cpp alone, which reads the prompt in one pass."""
    prompt = encode_rows(bed.tokenizer, bed.rows[:1])[0]
    ids, plain, tokens = torch.tensor([prompt]), file._context(file.facts.length), list(range(20, 52))

    def bare() -> None:
        plain.clear()
        plain.read([Run(0, prompt, 0)])
        plain.logits()

    def decode(context: Any) -> Callable[[], None]:
        def steps() -> None:
            for i, token in enumerate(tokens):
                context.read([Run(0, [token], len(prompt) + i)])

        return steps

    def read() -> None:
        file.generate(ids, max_new_tokens=1)
        file._writer.load(file._reader.save())  # as generate() does where a second token follows

    bare_times, read_times, bare_steps, steps = [], [], [], []
    with warnings.catch_warnings(), bed.adapter.attach(file, allow_mismatch=True):
        warnings.simplefilter("ignore")
        for _ in range(repeats):  # in turn: the machine is not equally fast all the time
            bare_times.append(timed(bare))
            bare_steps.append(timed(decode(plain)) / len(tokens))
            read_times.append(timed(read))
            steps.append(timed(decode(file._writer)) / len(tokens))
    plain.close()
    one, whole, step, behind = map(median, (bare_times, read_times, bare_steps, steps))
    ratio, share = behind / step, (whole - step) / one
    yield Row(name, "a decode step, ms", f"{1000 * behind:.2f}; bare {1000 * step:.2f} ({ratio:.3f})", None)
    told = f"{1000 * whole:.1f}; bare {1000 * one:.1f}; less a step {share:.3f} of it"
    yield Row(name, f"a prompt of {len(prompt)} tokens, steered, ms", told, None)


def timed(run: Callable[[], Any]) -> float:
    """Seconds of the processor; there is one thread, and what else runs on the machine is not in them."""
    began = time.process_time()
    run()
    return time.process_time() - began


def fitted(bed: Bed, file: GGUFModel, kind: str) -> Iterator[Row]:
    """F1 on TEST of an adapter that the trainer fits on the file, and of one that it fits in transformers."""
    scores = {}
    for name, model in (("file", file), ("transformers", bed.model)):
        trainer = ASATrainer(model, bed.tokenizer, load_splits(DATA), ASATrainingArguments(progress=False))
        trainer.train()
        scores[name] = trainer.evaluate("test")
    f1 = {name: found["asa"]["f1"] for name, found in scores.items()}
    bare = {name: found["base"]["f1"] for name, found in scores.items()}
    told = f"{f1['file']:.3f} (bare {bare['file']:.3f}); in transformers {f1['transformers']:.3f}"
    told += f" (bare {bare['transformers']:.3f})"
    no_worse = f1["file"] >= f1["transformers"] - 0.02
    yield Row(f"{bed.name} {kind}", "F1 on TEST, fitted on the file", told, no_worse)


def real(folder: Path, prompts: int) -> Iterator[Row]:
    """A real model: the time for its states in both engines, and what an adapter of examples/ decides."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template or "{{ messages[0].content }}"
    rows = list(load_splits(DATA)["test"])
    rows = [rows[i * len(rows) // prompts] for i in range(prompts)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    yield from real_file(folder, folder / "model.gguf", model, tokenizer, rows)
    if model.config.model_type == "qwen2":
        with tempfile.TemporaryDirectory() as work:
            path = written(folder, Path(work) / "f16.gguf", "F16")
            yield from real_file(folder, path, model, tokenizer, rows)


def real_file(folder: Path, path: Path, model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> Iterator[Row]:
    """One file of it."""
    prompts = len(rows)
    file = GGUFModel(path, n_ctx=2048, threads=1)
    name = f"{folder.name} {file._stored}"
    states, seconds = {}, {}
    for engine, one in (("llama.cpp", file), ("transformers, float32", model)):
        began = time.process_time()
        states[engine] = collect_hidden_states(one, tokenizer, rows, progress=False).states
        seconds[engine] = time.process_time() - began
    told = "; ".join(f"{engine} {spent:.1f}" for engine, spent in seconds.items())
    yield Row(name, f"states of {prompts} prompts, seconds", told, None)
    one, other = states.values()
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=2).mean(dim=1)
    yield Row(name, "cosine of the states, least and median layer", f"{cosine.min():.4f}, {cosine.median():.4f}", None)
    shipped = ROOT / "examples" / "qwen25_coder_asa"
    adapter = ASAAdapter.from_pretrained(shipped)
    if adapter.config.hidden_size == file.facts.hidden_size and adapter.config.num_layers == file.facts.num_layers:
        hooked = list(adapter.config.hooked)
        gates = [
            [d.gate for d in adapter.decide(found[hooked] if len(hooked) > 1 else found[hooked[0]])]
            for found in (one, other)
        ]
        yield Row(name, "gates of the shipped adapter equal", f"{equal(*gates)} of {prompts}", None)
        labels = [2 * int(row["label"]) - 1 for row in rows]
        told = ", ".join(f"{e} {equal(g, labels)}" for e, g in zip(states, gates, strict=True))
        yield Row(name, "gates that are right", f"{told} of {prompts}", None)
        bed = Bed(folder.name, folder, model, tokenizer, rows, adapter, [], {}, 0.0)
        yield from costs(bed, file, name, 3)


def table(rows: Sequence[Row]) -> str:
    marks = {True: "ok", False: "FAILED", None: ""}
    lines = [f"| {row.model} | {row.what} | {row.found} | {marks[row.ok]} |" for row in rows]
    return "\n".join(["| model | | | |", "|---|---|---|---|", *lines])


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--short", action="store_true", help="one model, in float32 and Q4_0")
    parser.add_argument("--prompts", type=int, default=320, metavar="N")
    parser.add_argument("--fit", action="store_true", help="fit an adapter on each file that is packed")
    parser.add_argument("--real", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    if options.real is not None:
        rows += real(options.real, options.prompts)
    else:
        rows += tiny(options)
    print(table(rows))
    return 1 if any(row.ok is False for row in rows) else 0


def tiny(options: argparse.Namespace) -> Iterator[Row]:
    names, kinds = ("tiny_lfm2", "tiny_qwen3"), ("F32", "F16", "Q8_0", "Q4_0")
    if options.short:
        names, kinds = names[:1], ("F32", "Q4_0")
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            bed = make_bed(ROOT / "examples" / name, options.prompts)
            for kind in kinds:
                path = written(bed.folder, Path(work) / f"{name}-{kind}.gguf", kind)
                file = GGUFModel(path, n_ctx=1024, threads=1, ends=[bed.tokenizer.eos_token_id])
                yield from compared(bed, file, kind)
                if options.fit and kind == "Q4_0":
                    yield from fitted(bed, file, kind)


if __name__ == "__main__":
    sys.exit(main())
