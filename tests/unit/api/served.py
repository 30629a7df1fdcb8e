"""A really served application for tests: our server on a loopback port, and raw bytes to it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import trio

from ollamad.api.app import Application, create_app
from ollamad.api.responses import text_response
from ollamad.api.routing import Route
from ollamad.api.server import Server
from ollamad.environment import BUILT_IN_ORIGINS

TABLE = (
    ("GET", "/"),
    ("HEAD", "/"),
    ("GET", "/api/version"),
    ("HEAD", "/api/version"),
    ("GET", "/api/tags"),
    ("HEAD", "/api/tags"),
    ("GET", "/api/ps"),
    ("POST", "/api/show"),
    ("POST", "/api/chat"),
    ("DELETE", "/api/delete"),
    ("HEAD", "/api/blobs/:digest"),
    ("POST", "/api/blobs/:digest"),
)


async def ok(context: Any) -> Any:
    return text_response("ok" + "".join(context.parameters.values()))


def application(
    *routes: Route, origins: Iterable[str] = BUILT_IN_ORIGINS, checks_host: bool = True
) -> Application:
    """An application whose table is the contract's, ``routes`` in the place of its handlers."""
    given = {(route.method, route.path) for route in routes}
    rest = (Route(method, path, ok) for method, path in TABLE if (method, path) not in given)
    services: Any = SimpleNamespace(settings=SimpleNamespace(origins=tuple(origins)))
    return create_app(services, checks_host=checks_host, routes=[*routes, *rest])


class Answer:
    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        self.start_line = lines[0]
        pairs = [line.split(": ", 1) for line in lines[1:]]
        self.all_headers = [(name.lower(), value) for name, value in pairs]
        self.headers = dict(self.all_headers)
        self.body = body


class Served:
    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self.server = server
        self.address = address
        self.ended = trio.Event()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)

    async def closed_answer(self, request: bytes) -> bytes:
        """All that comes until the server closes."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await until_closed(stream)

    async def answer(self, request: bytes, *, head: bool = False) -> Answer:
        """One answer on a connection of its own."""
        async with await self.connect() as stream:
            await stream.send_all(request)
            return await read_answer(stream, head=head)


@asynccontextmanager
async def served(app: Application) -> AsyncIterator[Served]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    running = Served(Server(app), listener.getsockname())
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await running.server.run(listener, task_status=task_status)
                running.ended.set()

            await nursery.start(run)
            yield running
            nursery.cancel_scope.cancel()


async def until_closed(stream: trio.SocketStream) -> bytes:
    received = b""
    try:
        while data := await stream.receive_some(65536):
            received += data
    except trio.BrokenResourceError:
        received += b"<reset>"
    return received


async def read_answer(stream: trio.SocketStream, *, head: bool = False) -> Answer:
    """The next answer on ``stream``, which must be framed and not be followed by another."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some(65536)
        assert data, f"closed after {received!r}"
        received += data
    start, _, body = received.partition(b"\r\n\r\n")
    answer = Answer(start, b"")
    chunked = answer.headers.get("transfer-encoding") == "chunked"
    length = 0 if head else int(answer.headers.get("content-length", "0"))
    while not body.endswith(b"0\r\n\r\n") if chunked else len(body) < length:
        data = await stream.receive_some(65536)
        assert data, f"closed after {body!r}"
        body += data
    answer.body = b"".join(chunks(body)) if chunked else body
    return answer


def chunks(body: bytes) -> list[bytes]:
    """The pieces of a chunked body, which must be whole."""
    pieces = []
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            assert body == b"\r\n"
            return pieces
        pieces.append(body[:length])
        assert body[length : length + 2] == b"\r\n"
        body = body[length + 2 :]
