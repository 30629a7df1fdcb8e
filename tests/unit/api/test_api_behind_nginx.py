"""A real nginx in front, with its default towards an upstream (HTTP/1.0) and with HTTP/1.1."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from ollamad.api.context import Context
from ollamad.api.responses import json_response, stream_response
from ollamad.api.routing import Route
from tests.unit.api.served import application, read_answer, served

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/bin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

CONFIGURATION = """
daemon off;
master_process off;
pid {root}/pid;
error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/fastcgi;
    uwsgi_temp_path {root}/uwsgi;
    scgi_temp_path {root}/scgi;
    client_max_body_size 0;
    server {{
        listen unix:{root}/socket;
        location / {{ proxy_pass http://127.0.0.1:{port}; proxy_buffering off; {more} }}
    }}
}}
"""


@asynccontextmanager
async def nginx(root: Path, port: int, more: str) -> AsyncIterator[Path]:
    configuration = root / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(root=root, port=port, more=more))
    assert NGINX is not None
    command = [NGINX, "-p", str(root), "-c", str(configuration), "-e", str(root / "error.log")]
    run = partial(trio.run_process, command, check=False, stderr=subprocess.DEVNULL)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(run)
        while not (root / "socket").exists():
            assert process.poll() is None, (root / "error.log").read_text()
            await trio.sleep(0.01)
        yield root / "socket"
        nursery.cancel_scope.cancel()


async def body_length(context: Context) -> Any:
    return json_response(len(await context.body()))


@pytest.mark.parametrize(
    "more", ["", 'proxy_http_version 1.1; proxy_set_header Connection "";'], ids=["1.0", "1.1"]
)
async def test_through_nginx(tmp_path: Path, more: str) -> None:
    go, cancelled = trio.Event(), trio.Event()

    async def items(forever: bool) -> Any:
        yield b"1\n"
        if forever:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.set()
        await go.wait()
        yield b"2\n"

    async def handler(context: Context) -> Any:
        return await stream_response(items((await context.body()) == b"forever"))

    app = application(Route("POST", "/api/chat", handler), Route("POST", "/api/show", body_length))
    async with served(app) as upstream, nginx(tmp_path, upstream.address[1], more) as socket:

        async def ask(head: bytes, body: bytes = b"") -> trio.SocketStream:
            stream = await trio.open_unix_socket(str(socket))
            length = b"Content-Length: %d\r\n" % len(body)
            await stream.send_all(head + b" HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n" + body)
            return stream

        for _ in range(3):
            assert (await read_answer(await ask(b"GET /api/version"))).body == b"ok"
        answer = await read_answer(await ask(b"POST /api/show", b"x" * 3_000_000))
        assert answer.body == b"3000000"
        assert (await read_answer(await ask(b"GET /nope"))).status == 404

        stream = await ask(b"POST /api/chat", b"{}")
        received = b""
        while b"1\n" not in received:  # the first line comes before the second is made
            received += await stream.receive_some(65536)
        go.set()
        while not received.endswith(b"0\r\n\r\n"):
            data = await stream.receive_some(65536)
            assert data
            received += data
        assert b"2\n" in received
        await stream.aclose()

        stream = await ask(b"POST /api/chat", b"forever")
        received = b""
        while b"1\n" not in received:
            received += await stream.receive_some(65536)
        await stream.aclose()
        await cancelled.wait()
