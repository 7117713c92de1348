"""The HTTP server: the application on a socket, until it is told to stop."""

import contextlib
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asa_adapter.server.application import MOST
from asa_adapter.server.guard import SECONDS, Application

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LAST_WORDS = 10  # seconds for answers that are being written when the server is told to stop
_HEAD = 64 * 1024  # bytes of a request's head


def listening(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to.

    Raises:
        OSError: the port is taken, or the host is not one of this machine; the message says so.
        ValueError: there is no such port.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port is {port}; expected 0 (a free one) to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2 * MOST)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error}; name another with --port or --host") from error


def own_names(host: str) -> tuple[str, ...]:
    """The names by which clients may call a server that listens on a host; ("*",) for any."""
    return (*_LOOPBACK[:2], f"[{_LOOPBACK[2]}]") if host in _LOOPBACK else ("*",)


def is_open(host: str) -> bool:
    """Whether other machines may reach a server that listens on a host."""
    return host not in _LOOPBACK


def serve_until_stopped(app: Application, listener: socket.socket) -> None:
    """Serves on a socket until SIGINT or SIGTERM; answers that are being written have ten seconds to end."""
    with contextlib.suppress(KeyboardInterrupt):  # raised again by uvicorn once all is done
        http_server(app).run(sockets=[listener])


def http_server(app: Application, *, seconds: float = SECONDS) -> uvicorn.Server:
    """uvicorn with bounds; its log tells nothing, since it would quote clients.

    Args:
        app: what answers.
        seconds: longest time for a request to come.
    """
    config = uvicorn.Config(
        app,
        http=_timed_protocol(seconds),
        ws="none",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=2 * MOST,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_LAST_WORDS,
        h11_max_incomplete_event_size=_HEAD,
    )
    return uvicorn.Server(config)


def _timed_protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which also ends connections on which no request comes to its end."""

    class Timed(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._seen: Any = self
            self._look_later()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._look.cancel()

        def _look_later(self) -> None:
            self._look = self.loop.call_later(seconds, self._looked)

        def _looked(self) -> None:
            """Ends the connection if nothing is being answered, and it was the same at the last look."""
            idle = self.cycle is None or self.cycle.response_complete
            state = self.cycle if idle or self.transport.is_closing() else self
            if state is not self and state is self._seen:
                self.transport.abort()
                return
            self._seen = state
            self._look_later()

    return Timed
