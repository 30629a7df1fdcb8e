"""Requests that are made to cost: heads of very many lines, garbage while an answer is stuck."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from served import application, read_answer, served, until_closed

from ollamad.api.http1 import LINE_LIMIT
from ollamad.api.responses import stream_response, text_response
from ollamad.api.routing import Route

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LINES = b"\n" * 5000


async def count_lines(context: Any) -> Any:
    return text_response(str((await context.body()).count(b"\n")))


@pytest.mark.parametrize("size", [1, 7, 65536])
async def test_a_head_of_very_many_lines_is_refused(size: int) -> None:
    async with served(application()) as app, await app.connect() as stream:
        head = GET + b"a:\r\n" * LINE_LIMIT * (50 if size > 7 else 1)
        async with trio.open_nursery() as nursery:
            received = b""

            async def read() -> None:
                nonlocal received
                received = await until_closed(stream)
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            for at in range(0, len(head), size):
                await stream.send_all(head[at : at + size])
    assert received.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")


async def test_heads_of_many_lines_are_accepted_one_after_another() -> None:
    async with served(application()) as app, await app.connect() as stream:
        for _ in range(3):
            await stream.send_all(GET + b"a:\r\n" * (LINE_LIMIT - 10) + b"\r\n")
            assert (await read_answer(stream)).body == b"ok"


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4])
async def test_the_lines_of_a_body_do_not_count(cut: int) -> None:
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(LINES)
    app = application(Route("POST", "/api/chat", count_lines))
    async with served(app) as running, await running.connect() as stream:
        for _ in range(2):
            await stream.send_all(head[: len(head) - cut])
            await trio.testing.wait_all_tasks_blocked(0.01)
            await stream.send_all(head[len(head) - cut :] + LINES)
            assert (await read_answer(stream)).body == b"5000"


async def test_garbage_while_an_answer_is_stuck_closes_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def items() -> Any:
        while True:
            yield b"x" * 65536

    async def handler(_context: Any) -> Any:
        return await stream_response(items())

    app = application(Route("POST", "/api/chat", handler))
    async with served(app) as running, await running.connect() as stream:
        # With Expect the body is not read before the answer.
        await stream.send_all(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        while not app.running:
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await stream.send_all(b"zz\r\n")
        assert await until_closed(stream)
        while running.server._open:
            await trio.lowlevel.checkpoint()
    assert "connection failed" not in caplog.text


async def test_stop_answers_a_request_whose_body_does_not_come() -> None:
    app = application(Route("POST", "/api/chat", count_lines))
    async with served(app) as running, await running.connect() as stream:
        await stream.send_all(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        while not app.running:
            await trio.lowlevel.checkpoint()
        await running.server.stop(0)
        assert (await until_closed(stream)).startswith(b"HTTP/1.1 503 ")
