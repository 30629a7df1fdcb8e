"""Connections over real sockets: what clients see while the daemon stops."""

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from ollamad import serving
from ollamad.host import parse_host
from ollamad.listener import listen
from ollamad.serving import Server, hypercorn_config

LAST_LINE = b'{"error": "server is shutting down"}'


class App:
    """Answers ``/short`` at once; anything else begins an answer and ends it when told to."""

    def __init__(self, content_type: bytes = b"application/x-ndjson", begin: bool = True) -> None:
        self.content_type = content_type
        self.begin = begin
        self.running = trio.Event()
        self.go_on = trio.Event()
        self.ended = trio.Event()

    async def __call__(
        self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]
    ) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-type", self.content_type)]
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        if scope["path"] == "/short":
            await send({**start, "headers": [*headers, (b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
            return
        try:
            if self.begin:
                await send(start)
                await send({"type": "http.response.body", "body": b"first\n", "more_body": True})
            self.running.set()
            await self.go_on.wait()
            if not self.begin:
                await send(start)
            await send({"type": "http.response.body", "body": b"last\n", "more_body": False})
        finally:
            self.ended.set()


class Running:
    def __init__(self, server: Server, address: tuple[str, int]) -> None:
        self.server = server
        self.address = address
        self.done = trio.Event()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)

    async def get(self, path: str) -> trio.SocketStream:
        stream = await self.connect()
        await stream.send_all(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode())
        return stream


@asynccontextmanager
async def serving_app(app: Any) -> AsyncIterator[Running]:
    listener = listen(parse_host("127.0.0.1:0"))
    running = Running(Server(app, hypercorn_config()), listener.getsockname())
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def run(*, task_status: trio.TaskStatus[None]) -> None:
                await running.server.run(listener, task_status=task_status)
                running.done.set()

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


async def answer(stream: trio.SocketStream, end: bytes = b"ok") -> bytes:
    received = b""
    while not received.endswith(end):
        data = await stream.receive_some(65536)
        assert data, f"closed after {received!r}"
        received += data
    return received


async def test_stopping_closes_idle_connections_and_the_listener() -> None:
    async with serving_app(App()) as running:
        used = await running.get("/short")
        unused = await running.connect()
        assert (await answer(used)).startswith(b"HTTP/1.1 200")
        await running.server.stop(1000)
        assert await until_closed(used) == b""
        assert await until_closed(unused) == b""
        await running.done.wait()
        with pytest.raises(OSError):
            await running.connect()


async def test_a_connection_serves_many_requests_and_says_no_more_than_it_must() -> None:
    async with serving_app(App()) as running:
        stream = await running.connect()
        for _ in range(3):
            await stream.send_all(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
            head = (await answer(stream)).lower()
            assert b"\r\nserver:" not in head
            assert b"\r\ndate:" in head


async def test_requests_go_on_in_the_time_of_grace() -> None:
    app = App()
    async with serving_app(app) as running, trio.open_nursery() as nursery:
        stream = await running.get("/long")
        await app.running.wait()
        nursery.start_soon(running.server.stop, 1000)
        await trio.testing.wait_all_tasks_blocked()
        assert not running.done.is_set()
        app.go_on.set()
        received = await until_closed(stream)
        assert b"last\n" in received
        assert received.endswith(b"0\r\n\r\n"), "the answer is complete"
        await running.done.wait()


@pytest.mark.parametrize(
    ("content_type", "line"),
    [
        (b"application/x-ndjson", LAST_LINE + b"\n"),
        (b"text/event-stream; charset=utf-8", b"data: " + LAST_LINE + b"\n\n"),
    ],
)
async def test_a_stream_that_is_cut_ends_with_the_error(content_type: bytes, line: bytes) -> None:
    app = App(content_type)
    async with serving_app(app) as running:
        stream = await running.get("/long")
        await app.running.wait()
        await running.server.stop(0)
        received = await until_closed(stream)
        assert b"first\n" in received
        assert received.endswith(line + b"\r\n0\r\n\r\n")
        assert app.ended.is_set()
        await running.done.wait()


async def test_a_request_without_an_answer_gets_503() -> None:
    app = App(begin=False)
    async with serving_app(app) as running:
        stream = await running.get("/long")
        await app.running.wait()
        await running.server.stop(0)
        received = await until_closed(stream)
        assert received.startswith(b"HTTP/1.1 503")
        assert received.endswith(b"\r\n\r\n" + LAST_LINE)
        assert app.ended.is_set()


async def test_a_body_of_another_kind_is_not_made_to_look_complete() -> None:
    app = App(b"application/octet-stream")
    async with serving_app(app) as running:
        stream = await running.get("/long")
        await app.running.wait()
        await running.server.stop(0)
        received = await until_closed(stream)
        assert LAST_LINE not in received
        assert not received.endswith(b"0\r\n\r\n")


async def test_a_client_that_does_not_read_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serving, "FLUSH_LIMIT", 0.01)
    sent = 0

    async def flood(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        nonlocal sent
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 4096, "more_body": True})
            sent += 1

    async with serving_app(flood) as running:
        client = socket.socket()
        client.connect(running.address)
        with client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            before = -1
            while sent != before or sent == 0:  # until the buffers are full
                before = sent
                await trio.sleep(0.02)
            await running.server.stop(0)
            await running.done.wait()


async def test_a_bug_in_one_connection_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving_app(App()) as running:
        good = await running.get("/short")
        await answer(good)
        with monkeypatch.context() as patch:

            async def broken(*_: object) -> None:
                raise RuntimeError("bug")

            patch.setattr(serving, "TCPServer", broken)
            with caplog.at_level(logging.ERROR, "ollamad"):
                bad = await running.connect()
                assert await until_closed(bad) in (b"", b"<reset>")
        assert "connection failed" in caplog.text
        await good.send_all(b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
        await answer(good)


async def test_a_quart_application_is_cut_like_any_other() -> None:
    from quart_trio import QuartTrio

    app = QuartTrio("test")
    running_stream = trio.Event()

    @app.get("/long")
    async def long() -> Any:
        async def lines() -> AsyncIterator[bytes]:
            yield b"first\n"
            running_stream.set()
            await trio.sleep_forever()

        return lines(), {"Content-Type": "application/x-ndjson"}

    async with serving_app(app) as running:
        stream = await running.get("/long")
        await running_stream.wait()
        await running.server.stop(0)
        received = await until_closed(stream)
        assert b"first\n" in received
        assert received.endswith(LAST_LINE + b"\n\r\n0\r\n\r\n")
        await running.done.wait()
