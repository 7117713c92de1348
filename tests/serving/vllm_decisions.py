"""Does vLLM's server decide as transformers does? python tests/serving/vllm_decisions.py [--prompts N]

Needs an environment with vLLM (its CPU wheel will do) in which this package is installed; no GPU and no network. The
tiny LFM2 with the shipped adapter is served by `asa-adapter serve --engine vllm` in float32, and the openai client
sends the prompts of TEST. vLLM's server tells no decision, so a method that is added to its worker does (`witness`),
after each request. Compared with transformers are the prompts' token ids, the decisions (domain, gate, p(tool) to four
digits) and the answers' tokens; then the tokens of 64 clients at once. The prompts have the tools as the server writes
them. Prints a table; the exit code is 1 where a line failed.
"""

import os

if __name__ == "__main__":
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from bed import served_copy
from cases import AT_ONCE, BLOCK
from decisions import ADAPTER, CLIENTS, MODEL, NEW_TOKENS, Decided, chosen, decided
from server import free_port, wait
from transformers import AutoModelForCausalLM, AutoTokenizer

from asa_adapter import ASAAdapter

HERE = Path(__file__).resolve().parent
LEFT_ALONE: Decided = ("", 0, 0.0)
ENGINE = {
    "max_model_len": 2048,
    "max_num_seqs": AT_ONCE,
    "block_size": BLOCK,
    "enforce_eager": True,
    # vLLM 0.32's CPU kernel rotates the wrong elements of LFM2's queries and keys, steered or not.
    "compilation_config": {"custom_ops": ["all", "-rotary_embedding"]},
    "worker_extension_cls": "witness.Witness",
}


class Answer(NamedTuple):
    """What came of one row."""

    prompt: list[int]
    decision: Decided
    tokens: list[int]


def request(row: dict[str, Any]) -> dict[str, Any]:
    """A row as OpenAI's interface has it."""
    turns = row.get("messages") or [{"role": "user", "content": row["instruction"]}]
    return {"messages": turns, "tools": [{"type": "function", "function": tool} for tool in row["tools"]]}


def expected(rows: list[dict[str, Any]]) -> list[Answer]:
    """The library's, in transformers, one prompt at a time."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    found = []
    with ASAAdapter.from_pretrained(ADAPTER).attach(model, tokenizer=tokenizer) as steering:
        for row in rows:
            given = request(row)
            inputs = tokenizer.apply_chat_template(
                given["messages"],
                tools=given["tools"],
                add_generation_prompt=True,
                return_tensors="pt",
                return_dict=True,
            )
            prompt = inputs["input_ids"][0].tolist()
            answer = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
            decision = steering.decisions[0]
            one = LEFT_ALONE if decision.reason else decided(vars(decision))
            found.append(Answer(prompt, one, answer[0, len(prompt) :].tolist()))
    return found


@contextlib.contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """`asa-adapter serve --engine vllm` while the block runs; gives its address."""
    port = free_port()
    words = [sys.executable, "-m", "asa_adapter.cli", "serve", str(model), "--adapter", str(ADAPTER)]
    words += ["--engine", "vllm", "--engine-args", json.dumps(ENGINE), "--dtype", "float32"]
    words += ["--port", str(port), "--name", "tiny"]
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": path, "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(words, env={**os.environ, **own}, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)


def seen(url: str, domains: tuple[str, ...]) -> Decided:
    """The decision about the latest prompt, in the worker."""
    body = json.dumps({"method": "asa_decided"}).encode()
    asked = urllib.request.Request(f"{url}/collective_rpc", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as response:
        (found,) = json.load(response)["results"]
    return (domains[int(found[0])], int(found[2]), round(found[1], 4)) if found else LEFT_ALONE


def ask(client: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The token ids of the prompt that the server made of a row, and of its answer."""
    more: dict[str, Any] = {"model": "tiny", "max_tokens": NEW_TOKENS, "temperature": 0, **request(row)}
    found = client.chat.completions.create(**more, extra_body={"return_token_ids": True})
    return found.prompt_token_ids, found.choices[0].token_ids


def lines(url: str, rows: list[dict[str, Any]], right: list[Answer]) -> Iterator[bool]:
    """Prints what was found, and gives whether it is as it must be."""
    import openai

    domains = ASAAdapter.from_pretrained(ADAPTER).config.domains
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600) as client:
        seen(url, domains)  # forgets those of the engine's own start
        found = []
        for row in rows:
            prompt, tokens = ask(client, row)
            found.append(Answer(prompt, seen(url, domains), tokens))
        for name in Answer._fields:
            equal = sum(getattr(a, name) == getattr(b, name) for a, b in zip(found, right, strict=True))
            print(f"one at a time: {name} of {equal} of {len(rows)} as in transformers", flush=True)
            yield equal == len(rows)
        with ThreadPoolExecutor(CLIENTS) as clients:
            at_once = list(clients.map(lambda row: ask(client, row)[1], rows))
        equal = sum(a == b.tokens for a, b in zip(at_once, right, strict=True))
        print(f"{CLIENTS} clients at once: tokens of {equal} of {len(rows)} as in transformers", flush=True)
        yield equal == len(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=320, help="how many of the prompts of TEST")
    rows = chosen(parser.parse_args().prompts)
    right = expected(rows)
    gates = [answer.decision[1] for answer in right]
    print(f"gates: {json.dumps({gate: gates.count(gate) for gate in (1, 0, -1)})}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        try:
            with served(served_copy(MODEL, Path(folder) / MODEL.name), log) as url:
                good = list(lines(url, rows, right))
        except Exception:
            print(log.read_text()[-6000:], flush=True)
            raise
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
