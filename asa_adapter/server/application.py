"""The application: OpenAI's routes over a `RequestQueue`."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from asa_adapter.policy.decision import Decision
from asa_adapter.server.chat_requests import read_chat
from asa_adapter.server.engine import Engine
from asa_adapter.server.guard import MAX_BODY, SECONDS, Application, Guard
from asa_adapter.server.replies import HEADER, Reply, decision_json, failure, failure_events
from asa_adapter.server.request_queue import Busy, RequestQueue, Ticket

MOST = 256  # requests that may wait at once
_LOG = logging.getLogger(__name__)


def application(
    engine: Engine,
    *,
    key: str | None = None,
    hosts: tuple[str, ...] = ("*",),
    most: int = MOST,
    largest: int = MAX_BODY,
    seconds: float = SECONDS,
) -> Application:
    """An ASGI application that answers for an engine.

    Args:
        engine: what answers.
        key: what clients have to send as their API key; None asks for none.
        hosts: names by which the server may be called, so that no web page reaches it under a name of its own.
        most: so many requests may wait at once.
        largest: bytes of the largest body.
        seconds: longest time for a body to come, and for a client to take a part of an answer.
    """
    desk, since = RequestQueue(engine, most), int(time.time())

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        desk.close()

    async def models(_: Request) -> Response:
        model = {"id": engine.name, "object": "model", "created": since, "owned_by": "asa-adapter"}
        return _json_response({"object": "list", "data": [model]})

    async def health(_: Request) -> Response:
        return _json_response({"status": "ok"})

    async def chat(request: Request) -> Response:
        return await _answer_chat(desk, request)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
        ],
        exception_handlers={HTTPException: _no_route, Exception: _unforeseen_error},
        lifespan=lifespan,
    )
    return Guard(app, key=key, hosts=hosts, most=largest, seconds=seconds)


async def _answer_chat(desk: RequestQueue, request: Request) -> Response:
    """One chat completion."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _json_response(failure("expected a body of the content type application/json"), 415)
    try:
        body = await request.body()
        asked = read_chat(body, desk.engine.name)
        ticket = desk.ask(asked, len(body))
    except LookupError as error:
        return _json_response(failure(str(error.args[0]), code="model_not_found"), 404)
    except ValueError as error:
        return _json_response(failure(str(error)), 400)
    except Busy:
        busy = failure("too many requests wait already; try again later", "server_error")
        return _json_response(busy, 503, {"retry-after": "1"})
    response: Response | None = None
    try:
        response = await _response_to_chat(ticket, request, Reply(desk.engine, asked), asked.stream)
    finally:
        if not isinstance(response, _StreamedResponse):  # which leaves when it ends
            ticket.leave()
    return response


async def _response_to_chat(ticket: Ticket, request: Request, reply: Reply, stream: bool) -> Response:
    """The response to a request, once there is an answer, or a first part of one where it is streamed."""
    if not await _waits_for_answer(ticket, request, stream):
        return Response(status_code=499)  # nobody reads it
    if ticket.answer.done() and (error := ticket.answer.exception()) is not None:
        if isinstance(error, ValueError):
            return _json_response(failure(str(error)), 400)
        return _json_response(failure(_failure_message(error), "server_error"), 500)
    if not stream:
        answer = ticket.answer.result()
        return _json_response(reply.whole(answer), headers={HEADER: decision_json(answer.decision)})
    decision = ticket.answer.result().decision if ticket.latest is None else ticket.latest[1]
    return _StreamedResponse(ticket, reply, decision)


async def _waits_for_answer(ticket: Ticket, request: Request, begun: bool) -> bool:
    """Waits for an answer, or only until it has begun; False where the client left."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(ticket.growth()) if begun else ticket.answer
    gone = asyncio.ensure_future(request.receive())  # behind the body comes only the news that the client left
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done()
    finally:
        gone.cancel()
        if begun:
            waiting.cancel()


class _StreamedResponse(StreamingResponse):
    """An answer that is sent while it is written."""

    def __init__(self, ticket: Ticket, reply: Reply, decision: Decision | None) -> None:
        told = {HEADER: decision_json(decision), "cache-control": "no-cache"}
        super().__init__(_stream_events(ticket, reply, decision), media_type="text/event-stream", headers=told)
        self._ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ticket.leave()


async def _stream_events(ticket: Ticket, reply: Reply, decision: Decision | None) -> AsyncIterator[str]:
    yield reply.begun(decision)
    while not ticket.answer.done():
        if ticket.latest is not None and (chunk := reply.grown(ticket.latest[0])):
            yield chunk
        await ticket.growth()
    try:
        for chunk in reply.ended(ticket.answer.result()):
            yield chunk
    # The stream has begun, so that no status can tell of it; whatever it is, the server goes on.
    except Exception as error:
        for chunk in failure_events(_failure_message(error)):
            yield chunk


def _failure_message(error: BaseException) -> str:
    """What the client is told of a failure that is not its own; the log has the rest."""
    _LOG.error("an answer failed", exc_info=error)
    return f"the engine failed: {type(error).__name__}"


def _json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, "application/json")


async def _no_route(_: Request, error: Exception) -> Response:
    """What there is no route for."""
    assert isinstance(error, HTTPException)
    return _json_response(
        failure(f"{error.detail}; this server has /v1/chat/completions and /v1/models"), error.status_code
    )


async def _unforeseen_error(_: Request, error: Exception) -> Response:
    """What nobody foresaw; Starlette raises the error again, behind the answer."""
    return _json_response(failure(f"the server failed: {type(error).__name__}", "server_error"), 500)
