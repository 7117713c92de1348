"""An engine that answers by a script, behind the server's real HTTP layer, and a client of the bare protocol."""

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

from asa_adapter import Decision, ToolCall, ToolCallParser
from asa_adapter.server.engine import Answer, Asked, Gone, Told

Script = Callable[[Asked], str]
CITIES = ("Paris", "Oslo", "Lima")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class ScriptedEngine:
    """Writes what a script says, three characters at a time, a long text in two hundred pieces.

    Args:
        script: gives an answer's text.
        format: how its calls are written.
        pace: is called before each piece.
    """

    def __init__(self, script: Script, format: str = "lfm2", pace: Callable[[], object] = lambda: None) -> None:
        self.name, self.hidden = "scripted", ("<|im_end|>",)
        self.parser = ToolCallParser(format)
        self._script, self._pace = script, pace
        self.asked: list[Asked] = []
        self.left = threading.Event()

    def answer(self, asked: Asked, told: Told) -> Answer:
        """The decision's p_tool is a thousandth of the number with which the last turn ends."""
        self.asked.append(asked)
        words = str(asked.messages[-1]["content"]).split()
        number = int(words[-1]) if words and words[-1].isdigit() else 500
        decision = Decision("math", number / 1000, 1, applied=True) if asked.factor else None
        text = self._script(asked)
        try:
            step = max(3, len(text) // 200)
            for end in range(step, len(text) + step, step):
                self._pace()
                told(text[:end], decision)
        except Gone:
            self.left.set()
            raise
        return Answer(text, 7 + 20 * len(asked.tools), len(text), decision=decision)


def three_calls(asked: Asked) -> str:
    """The weather of three cities, one call after the other, and then what was found."""
    results = [str(turn["content"]) for turn in asked.messages if turn["role"] == "tool" or _told(turn)]
    found = f"Found: {', '.join(results)}."
    if len(results) < len(CITIES):
        call = ToolCall("get_weather", {"city": CITIES[len(results)]})
    elif any(tool["function"]["name"] == "final_answer" for tool in asked.tools):  # how smolagents ends
        call = ToolCall("final_answer", {"answer": found})
    else:
        return f"{found}<|im_end|>"
    return f"Let me look. {ToolCallParser('lfm2').write([call])}<|im_end|>"


def _told(turn: Any) -> bool:
    """Whether a turn is a tool's result in the way of a library that has no role for it."""
    return turn["role"] == "user" and "Observation" in str(turn["content"])


@contextlib.contextmanager
def served(engine: Any, *, seconds: float = 30.0, **options: Any) -> Iterator[str]:
    """A server for an engine in a thread of its own; gives its address."""
    from asa_adapter.server.application import application
    from asa_adapter.server.listener import http_server, listening

    listener = listening("127.0.0.1", 0)
    server = http_server(application(engine, seconds=seconds, **options), seconds=seconds)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


class Response(NamedTuple):
    """A whole response."""

    status: int
    headers: Message
    body: bytes

    @property
    def error(self) -> str:
        """What an error says."""
        return str(json.loads(self.body)["error"]["message"])

    @property
    def decision(self) -> Any:
        """The decision in the header."""
        return json.loads(self.headers["x-asa-decision"])


@contextlib.contextmanager
def opened(place: str, body: Any, headers: dict[str, str] | None = None, **how: Any) -> Iterator[HTTPResponse]:
    """The response to a chat completion, not read yet; a body that is no text is sent as JSON."""
    with contextlib.closing(HTTPConnection(place, timeout=60)) as connection:
        content = json.dumps(body) if isinstance(body, dict | list) else body
        sent = {"Content-Type": "application/json", **(headers or {})}
        connection.request("POST", "/v1/chat/completions", content, sent, **how)
        with connection.getresponse() as response:
            yield response


def post(place: str, body: Any, headers: dict[str, str] | None = None, **how: Any) -> Response:
    """The whole response to a chat completion."""
    with opened(place, body, headers, **how) as response:
        return Response(response.status, response.headers, response.read())


def get(place: str, path: str) -> Response:
    """The whole response to a question without a body."""
    with contextlib.closing(HTTPConnection(place, timeout=60)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return Response(response.status, response.headers, response.read())


def chat(text: str, **more: Any) -> dict[str, Any]:
    """The body of a request of one turn."""
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **more}


def events(response: Response) -> list[dict[str, Any]]:
    """The chunks of a stream."""
    lines = [line[6:] for line in response.body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]], str]:
    """The text, the calls and the reason that a stream comes to."""
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    calls = [call["function"] for choice in choices for call in choice["delta"].get("tool_calls", [])]
    return text, calls, choices[-1]["finish_reason"]


def main(port: int) -> None:
    """Serves until it is told to stop, a hundredth of a second for each piece."""
    from asa_adapter.server.application import application
    from asa_adapter.server.listener import listening, serve_until_stopped

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = ScriptedEngine(lambda asked: "word " * 60, pace=lambda: time.sleep(0.01))
    with listening("127.0.0.1", port) as listener:
        print("ready", flush=True)
        serve_until_stopped(application(engine), listener)


if __name__ == "__main__":
    main(int(sys.argv[1]))
