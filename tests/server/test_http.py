"""The server's HTTP layer, with an engine behind it that answers by a script."""

import contextlib
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from scripted import CITIES, WEATHER, ScriptedEngine, chat, events, get, joined, opened, post, served, three_calls

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

HELLO = ScriptedEngine(lambda asked: "Hello there.<|im_end|>")


@pytest.fixture(scope="module")
def hello() -> Any:
    with served(HELLO, largest=100_000) as place:
        yield place


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_of_three_calls_comes_to_its_end(stream: bool) -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "How is the weather?"}]
    with served(ScriptedEngine(three_calls)) as place:
        for city in CITIES:
            response = post(place, {"model": "scripted", "messages": turns, "tools": [WEATHER], "stream": stream})
            if stream:
                text, calls, reason = joined(events(response))
            else:
                choice = json.loads(response.body)["choices"][0]
                text, reason = choice["message"]["content"], choice["finish_reason"]
                calls = [call["function"] for call in choice["message"]["tool_calls"]]
            assert (text, reason) == ("Let me look.", "tool_calls")
            assert [(call["name"], json.loads(call["arguments"])) for call in calls] == [
                ("get_weather", {"city": city})
            ]
            told = {"id": "call_1", "type": "function", "function": calls[0]}
            turns.append({"role": "assistant", "content": None, "tool_calls": [told]})
            turns.append({"role": "tool", "tool_call_id": "call_1", "content": f"sun in {city}"})
        last = json.loads(post(place, {"model": "scripted", "messages": turns, "tools": [WEATHER]}).body)
    assert last["choices"][0]["message"]["content"] == "Found: sun in Paris, sun in Oslo, sun in Lima."
    assert last["choices"][0]["finish_reason"] == "stop"


def test_the_decision_is_in_the_header_and_in_a_field_streamed_or_not(hello: str) -> None:
    whole, stream = post(hello, chat("What is 812")), post(hello, chat("What is 812", stream=True))
    body, chunks = json.loads(whole.body), events(stream)
    assert whole.decision == stream.decision == body["asa"]["decision"] == chunks[0]["asa"]["decision"]
    assert body["asa"]["decision"]["p_tool"] == 0.812
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 22, "total_tokens": 29}
    assert body["choices"][0]["message"]["content"] == joined(chunks)[0] == "Hello there."


@pytest.mark.parametrize("off", [{"asa": 0}, {"asa_factor": 0}, {"vllm_xargs": {"asa": 0}}])
def test_a_request_may_leave_the_adapter_out(off: dict[str, Any], hello: str) -> None:
    response = post(hello, chat("hi", **off))
    assert response.decision is json.loads(response.body)["asa"]["decision"] is None


def test_a_request_says_how_far_it_is_steered(hello: str) -> None:
    response = post(hello, chat("hi", asa_factor=0.5, asa_without_tools=1))
    assert json.loads(response.body)["asa"]["factor"] == 0.5
    assert (HELLO.asked[-1].factor, HELLO.asked[-1].without_tools) == (0.5, True)


def test_a_stream_ends_with_the_numbers_of_tokens_where_they_are_asked_for(hello: str) -> None:
    chunks = events(post(hello, chat("hi", stream=True, stream_options={"include_usage": True})))
    assert chunks[-1]["usage"]["total_tokens"] == 29
    assert chunks[-1]["choices"] == []


def test_64_clients_at_once_each_get_their_own_decision(hello: str) -> None:
    def ask(number: int) -> bool:
        response = post(hello, chat(f"What is {number}", stream=number % 2 == 0, asa=int(number % 3 != 0)))
        return bool(response.decision == (None if number % 3 == 0 else {**response.decision, "p_tool": number / 1000}))

    with ThreadPoolExecutor(64) as clients:
        assert all(clients.map(ask, range(320)))


def test_models_and_health_are_told(hello: str) -> None:
    assert [model["id"] for model in json.loads(get(hello, "/v1/models").body)["data"]] == ["scripted"]
    assert json.loads(get(hello, "/health").body) == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("{", 400, "the body is not valid JSON"),
        ("[" * 50_000, 400, "the body is not valid JSON"),
        (b"\xff\xfe{}", 400, "the body is not valid JSON"),
        ('{"seed": NaN}', 400, "found NaN; expected finite numbers"),
        ([], 400, "the body is a list; expected an object with model and messages"),
        ({"model": "gpt-4o"}, 404, "there is no model 'gpt-4o' here; this server has 'scripted'"),
        ({}, 400, "messages is missing; expected a list of turns"),
        (chat("x" * 200_000), 413, "the body is larger than 100000 bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_server_goes_on(body: Any, status: int, told: str, hello: str) -> None:
    response = post(hello, body)
    assert response.status == status
    assert told in response.error
    assert post(hello, chat("hi")).status == 200


@pytest.mark.parametrize("in_parts", [False, True])
def test_50_megabytes_are_refused_unread_and_the_server_goes_on(in_parts: bool, hello: str) -> None:
    body = iter([b" " * 1_000_000] * 50) if in_parts else b" " * 50_000_000
    response = post(hello, body, encode_chunked=in_parts)
    assert response.status == 413
    assert "larger than 100000 bytes" in response.error
    assert post(hello, chat("hi")).status == 200


def test_another_type_of_body_is_refused_so_no_web_page_can_send_one_unasked(hello: str) -> None:
    assert post(hello, chat("hi"), {"Content-Type": "text/plain"}).status == 415


def test_a_server_of_this_machine_is_not_called_by_another_name() -> None:
    with served(HELLO, hosts=("127.0.0.1",)) as place:
        refused = post(place, chat("hi"), {"Host": "evil.example:80"})
        assert refused.status == 400
        assert refused.error == "the server was called by the name 'evil.example:80'; expected one of 127.0.0.1"
        assert post(place, chat("hi")).status == 200


@pytest.mark.parametrize("name", ["localhost", "LocalHost:8000", "127.0.0.1:8000", "[::1]", "[::1]:8000"])
def test_a_server_of_this_machine_answers_by_each_of_its_names(name: str) -> None:
    from asa_adapter.server.listener import own_names

    with served(HELLO, hosts=own_names("::1")) as place:
        assert post(place, chat("hi"), {"Host": name}).status == 200


def test_a_fault_of_the_server_s_own_is_told_as_json(monkeypatch: pytest.MonkeyPatch, hello: str) -> None:
    def fails(*_: Any) -> None:
        raise TypeError("a secret")

    monkeypatch.setattr("asa_adapter.server.application.read_chat", fails)
    response = post(hello, chat("hi"))
    assert (response.status, response.error) == (500, "the server failed: TypeError")


def test_there_is_no_other_route(hello: str) -> None:
    response = get(hello, "/v1/embeddings")
    assert response.status == 404
    assert response.error == "Not Found; this server has /v1/chat/completions and /v1/models"


@pytest.mark.parametrize("given", [None, "Bearer other", "Bearer S3cret", "s3cret", "Bearer "])
def test_a_wrong_key_is_refused(given: str | None) -> None:
    with served(HELLO, key="s3cret") as place:
        response = post(place, chat("hi"), {} if given is None else {"Authorization": given})
        assert response.status == 401
        assert response.error == "the API key is missing or wrong: send it as Authorization: Bearer KEY"
        assert post(place, chat("hi"), {"Authorization": "Bearer s3cret"}).status == 200


def test_more_requests_than_may_wait_are_told_to_come_again() -> None:
    go = threading.Event()
    engine = ScriptedEngine(lambda asked: "Well.", pace=lambda: go.wait(20))
    with served(engine, most=2) as place, ThreadPoolExecutor(8) as clients:
        done = as_completed([clients.submit(post, place, chat("hi")) for _ in range(8)], timeout=20)
        refused = [next(done).result() for _ in range(6)]
        assert {(response.status, response.headers["retry-after"]) for response in refused} == {(503, "1")}
        go.set()
        assert [future.result().status for future in done] == [200, 200]


def test_a_failing_engine_is_a_500_and_the_server_goes_on() -> None:
    def script(asked: Any) -> str:
        if "bad" in asked.messages[-1]["content"]:
            raise RuntimeError("a secret")
        return "Fine."

    with served(ScriptedEngine(script)) as place:
        response = post(place, chat("bad"))
        assert response.status == 500
        assert response.error == "the engine failed: RuntimeError"
        assert post(place, chat("good")).status == 200


def test_an_engine_that_fails_in_a_stream_ends_it_with_an_error() -> None:
    read, count = threading.Event(), itertools.count()

    def pace() -> None:
        """Fails behind the first piece, once the client has read it."""
        if next(count):
            read.wait(20)
            next(iter(()))

    with (
        served(ScriptedEngine(lambda _: "a long text", pace=pace)) as place,
        opened(place, chat("hi", stream=True)) as stream,
    ):
        assert stream.readline().startswith(b"data: {")
        read.set()
        *_, failed, end, _ = stream.read().decode().split("\n\n")
    assert json.loads(failed[6:])["error"]["message"] == "the engine failed: RuntimeError"
    assert end == "data: [DONE]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_answer(stream: bool) -> None:
    come, go, never = (threading.Event() for _ in range(3))
    pace = (come.set, lambda: go.wait(20), lambda: never.wait(0.05))  # so that the server sees it leave in time
    engine = ScriptedEngine(lambda asked: "word " * 100_000, pace=lambda: [wait() for wait in pace])
    with served(engine) as place:
        with _connected(place) as client:
            client.sendall(_head(chat("hi", stream=stream)))
            assert come.wait(20)
        go.set()
        assert engine.left.wait(20)


def test_a_body_that_comes_too_slowly_is_cut_off() -> None:
    with served(HELLO, seconds=0.2) as place, _connected(place) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert client.recv(12) == b"HTTP/1.1 408"
        assert post(place, chat("hi")).status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp"])
def test_a_request_that_never_comes_is_cut_off(sent: bytes) -> None:
    with served(HELLO, seconds=0.2) as place, _connected(place) as client:
        client.sendall(sent)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert post(place, chat("hi")).status == 200


def test_a_client_that_does_not_read_is_cut_off() -> None:
    never = threading.Event()
    texts = {"hi": "Hello.", "lots": "x" * 20_000_000}
    engine = ScriptedEngine(lambda asked: texts[asked.messages[-1]["content"]], pace=lambda: never.wait(0.01))
    with served(engine, seconds=0.3) as place, _connected(place) as client:
        client.sendall(_head(chat("lots", stream=True)))
        assert engine.left.wait(30)
        assert post(place, chat("hi")).status == 200


def _head(body: dict[str, Any]) -> bytes:
    content = json.dumps(body)
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{content}".encode()


def _connected(place: str) -> socket.socket:
    host, port = place.split(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return client


@pytest.mark.slow
def test_a_killed_server_starts_again_and_a_stopped_one_ends_its_answers_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"127.0.0.1:{port}"
    with _process(port) as first, opened(place, chat("hi", stream=True)) as broken:
        assert broken.readline().startswith(b"data: ")
        first.kill()
        with pytest.raises((OSError, HTTPException)):
            broken.read()
    with _process(port) as second, opened(place, chat("hi", stream=True)) as stream:
        assert stream.readline().startswith(b"data: ")
        second.send_signal(signal.SIGTERM)
        assert stream.read().endswith(b"data: [DONE]\n\n")
        assert second.wait(20) == 0


@contextlib.contextmanager
def _process(port: int) -> Iterator["subprocess.Popen[str]"]:
    script = Path(__file__).parents[1] / "support" / "scripted.py"
    with subprocess.Popen([sys.executable, str(script), str(port)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()
