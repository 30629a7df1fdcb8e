"""A runner that is stopped while it works is found out; one that only thinks for long is not."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ollamad.runners import client as module
from ollamad.runners.address import UnixAddress
from ollamad.runners.client import RunnerClient

HEALTHY = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def runner(path: Path, *, healthy: bool, talks: bool) -> AsyncIterator[RunnerClient]:
    """It never ends an answer; ``talks``: but it goes on with it."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            asked = await stream.receive_some(4096)
            if asked.startswith(b"GET /health"):
                if healthy:
                    await stream.send_all(HEALTHY)
                await trio.sleep_forever()
            await stream.send_all(HEAD)
            while talks:
                await stream.send_all(b"1\r\n.\r\n")
                await trio.sleep(0.001)
            await trio.sleep_forever()
        except trio.BrokenResourceError:
            return

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(16)
        sock.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            yield RunnerClient(UnixAddress(str(path)), "")
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("healthy", "talks", "asked", "silent"),
    [
        (False, False, True, True),  # stopped, with a request
        (False, False, False, False),  # stopped, but nobody waits for it
        (True, False, True, False),  # thinks
        (False, True, True, False),  # too busy to tell how it is
    ],
)
async def test_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    healthy: bool,
    talks: bool,
    asked: bool,
    silent: bool,
) -> None:
    monkeypatch.setattr(module, "_VIGIL_S", 0.02)
    monkeypatch.setattr(module, "_CHECK_LIMIT_S", 0.05)
    found = trio.Event()

    async def watch(client: RunnerClient) -> None:
        await client.until_silent()
        found.set()

    async def ask(client: RunnerClient) -> None:
        async with client.stream("/completion", b"{}") as response:
            while await response.read_some():
                pass

    async with (
        runner(tmp_path / "sock", healthy=healthy, talks=talks) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch, client)
        if asked:
            nursery.start_soon(ask, client)
        with trio.move_on_after(5 if silent else 0.4):
            await found.wait()
        nursery.cancel_scope.cancel()
    assert found.is_set() == silent
