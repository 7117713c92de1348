"""`ChatClient`: one chat completion after the other from a server that may be anyone's, within bounds."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from http.client import HTTPException
from threading import Thread
from typing import Any, NamedTuple

from asa_adapter.errors import visible

MOST_BYTES = 2 * 1024 * 1024  # of one answer
SECONDS = 120.0
_CHUNK = 64 * 1024
_SHOWN = 200


class ServerError(OSError):
    """The server did not answer a question, or not as the interface has it.

    Attributes:
        status: the HTTP status with which it refused the question; None where it did not.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Called(NamedTuple):
    """A call in an answer: the tool's name, and the arguments as the server sent them."""

    name: str
    arguments: Any


class Reply(NamedTuple):
    """What is read of an answer; all of it is a stranger's.

    Attributes:
        content: its text.
        calls: its `tool_calls`.
        reason: its `finish_reason`.
        prompt_tokens: number of tokens of the prompt; None where the server does not tell.
    """

    content: str
    calls: tuple[Called, ...]
    reason: str
    prompt_tokens: int | None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the key is for the server that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ChatClient:
    """Asks one server.

    Args:
        url: its address, such as http://127.0.0.1:8000 or http://127.0.0.1:8000/v1.
        model: the model to ask; None for the one that it has.
        key: its API key, if it wants one.
        seconds: longest time for one answer.

    Attributes:
        url: the address, with the path below which the interface lies.
        model: the model that is asked.
        asked: number of questions so far.

    Raises:
        ValueError: the address is none, the key cannot be sent, or the server has several models and none is named.
        ServerError: it is not reached, or does not answer.
    """

    def __init__(self, url: str, model: str | None = None, key: str | None = None, seconds: float = SECONDS) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url is {url!r:.200}; expected one such as http://127.0.0.1:8000/v1")
        self.url = url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
        if key:
            check_key(key)
        self.asked = 0
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._seconds = seconds
        self._opener = urllib.request.build_opener(_NoRedirect)
        self.model = model or self._only_model()

    def ask(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = (), max_tokens: int = 512
    ) -> Reply:
        """One answer, as greedy as the server makes it.

        Raises:
            ServerError: there is none.
        """
        self.asked += 1
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens}
        body |= {"temperature": 0} | ({"tools": list(tools)} if tools else {})
        return self._read_completion(self._json("/chat/completions", body))

    def _only_model(self) -> str:
        found = self._json("/models")
        data = found.get("data") if isinstance(found, dict) else None
        names = [model["id"] for model in data or [] if isinstance(model, dict) and isinstance(model.get("id"), str)]
        if len(names) != 1:
            known = ", ".join(shown_evidence(name, 80) for name in names[:20]) or "none"
            raise ValueError(f"which model? The server at {self.url} names {known}; give --model")
        return str(names[0])

    @staticmethod
    def _read_completion(body: Any) -> Reply:
        """What is read of the body of a chat completion."""
        try:
            choice = body["choices"][0]
            message = choice["message"]
            content, calls = message.get("content") or "", message.get("tool_calls") or []
            called = tuple(Called(str(call["function"]["name"]), call["function"].get("arguments")) for call in calls)
            usage = body.get("usage") or {}
            tokens = usage.get("prompt_tokens")
            return Reply(
                content if isinstance(content, str) else json.dumps(content),
                called,
                str(choice.get("finish_reason")),
                tokens if type(tokens) is int else None,
            )
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            said = shown_evidence(json.dumps(body)[:4000])
            raise ServerError(f"the answer is no chat completion of OpenAI's interface: {said}") from error

    def _json(self, path: str, body: Any = None) -> Any:
        try:
            content = _in_time(lambda: self._exchanged(path, body), self._seconds)
        except futures.TimeoutError as error:
            raise self._late() from error
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            said = shown_evidence(content[:_CHUNK].decode("utf-8", "replace"))
            raise ServerError(f"{self.url}{path} answered with something else than JSON: {said}") from error

    def _exchanged(self, path: str, body: Any) -> bytes:
        """The body that answers a request.

        Raises:
            ServerError: there is none, or an error's.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self._headers)
        try:
            try:
                with self._opener.open(request, timeout=self._seconds) as response:
                    return self._bounded(response)
            except urllib.error.HTTPError as error:
                with error:
                    said = shown_evidence(self._bounded(error).decode("utf-8", "replace"))
                raise ServerError(f"{self.url}{path} answered {error.code}: {said}", error.code) from error
        except ServerError:
            raise
        except (OSError, HTTPException) as error:
            reason = shown_evidence(str(getattr(error, "reason", error)) or type(error).__name__)
            raise ServerError(f"{self.url}{path} did not answer: {reason}") from error

    def _late(self) -> ServerError:
        return ServerError(f"{self.url} did not end its answer within {self._seconds:g} seconds")

    def _bounded(self, response: Any) -> bytes:
        """The body, in time and within bounds."""
        end, content = time.monotonic() + self._seconds, bytearray()
        while part := response.read1(_CHUNK):
            content += part
            if len(content) > MOST_BYTES:
                raise ServerError(f"{self.url} answered with more than {MOST_BYTES} bytes; the rest was not read")
            if time.monotonic() > end:
                raise self._late()
        return bytes(content)


def check_key(key: str) -> None:
    """Refuses a key that cannot stand in a header, without showing it.

    Raises:
        ValueError: it is empty, or holds more than printable ASCII.
    """
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError(f"the API key is {'empty' if not key else 'not plain ASCII'}; expected printable ASCII")


def _in_time(work: Callable[[], bytes], seconds: float) -> bytes:
    """What some work gives. A thread does it, since a socket's timeout begins anew with each byte of the headers.

    Raises:
        concurrent.futures.TimeoutError: it is not done in time.
    """
    done: futures.Future[bytes] = futures.Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    return done.result(seconds)


def shown_evidence(text: str, most: int = _SHOWN) -> str:
    """A stranger's text as evidence: on one line, short, and without what a terminal would obey."""
    line = " ".join(text[: 20 * most].split())
    return visible(line if len(line) <= most else line[: most - 3] + "...")
