"""vLLM's OpenAI server with 32 clients at once, and the example client."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bed import ROOT, Bed
from cases import AT_ONCE, Row, environment, factors, usual
from engine import NEW_TOKENS

START_LIMIT = 900  # seconds
CALL_PARSERS = {"lfm2": "lfm2", "qwen3": "hermes"}
# A request's vllm_xargs, and a part of the error that it must be answered with.
WRONG = (
    ({"asa": "on"}, "expected 0 (off) or 1 (on)"),
    ({"asa": 2}, "expected 0 (off) or 1 (on)"),
    ({"asa_factor": "much"}, "expected a number from 0 to 100"),
    ({"asa_factor": float("nan")}, "expected a number from 0 to 100"),
    ({"asa_factor": -1}, "expected a number from 0 to 100"),
    ({"asa_alpha": 1.0}, "asa_adapter knows 'asa', 'asa_factor', 'asa_without_tools' and 'asa_all_states'"),
    ({"asa_without_tools": "yes"}, "expected 0 (off) or 1 (on)"),
)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def served(bed: Bed, work: Path, log: Path) -> Iterator[str]:
    """A steered server while the block runs; gives its address."""
    port = free_port()
    arguments = usual(bed)
    options = ["--host", "127.0.0.1", "--port", str(port), "--model", arguments.pop("model"), "--enforce-eager"]
    arguments.pop("enforce_eager")
    arguments["served_model_name"] = "tiny"
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        options += [flag] if value is True else [flag, json.dumps(value) if isinstance(value, dict) else str(value)]
    model_type = json.loads((bed.model / "config.json").read_text())["model_type"]
    options += ["--enable-auto-tool-choice", "--tool-call-parser", CALL_PARSERS[model_type]]
    extra = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            env=environment(bed, work, True, extra),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait(url: str, process: subprocess.Popen[Any]) -> None:
    """Waits until the server answers.

    Raises:
        RuntimeError: it ended, or took too long.
    """
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError(f"the server did not start within {START_LIMIT} s, or ended (exit code {process.poll()})")


def complete(url: str, ids: list[int], xargs: dict[str, Any]) -> tuple[int, Any]:
    """Status and body of one request for greedy tokens."""
    body = {
        "model": "tiny",
        "prompt": ids,
        "max_tokens": NEW_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
        "vllm_xargs": xargs,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def _asked(name: str, bed: Bed, url: str, pool: ThreadPoolExecutor, kind: str, off: dict[str, Any]) -> Row:
    """All prompts asked at once, those that are to be off with these arguments."""
    n = len(bed.prompts)
    kinds = factors(kind, n)
    asked = [{"asa": 1, "asa_factor": 1} if on else off for on in kinds]
    found = list(pool.map(complete, [url] * n, bed.prompts, asked))
    tokens = [body["choices"][0]["token_ids"] if status == 200 else body for status, body in found]
    equal = sum(a == b for a, b in zip(tokens, bed.expected(kinds), strict=True))
    return Row(name, bed.name, equal, n)


def serve(bed: Bed, work: Path) -> Iterator[Row]:
    """The server's answers on, off, with factor 0 and mixed; wrong requests; the example client."""
    log = work / "server.log"
    try:
        with served(bed, work, log) as url, ThreadPoolExecutor(AT_ONCE) as pool:
            for name, kinds, off in (
                ("on", "on", {}),
                ("off", "off", {"asa": 0}),
                ("factor 0", "off", {"asa_factor": 0.0}),
                ("every third off", "third", {"asa": 0}),
            ):
                yield _asked(f"OpenAI server, {AT_ONCE} clients, {name}", bed, url, pool, kinds, off)
            told = [complete(url, bed.prompts[0], xargs) for xargs, _ in WRONG]
            right = sum(
                status == 400 and text in str(body) for (status, body), (_, text) in zip(told, WRONG, strict=True)
            )
            note = "" if right == len(WRONG) else str(told)
            yield Row("OpenAI server, wrong requests are told so", bed.name, right, len(WRONG), note)
            client = subprocess.run(
                [sys.executable, str(ROOT / "examples" / "vllm_client.py"), "--url", f"{url}/v1"],
                capture_output=True,
                text=True,
            )
            print(client.stdout + client.stderr[-2000:], flush=True)
            shown = client.stdout.count("  steered ") == client.stdout.count("  bare model ") == 2
            yield Row("examples/vllm_client.py", bed.name, int(shown and not client.returncode), 1)
    except RuntimeError as error:
        print(log.read_text()[-6000:], flush=True)
        yield Row("OpenAI server", bed.name, 0, 1, str(error))
