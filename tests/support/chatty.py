"""Servers of OpenAI's interface that are made up: what they answer is a function of the request."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Message = dict[str, Any]
# Takes the body of a request and returns the message; or a status and a body, and headers where it has any.
Brain = Callable[[dict[str, Any]], Any]
CITIES = {"warmer": ("get_weather", ("Oslo", "Cairo")), "clocks": ("current_time", ("Tokyo", "Lima"))}


def words(text: str) -> Message:
    """An answer in words."""
    return {"role": "assistant", "content": text}


def calling(*calls: tuple[str, Any], text: str | None = None) -> Message:
    """An answer that calls; arguments that are text are sent as they are."""
    made = [
        {
            "id": f"call{i:05d}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for i, (name, given) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def asked(body: dict[str, Any]) -> tuple[str, int]:
    """The last question, and how many results stand behind it."""
    turns = body["messages"]
    last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
    return str(turns[last]["content"]), sum(turn["role"] == "tool" for turn in turns[last:])


def needed(body: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls that a question needs, one after the other; [] where it needs none."""
    text, _ = asked(body)
    for sign, (tool, cities) in CITIES.items():
        if sign in text:
            return [(tool, {"city": city}) for city in cities]
    for sign, call in {
        "48213": ("calculator", {"expression": "48213 * 3779"}),
        "weather in Oslo": ("get_weather", {"city": "Oslo"}),
        "time is it in Lima": ("current_time", {"city": "Lima"}),
    }.items():
        if sign in text:
            return [call]
    return []


def good(body: dict[str, Any]) -> Message:
    """A server without a fault: it calls what is needed, one call after the other, then speaks."""
    calls, (_, done) = needed(body), asked(body)
    return calling(calls[done]) if body.get("tools") and done < len(calls) else words("Well, that is it.")


def tokens(body: dict[str, Any]) -> int:
    """Tokens of a prompt that shows the tools."""
    return len(json.dumps([body["messages"], body.get("tools", [])])) // 4


@contextlib.contextmanager
def chatty(
    brain: Brain, *, models: tuple[str, ...] = ("made-up",), count: Callable[[Any], int | None] = tokens, **more: Any
) -> Iterator[str]:
    """A made-up server; gives its address.

    Args:
        brain: what it answers.
        models: the models that it names.
        count: how it counts a prompt's tokens; None where it does not.
        more: further fields of each answer.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send(200, {"data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = brain(body)
            if isinstance(answer, tuple):
                self.send(*answer)
                return
            reason = "tool_calls" if answer.get("tool_calls") else "stop"
            choice = {"index": 0, "message": answer, "finish_reason": reason}
            usage = {} if (n := count(body)) is None else {"usage": {"prompt_tokens": n, "completion_tokens": 5}}
            self.send(200, {"object": "chat.completion", "choices": [choice], **usage, **more})

        def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
