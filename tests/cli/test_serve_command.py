"""The command `serve`: what it says, what it refuses, and that it serves the adapter that is named."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from checkout import DATA, TINY_LFM2
from scripted import get, post

from asa_adapter.cli import serve_command
from asa_adapter.cli.entrypoint import main

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

ADAPTER = DATA.parent / "tiny_lfm2_asa"
WORDS = ["serve", str(TINY_LFM2), "--adapter", str(ADAPTER), "--port", "0"]


def test_it_serves_the_adapter_until_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from asa_adapter.server import listener

    found: list[Any] = []

    def run(app: Any, socket: socket.socket) -> None:
        """Serves until one question is answered."""
        place = f"127.0.0.1:{socket.getsockname()[1]}"
        server = listener.http_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        asked = {"messages": [{"role": "user", "content": "What is 4821 times 377?"}]}
        asked |= {"tools": json.loads((DATA / "tools.json").read_text("utf-8"))}
        found.extend([get(place, "/v1/models"), post(place, asked, {"Authorization": "Bearer k"})])
        server.should_exit = True
        thread.join(20)

    monkeypatch.setattr(listener, "serve_until_stopped", run)
    monkeypatch.setenv("ASA_API_KEY", "k")
    assert main([*WORDS, "--name", "mine"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "stopped\n"
    assert captured.err.startswith("asa-adapter: serving 'mine' at http://127.0.0.1:")
    refused, answered = found
    assert refused.status == 401
    assert answered.decision["gate"] == 1
    assert json.loads(answered.body)["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "calculator"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--engine", "gguf"], f"--engine gguf does not run {TINY_LFM2}; expected a .gguf file for gguf"),
        (["--engine-args", "{}"], "--engine-args: for vllm; leave out what does nothing"),
        (["--api-key", ""], "the API key is empty; expected printable ASCII"),
        (["--api-key", "é"], "the API key is not plain ASCII; expected printable ASCII"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0; expected 1 or more"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 0: "),
        (["--port", "70000"], "port is 70000; expected 0 (a free one) to 65535"),
    ],
)
def test_what_cannot_be_served_is_refused_before_the_model_is_loaded(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_command, "load_model", None)
    assert main([*WORDS, *words]) == 2
    assert f"asa-adapter: error: {told}" in capsys.readouterr().err


def test_a_taken_port_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*WORDS[:-1], str(port)]) == 2
    error = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}: " in error
    assert "name another with --port or --host" in error


def test_a_file_is_run_by_the_engine_for_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", str(tmp_path / "m.gguf"), "--adapter", str(ADAPTER), "--engine", "transformers"]
    assert main(words) == 2
    assert "--engine transformers does not run" in capsys.readouterr().err


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(serve_command, "find_spec", lambda name: None)
    assert main(WORDS) == 2
    assert 'serve needs starlette and uvicorn: pip install "asa-adapter[serve]"' in capsys.readouterr().err
