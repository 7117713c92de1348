"""Does a served model decide as the library does? python tests/serving/decisions.py [--prompts N] [--minutes M]

Needs the extras [serve] and [gguf] and the openai client; no GPU and no network. The tiny LFM2 with the shipped
adapter is served by `asa-adapter serve`, in transformers and as a GGUF file in llama.cpp (float32), and the openai
client sends the prompts of TEST, one at a time and streamed by 64 clients at once. Decisions (domain, gate, p(tool) to
four digits) must be those of the library in transformers. `--minutes` has 64 clients go on that long, and looks at the
server's memory. Prints a table; the exit code is 1 where a line failed.
"""

import os

if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import contextlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter, load_splits
from asa_adapter.data.prompts import encode_rows

ROOT = Path(__file__).resolve().parents[2]
MODEL, ADAPTER = ROOT / "examples" / "tiny_lfm2", ROOT / "examples" / "tiny_lfm2_asa"
CLIENTS = 64
NEW_TOKENS = 8

Decided = tuple[str, int, float]


def expected(rows: list[dict[str, Any]]) -> list[Decided]:
    """The library's decisions."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    found = []
    with ASAAdapter.from_pretrained(ADAPTER).attach(model, tokenizer=tokenizer) as steering:
        for prompt in encode_rows(tokenizer, rows):
            model.generate(torch.tensor([prompt]), max_new_tokens=1, do_sample=False)
            found.append(decided(vars(steering.decisions[0])))
    return found


def chosen(prompts: int) -> list[dict[str, Any]]:
    """Rows of TEST, evenly."""
    rows = list(load_splits(ROOT / "examples" / "data")["test"])
    return rows[:: max(1, len(rows) // prompts)][:prompts]


def decided(decision: dict[str, Any]) -> Decided:
    """What of a decision is compared."""
    return decision["domain"], decision["gate"], round(decision["p_tool"], 4)


@contextlib.contextmanager
def served(model: Path, *options: str, adapter: Path = ADAPTER, name: str = "tiny") -> Iterator[tuple[str, int]]:
    """`asa-adapter serve`, its address and its process id."""
    words = [sys.executable, "-m", "asa_adapter.cli", "serve", str(model), "--adapter", str(adapter), *options]
    words += ["--port", "0", "--name", name, "--allow-mismatch"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if found := re.search(r"at (http://\S+);", line):
                break
        else:
            raise RuntimeError("the server did not start: " + "".join(told[-5:]))
        try:
            yield found[1], process.pid
        finally:
            process.terminate()


def ask(client: Any, row: dict[str, Any], stream: bool = False) -> Decided:
    """The decision on a row, from the answer itself."""
    turns: Any = row.get("messages") or [{"role": "user", "content": row["instruction"]}]
    tools: Any = [{"type": "function", "function": tool} for tool in row["tools"]]
    more: dict[str, Any] = {"model": "tiny", "messages": turns, "tools": tools, "max_tokens": NEW_TOKENS}
    if not stream:
        return decided(client.chat.completions.create(**more).asa["decision"])
    chunks = list(client.chat.completions.create(**more, stream=True))
    return decided(chunks[0].asa["decision"])


def memory(process: int) -> float:
    """Resident memory in MiB; 0 where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


def lines(name: str, model: Path, rows: list[dict[str, Any]], right: list[Decided], minutes: float) -> Iterator[bool]:
    """Prints what was found of one engine, and gives whether it is as it must be."""
    import openai

    with (
        served(model, "--tokenizer", str(MODEL)) as (url, process),
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        found = [ask(client, row) for row in rows]
        equal = sum(a == b for a, b in zip(found, right, strict=True))
        print(f"{name}: one at a time, {equal} of {len(rows)} decisions are the library's", flush=True)
        yield equal == len(rows)
        with ThreadPoolExecutor(CLIENTS) as clients:
            found = list(clients.map(lambda row: ask(client, row, True), rows))
            equal = sum(a == b for a, b in zip(found, right, strict=True))
            print(f"{name}: {CLIENTS} clients at once, streamed, {equal} of {len(rows)}", flush=True)
            yield equal == len(rows)
            if minutes:
                yield load(client, clients, rows, right, minutes, process)


def load(client: Any, clients: Any, rows: Any, right: Any, minutes: float, process: int) -> bool:
    """64 clients for some minutes: no error, each decision its own, and memory as it was after the first tenth."""
    end, numbers, samples = time.monotonic() + 60 * minutes, itertools.count(), [memory(process)]

    def client_goes_on(_: int) -> tuple[int, int]:
        asked = wrong = 0
        while time.monotonic() < end:
            i = next(numbers) % len(rows)
            wrong += ask(client, rows[i], i % 2 == 0) != right[i]
            asked += 1
            samples.append(memory(process))
        return asked, wrong

    asked, wrong = map(sum, zip(*clients.map(client_goes_on, range(CLIENTS)), strict=True))
    early, late = samples[len(samples) // 10], max(samples[-len(samples) // 10 :])
    print(
        f"64 clients, {minutes:g} min: {asked} answers, {wrong} with another's decision, no error; "
        f"{early:.0f} MiB, at the end {late:.0f} MiB",
        flush=True,
    )
    return wrong == 0 and late < 1.05 * early + 20


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=320, help="how many of the prompts of TEST")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long 64 clients go on")
    options = parser.parse_args()
    rows = chosen(options.prompts)
    right = expected(rows)
    print(f"gates: {json.dumps({gate: [r[1] for r in right].count(gate) for gate in (1, 0, -1)})}", flush=True)
    good = list(lines("transformers", MODEL, rows, right, options.minutes))
    with tempfile.TemporaryDirectory() as folder:
        sys.path.insert(0, str(ROOT / "tests" / "support"))
        from gguf_files import write_gguf

        path = write_gguf(MODEL, Path(folder) / "tiny.gguf")
        good += lines("llama.cpp, a file in float32", path, rows, right, 0.0)
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
