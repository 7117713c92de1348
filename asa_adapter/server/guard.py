"""`Guard`: what stands before the application, and lets no client take more than its share of time and memory."""

import asyncio
import contextlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from asa_adapter.server.replies import failure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 4 * 1024 * 1024
SECONDS = 30.0
_PORT = re.compile(r":\d*$")


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Guard:
    """Asks for the key, reads a body within bounds, and gives up on clients that do not take what is sent.

    Args:
        app: what answers.
        key: without it nothing below /v1 is answered; None asks for none.
        hosts: names by which the server may be called, that of IPv6 in brackets; "*" among them for any.
        most: bytes of the largest body.
        seconds: longest time for a body to come, and for a client to take a part of an answer.
    """

    def __init__(
        self,
        app: Application,
        *,
        key: str | None = None,
        hosts: Collection[str] = ("*",),
        most: int = MAX_BODY,
        seconds: float = SECONDS,
    ) -> None:
        self._app, self._key = app, None if key is None else key.encode()
        self._hosts, self._most, self._seconds = hosts, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or what a server tells at its start and end."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        patience = _PatientSender(send, self._seconds)
        try:
            body = await self._admitted(scope, receive)
        except _Refused as refused:
            with contextlib.suppress(TimeoutError):
                await _answer_refusal(patience.send, refused)
            return
        if body is None:  # the client is gone
            return
        first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return first.pop() if first else await receive()

        try:
            await self._app(scope, again, patience.send)
        except Exception:
            if not patience.ended:
                raise

    async def _admitted(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body of a request that may be answered; None where the client left.

        Raises:
            _Refused: it may not be.
        """
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if "*" not in self._hosts and _PORT.sub("", host).lower() not in self._hosts:
            names = ", ".join(self._hosts)
            raise _Refused(400, f"the server was called by the name {host!r:.80}; expected one of {names}")
        if self._key is not None and scope["path"].startswith("/v1"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._key):
                raise _Refused(401, "the API key is missing or wrong: send it as Authorization: Bearer KEY")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and len(length) < 20 and int(length) > self._most:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._body(receive)
        except TimeoutError as error:
            raise _Refused(408, f"the body did not come within {self._seconds:g} seconds") from error

    async def _body(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._most:
                raise self._too_large()
            if not message.get("more_body"):
                return bytes(body)

    def _too_large(self) -> _Refused:
        return _Refused(413, f"the body is larger than {self._most} bytes, which is the most this server reads")


class _PatientSender:
    """Sends, and ends an answer of which a client takes nothing for too long."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self.ended = False

    async def send(self, message: Message) -> None:
        """Sends a part.

        Raises:
            TimeoutError: the client does not take it.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(message)
        except TimeoutError:
            self.ended = True
            raise


async def _answer_refusal(send: Send, refused: _Refused) -> None:
    code = "invalid_api_key" if refused.status == 401 else None
    body = json.dumps(failure(refused.message, code=code)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
