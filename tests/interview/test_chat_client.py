"""What is read of a stranger's server: within bounds of size and time, and cleaned."""

import socket
import struct
import threading
from typing import Any

import pytest
from chatty import chatty, good, words

from asa_adapter.interview.chat_client import MOST_BYTES, ChatClient, ServerError, shown_evidence
from asa_adapter.interview.questions import said


def ask(brain: Any, **options: Any) -> Any:
    with chatty(brain, **options) as url:
        return ChatClient(url, seconds=5).ask(said("Hello!"))


def test_the_only_model_of_a_server_is_asked_and_the_path_is_found() -> None:
    with chatty(good) as url:
        assert (ChatClient(url).model, ChatClient(url).url) == ("made-up", f"{url}/v1")
        assert ChatClient(f"{url}/v1/", "other").url == f"{url}/v1"
        assert ChatClient(f"{url}/api/v3", "other").url == f"{url}/api/v3"


@pytest.mark.parametrize(
    ("models", "told"), [((), "names none; give --model"), (("a", "b\x1b"), "names a, b\\u001b;")]
)
def test_a_server_of_several_models_or_none_wants_a_name(models: tuple[str, ...], told: str) -> None:
    with chatty(good, models=models) as url, pytest.raises(ValueError, match="which model") as refused:
        ChatClient(url)
    assert told in str(refused.value)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "file:///etc/passwd", "http://", "ftp://host/"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"expected one such as http://127\.0\.0\.1:8000/v1"):
        ChatClient(url, "m")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>\x1b[31mred", r"something else than JSON: <html>\\u001b\[31mred"),
        (b"[" * 100_000, "something else than JSON"),
        ([], "no chat completion"),
        ({"choices": []}, "no chat completion"),
        ({"choices": [{"message": {"tool_calls": [{}]}}]}, "no chat completion"),
        ({"choices": [{"message": {"tool_calls": 7}}]}, "no chat completion"),
        (b" " * (MOST_BYTES + 10), f"answered with more than {MOST_BYTES} bytes"),
    ],
)
def test_answers_of_another_shape_are_refused(body: Any, told: str) -> None:
    with pytest.raises(ServerError, match=told):
        ask(lambda _: (200, body))


def test_an_error_of_the_server_is_told_with_its_status() -> None:
    with pytest.raises(ServerError, match="answered 503: busy") as refused:
        ask(lambda _: (503, b"busy"))
    assert refused.value.status == 503


def test_a_redirection_is_not_followed_with_the_key() -> None:
    asked: list[Any] = []
    with chatty(lambda body: asked.append(body) or good(body)) as other:
        with pytest.raises(ServerError, match="answered 307"):
            ask(lambda _: (307, b"", {"Location": f"{other}/v1/chat/completions"}))
        assert asked == []


def test_a_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServerError, match=r"/v1/models did not answer: .*refused"):
        ChatClient(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 500 Broken\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
    ],
)
def test_a_server_that_drips_is_left(head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip() -> None:
            client = server.accept()[0]
            with client:
                client.sendall(head)
                while not stop.wait(0.02):
                    try:
                        client.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(ServerError, match=r"did not end its answer within 0\.3 seconds"):
                ChatClient(f"http://127.0.0.1:{server.getsockname()[1]}", "m", seconds=0.3).ask(said("Hello!"))
        finally:
            stop.set()
            thread.join()


def test_a_connection_that_is_reset_within_an_error_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reset() -> None:
            client = server.accept()[0]
            client.recv(65536)
            client.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 1000000\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

        thread = threading.Thread(target=reset)
        thread.start()
        with pytest.raises(ServerError, match=r"did not answer|answered 500"):
            ChatClient(f"http://127.0.0.1:{server.getsockname()[1]}", "m", seconds=5).ask(said("Hello!"))
        thread.join()


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret\u00e9", "sk-secret\x00"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="the API key is not plain ASCII; expected printable ASCII") as refused:
        ChatClient("http://127.0.0.1:9", "m", key)
    assert "secret" not in str(refused.value)


def test_content_in_parts_and_without_calls_is_read() -> None:
    reply = ask(lambda _: {"role": "assistant", "content": [{"type": "text", "text": "x"}], "tool_calls": None})
    assert (reply.content, reply.calls) == ('[{"type": "text", "text": "x"}]', ())
    assert ask(lambda _: words("Hi.")).reason == "stop"


def test_evidence_is_short_on_one_line_and_clean() -> None:
    assert shown_evidence("a\nb\x1b[2J\u202e") == "a b\\u001b[2J\\u202e"
    assert len(shown_evidence("x" * 10**7)) == 200
