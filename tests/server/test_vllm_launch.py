"""vLLM's own server: the command that starts it, and the fields that its requests carry."""

import asyncio
import importlib
import json
import sys
from dataclasses import replace
from typing import Any

import pytest
from checkout import DATA, TINY_LFM2

from asa_adapter import ASAAdapter
from asa_adapter.cli import loading, serve_command
from asa_adapter.cli.entrypoint import main
from asa_adapter.server import vllm_launch
from asa_adapter.server.vllm_launch import PARSERS, VLLMFields, vllm_words
from asa_adapter.tool_calls import FORMATS

ADAPTER = DATA.parent / "tiny_lfm2_asa"


def passed_on(body: bytes, **scope: Any) -> tuple[bytes, dict[bytes, bytes], list[dict[str, Any]]]:
    """What the application behind the middleware reads of a body that comes in two parts: body, headers, the rest."""
    sent = [
        {"type": "http.request", "body": body[:5], "more_body": True},
        {"type": "http.request", "body": body[5:], "more_body": False},
        {"type": "http.disconnect"},
    ]
    found: dict[str, Any] = {"body": b""}

    async def receive() -> Any:
        return sent.pop(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found["headers"] = dict(scope["headers"])
        more = True
        while more:
            message = await receive()
            found["body"] += message["body"]
            more = message["more_body"]
        found["last"] = await receive()

    async def send(_: Any) -> None:
        pass

    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"application/json")]
    given = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, **scope}
    asyncio.run(VLLMFields(app)(given, receive, send))
    return found["body"], found["headers"], [found["last"]]


def test_fields_at_the_top_go_where_vllm_takes_them_from() -> None:
    given = {"model": "m", "asa": 0, "asa_factor": 0.5, "vllm_xargs": {"other": 1}}
    body, headers, rest = passed_on(json.dumps(given).encode())
    assert json.loads(body) == {"model": "m", "vllm_xargs": {"other": 1, "asa": 0, "asa_factor": 0.5}}
    assert headers == {b"content-length": str(len(body)).encode(), b"content-type": b"application/json"}
    assert rest == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m",   "messages": []}',
        b'{"asa": 0, "vllm_xargs": [1]}',
        b"{not JSON",
        b"[" * 100_000,
        b'["asa"]',
        b'{"asa": 0, "x": "' + b"y" * 5_000_000 + b'"}',
    ],
)
def test_any_other_body_is_passed_on_byte_by_byte(body: bytes) -> None:
    assert passed_on(body)[0] == body


def test_other_routes_are_passed_on() -> None:
    body = b'{"asa": 0}'
    assert passed_on(body, path="/tokenize")[0] == body
    assert passed_on(body, method="PUT")[0] == body


def test_each_format_with_a_parser_is_ours() -> None:
    assert set(PARSERS) == set(FORMATS) - {"json"}


def test_serve_becomes_vllm_s_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    started: list[Any] = []

    def execve(*given: Any) -> None:
        started.append(given)
        raise SystemExit

    monkeypatch.setattr(serve_command.os, "execve", execve)
    monkeypatch.setattr(loading, "find_spec", lambda name: name)
    words = [
        "serve",
        str(TINY_LFM2),
        "--adapter",
        str(ADAPTER),
        "--engine",
        "vllm",
        "--api-key",
        "k",
        "--name",
        "mine",
    ]
    arguments = (
        '{"enforce_eager": true, "enable_prefix_caching": false, "compilation_config": {"custom_ops": ["all"]}}'
    )
    with pytest.raises(SystemExit):
        main([*words, "--dtype", "bfloat16", "--engine-args", arguments])
    ((program, line, environment),) = started
    assert program == sys.executable
    assert " ".join(line[1:]) == (
        "-m vllm.entrypoints.openai.api_server --host 127.0.0.1 --port 8000 --served-model-name mine "
        "--enable-auto-tool-choice --tool-call-parser lfm2 --middleware asa_adapter.server.vllm_launch.VLLMFields "
        f"--model {TINY_LFM2} --tokenizer {TINY_LFM2} --dtype bfloat16 --enforce-eager --no-enable-prefix-caching "
        '--compilation-config {"custom_ops": ["all"]}'
    )
    module, _, name = line[line.index("--middleware") + 1].rpartition(".")
    assert getattr(importlib.import_module(module), name) is VLLMFields  # as vLLM looks for it
    assert (environment["ASA_ADAPTER"], environment["VLLM_API_KEY"]) == (str(ADAPTER), "k")
    assert "k" not in line
    assert capsys.readouterr().err.startswith("asa-adapter: starts -m vllm.entrypoints.openai.api_server ")


@pytest.mark.parametrize(
    "words", [["--threads", "2"], ["--max-new-tokens", "8"], ["--device", "cpu"], ["--allow-mismatch"]]
)
def test_options_that_vllm_would_not_heed_are_refused(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_command.os, "execve", None)
    assert main(["serve", str(TINY_LFM2), "--adapter", str(ADAPTER), "--engine", "vllm", *words]) == 2
    told = f"{words[0]}: not of vLLM (--engine-args has its own arguments); leave out what does nothing"
    assert told in capsys.readouterr().err


def test_the_revision_of_the_model_is_not_that_of_another_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_launch.torch.cuda, "is_available", lambda: False)
    for tokenizer, expected in ((None, ("user/m", "r")), ("user/t", ("user/t", "main"))):
        found = vllm_launch.vllm_arguments("user/m", "r", tokenizer, None, '{"seed": 3}')
        assert (found["model"], found["revision"]) == ("user/m", "r")
        assert (found["tokenizer"], found["tokenizer_revision"]) == expected
        assert (found["dtype"], found["seed"]) == ("float32", 3)


def test_vllm_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert main(["serve", str(TINY_LFM2), "--adapter", str(ADAPTER), "--engine", "vllm"]) == 2
    assert "vLLM is not installed here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"chat_template": "{{ messages }}", "chat_template_sha256": None},
            "the adapter has a chat template of its own",
        ),
        ({"tool_call_format": "json", "tool_call_start": None, "tool_call_end": None}, "format of calls is 'json'"),
        ({"tool_call_format": None, "tool_call_start": None, "tool_call_end": None}, "format of calls is None"),
    ],
)
def test_what_vllm_cannot_be_told_is_refused(changes: dict[str, Any], told: str) -> None:
    config = replace(ASAAdapter.from_pretrained(ADAPTER).config, **changes)
    with pytest.raises(ValueError, match=told):
        vllm_words("m", "127.0.0.1", 1, config, {"model": "m"})
