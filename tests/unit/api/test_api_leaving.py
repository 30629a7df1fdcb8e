"""Clients that go away at awkward moments: nothing may go on for them (http-api.md 18)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio
from served import application, served

from ollamad.api.responses import stream_response
from ollamad.api.routing import Route


async def test_a_client_that_has_left_before_its_handler_runs_is_noticed() -> None:
    async def endless(context: Any) -> Any:
        await context.body()
        await trio.sleep_forever()

    app = application(Route("POST", "/api/chat", endless))
    async with served(app) as running:
        # Whether its task runs before the end of the connection is seen is a matter of luck.
        for _ in range(30):
            client = await running.connect()
            await client.send_all(
                b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
            )
            await client.aclose()
        running.server._accepting.cancel()
        await running.ended.wait()
    assert not app.running


async def test_a_stream_is_closed_when_its_client_leaves_before_the_first_byte() -> None:
    begun, closed = trio.Event(), trio.Event()

    async def items() -> AsyncGenerator[bytes, None]:
        try:
            begun.set()
            yield b"first"
            await trio.sleep_forever()
        finally:
            closed.set()

    async def handler(context: Any) -> Any:
        return await stream_response(items())

    app = application(Route("POST", "/api/chat", handler))
    async with served(app) as running:
        client = await running.connect()
        # The answer waits for the rest of this body, which never comes.
        await client.send_all(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{}"
        )
        await begun.wait()
        await client.aclose()
        while app.running:
            await trio.lowlevel.checkpoint()
        assert closed.is_set()
