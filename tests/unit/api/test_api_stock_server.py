"""The application under Hypercorn's own trio worker: it must not depend on our server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from ollamad.api.context import Context
from ollamad.api.responses import stream_response
from ollamad.api.routing import Route
from tests.unit.api.served import application, until_closed


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[tuple[str, int]]:
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            (address,) = await nursery.start(serve, app, config)
            yield "127.0.0.1", int(address.rsplit(":", 1)[1])
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET /api/version HTTP/1.0\r\n\r\n",
        b"POST /api/chat HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /nope HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_closing_clients_see_the_end(request_: bytes) -> None:
    async def items() -> Any:
        yield b"ok"

    async def handler(context: Context) -> Any:
        await context.body()
        return await stream_response(items())

    async with running(application(Route("POST", "/api/chat", handler))) as address:
        stream = await trio.open_tcp_stream(*address)
        await stream.send_all(request_)
        received = await until_closed(stream)
    assert received.endswith(b"\r\n\r\nok") or b" 404 " in received


async def test_a_client_that_leaves_cancels_its_handler() -> None:
    started, ended = trio.Event(), trio.Event()

    async def handler(context: Context) -> Any:
        await context.body()
        try:
            started.set()
            await trio.sleep_forever()
        finally:
            ended.set()

    async with running(application(Route("POST", "/api/chat", handler))) as address:
        stream = await trio.open_tcp_stream(*address)
        head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
        await stream.send_all(head + b"{}")
        await started.wait()
        await stream.aclose()
        await ended.wait()
