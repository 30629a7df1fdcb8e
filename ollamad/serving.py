"""HTTP connections on one listening socket, and how they end when the daemon stops.

Hypercorn speaks HTTP on each connection. What its own ``serve`` lacks is kept here: which requests
run, a last line for those that are cut, and a way to be rid of clients that no longer read.
"""

from __future__ import annotations

import json
import logging
import math
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from ollamad.errors import OllamadError, ShuttingDown

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

logger = logging.getLogger(__name__)

#: Seconds that clients get to read the last line when their requests were cut.
FLUSH_LIMIT = 1.0
#: Bytes of request line and headers (http-api.md 1.4).
HEADER_LIMIT = 1 << 20

Message = dict[str, Any]
Send = Callable[[Any], Awaitable[None]]


def hypercorn_config() -> Config:
    """Hypercorn's settings for the daemon: no limits on time or number, no log of its own."""
    config = Config()
    config.h11_max_incomplete_size = HEADER_LIMIT
    config.include_server_header = False
    config.keep_alive_timeout = math.inf
    config.keep_alive_max_requests = 2**63
    config.accesslog = None
    config.errorlog = logging.getLogger("ollamad.http")
    return config


class Server:
    """Serves ``app``, an ASGI application, by ``run``; ended by ``stop``."""

    def __init__(self, app: ASGIFramework, config: Config) -> None:
        self._requests = Requests(app)
        self._app = wrap_app(self._requests, config.wsgi_max_body_size, "asgi")
        self._config = config
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()
        self._streams: set[trio.SocketStream] = set()
        #: Set and replaced whenever a connection is gone.
        self._fewer = trio.Event()

    async def run(
        self,
        listener: socket.socket,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until ``stop`` was called and the last connection is closed.

        ``listener`` is bound and listening; it is closed as soon as the daemon stops to accept.
        """
        accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        async with trio.open_nursery() as connections:
            with self._accepting:
                task_status.started()
                await trio.serve_listeners(
                    self._connection, [accepting], handler_nursery=connections
                )

    async def stop(self, grace: float) -> None:
        """Accept no more connections, then end those that there are, within ``grace`` and a bit.

        Idle connections close at once. Requests go on for up to ``grace`` seconds; those that still
        run then are cut: a stream gets a last line with the error, a request without an answer yet
        gets 503. Connections whose clients do not read that are torn down.
        """
        self._accepting.cancel()
        await self._context.terminated.set()
        with trio.move_on_after(grace):
            await self._closed()
        if self._requests:
            logger.warning("ending requests that still run", extra={"count": len(self._requests)})
            self._requests.cut(ShuttingDown())
        with trio.move_on_after(FLUSH_LIMIT):
            await self._closed()
        for stream in self._streams:
            # Hypercorn shields its sends, so only this ends one to a client that does not read.
            stream.socket.close()

    async def _closed(self) -> None:
        while self._streams:
            await self._fewer.wait()

    async def _connection(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)
        try:
            await TCPServer(
                self._app,
                self._config,
                self._context,
                ConnectionState({}),
                stream,  # type: ignore[arg-type]  # Hypercorn finds out whether it is TLS
            )
        except Exception:  # a bug in one connection must not end the others
            logger.exception("connection failed")
        finally:
            self._streams.discard(stream)
            self._fewer.set()
            self._fewer = trio.Event()


class Requests:
    """ASGI middleware that knows the requests in progress and can cut them. ``len`` counts them."""

    def __init__(self, app: ASGIFramework) -> None:
        self._app: Any = app
        self._active: set[_Request] = set()

    def __len__(self) -> int:
        return len(self._active)

    def cut(self, error: OllamadError) -> None:
        """Cancel every request that is in progress; ``error`` is the last that its client reads."""
        for request in self._active:
            request.error = error
            request.scope.cancel()

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(send)
        self._active.add(request)
        try:
            with request.scope:
                await self._app(scope, receive, request.send)
            if request.error is not None and not request.finished:
                await request.end_with(request.error)
        finally:
            self._active.discard(request)


class _Request:
    """How far the answer to one request got."""

    __slots__ = ("_send", "content_type", "error", "finished", "scope")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.scope = trio.CancelScope()
        #: None until the answer has begun.
        self.content_type: bytes | None = None
        self.finished = False
        self.error: OllamadError | None = None

    def send(self, message: Message) -> Awaitable[None]:
        """Not a coroutine itself: it stands in the way of every token."""
        if message["type"] == "http.response.start":
            headers = {name.lower(): value for name, value in message.get("headers", ())}
            self.content_type = headers.get(b"content-type", b"")
        elif not message.get("more_body", False):
            self.finished = True
        return self._send(message)

    async def end_with(self, error: OllamadError) -> None:
        """The last the client reads: an error line in a stream, an error answer if none began."""
        line = json.dumps({"error": error.message}).encode()
        if self.content_type is None:
            headers = [
                (b"content-type", b"application/json; charset=utf-8"),
                (b"content-length", b"%d" % len(line)),
                (b"connection", b"close"),
            ]
            await self._send(
                {"type": "http.response.start", "status": error.status, "headers": headers}
            )
            body = line
        elif self.content_type.startswith(b"application/x-ndjson"):
            body = line + b"\n"
        elif self.content_type.startswith(b"text/event-stream"):
            body = b"data: " + line + b"\n\n"
        else:
            # A body of another kind stays incomplete, which its length or framing shows.
            return
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
