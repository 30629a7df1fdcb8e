"""Proxies for tests: HTTP (CONNECT, and plain requests whole) and SOCKS 5.

Names lead to ports of loopback, so that ``https://ollama.com`` and every other public name can be
served by a test. Nothing else is ever connected to.

    proxy = ForwardProxy({"r.test:80": server.port}, {"ollama.com:443": server.port}, authority)
    with in_thread(proxy):                                # of support.gateway
        environ = proxy.environ
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11
import trio

from support.tls import Authority, splice, terminate

_HOP = frozenset((b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive"))


@dataclass
class Passed:
    """One request to a proxy: ``target`` is ``host:port`` of a tunnel, else a URL."""

    method: str
    target: str
    headers: dict[str, str]


class _Server:
    def __init__(
        self,
        places: Mapping[str, int] | None = None,
        terminated: Mapping[str, int] | None = None,
        authority: Authority | None = None,
        *,
        user: str = "",
    ) -> None:
        """``places``: ``host:port`` to a port of loopback. Of ``terminated`` TLS ends here, with a
        certificate of ``authority`` for the host. ``user``: ``name:password`` that is wanted."""
        self.places = dict(places or {})
        self.terminated = dict(terminated or {})
        self.authority = authority
        self.user = user
        self.port = 0
        self.passed: list[Passed] = []

    async def serve(
        self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._client, listeners)
            task_status.started(self.port)

    async def _client(self, stream: trio.SocketStream) -> None:
        try:
            await self.client(stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass  # it left, or does not trust the certificate
        finally:
            await trio.aclose_forcefully(stream)

    async def client(self, stream: trio.SocketStream) -> None:
        raise NotImplementedError

    def knows(self, target: str) -> bool:
        return target in self.places or target in self.terminated

    async def tunnel(self, stream: trio.abc.Stream, target: str) -> None:
        if target in self.terminated:
            assert self.authority is not None, "TLS ends here, but nobody signs certificates"
            context = self.authority.context(target.rpartition(":")[0].strip("[]"))
            await terminate(stream, context, self.terminated[target])
            return
        async with await trio.open_tcp_stream("127.0.0.1", self.places[target]) as inner:
            await splice(stream, inner)


class ForwardProxy(_Server):
    """What ``HTTP_PROXY`` and ``HTTPS_PROXY`` name."""

    @property
    def environ(self) -> dict[str, str]:
        credentials = f"{self.user}@" if self.user else ""
        url = f"http://{credentials}127.0.0.1:{self.port}"
        return {"HTTP_PROXY": url, "HTTPS_PROXY": url}

    async def client(self, stream: trio.SocketStream) -> None:
        server = h11.Connection(h11.SERVER)
        request = await _next(server, stream)
        if not isinstance(request, h11.Request):
            return
        target = request.target.decode("latin-1")
        headers = {k.decode().lower(): v.decode("latin-1") for k, v in request.headers}
        self.passed.append(Passed(request.method.decode(), target, headers))
        wanted = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        if self.user and headers.get("proxy-authorization") != wanted:
            await _refuse(server, stream, 407)
        elif request.method == b"CONNECT" and self.knows(target):
            await stream.send_all(server.send(h11.Response(status_code=200, headers=[])) or b"")
            await self.tunnel(stream, target)
        elif request.method != b"CONNECT" and _place(target) in self.places:
            await self._forward(server, stream, request)
        else:
            await _refuse(server, stream, 502)

    async def _forward(
        self, server: h11.Connection, stream: trio.SocketStream, request: h11.Request
    ) -> None:
        """One request, one answer; the connection ends with it."""
        target = request.target.decode("latin-1")
        url = urlsplit(target)
        path = target.split(url.netloc, 1)[1] or "/"
        kept = [(k, v) for k, v in request.headers.raw_items() if k.lower() not in _HOP]
        upstream = h11.Connection(h11.CLIENT)
        async with await trio.open_tcp_stream("127.0.0.1", self.places[_place(target)]) as inner:
            head = h11.Request(
                method=request.method, target=path, headers=[*kept, (b"Connection", b"close")]
            )
            await inner.send_all(upstream.send(head) or b"")
            while isinstance(event := await _next(server, stream), h11.Data):
                await inner.send_all(upstream.send(h11.Data(bytes(event.data))) or b"")
            await inner.send_all(upstream.send(h11.EndOfMessage()) or b"")
            while data := await inner.receive_some(1 << 16):
                await stream.send_all(data)


class SocksProxy(_Server):
    """SOCKS 5; it resolves the names."""

    @property
    def environ(self) -> dict[str, str]:
        credentials = f"{self.user}@" if self.user else ""
        url = f"socks5://{credentials}127.0.0.1:{self.port}"
        return {"HTTP_PROXY": url, "HTTPS_PROXY": url}

    async def client(self, stream: trio.SocketStream) -> None:
        count = (await _exactly(stream, 2))[1]
        methods = await _exactly(stream, count)
        method = 2 if self.user else 0
        if method not in methods:
            await stream.send_all(b"\x05\xff")
            return
        await stream.send_all(bytes((5, method)))
        if self.user:
            user = await _exactly(stream, (await _exactly(stream, 2))[1])
            password = await _exactly(stream, (await _exactly(stream, 1))[0])
            wrong = f"{user.decode()}:{password.decode()}" != self.user
            # In two pieces, as networks may deliver it.
            await stream.send_all(b"\x01")
            await trio.lowlevel.checkpoint()
            await stream.send_all(bytes((int(wrong),)))
            if wrong:
                return
        *_, kind = await _exactly(stream, 4)
        if kind == 3:
            host = (await _exactly(stream, (await _exactly(stream, 1))[0])).decode()
        else:
            host = ".".join(map(str, await _exactly(stream, 4)))
        port = int.from_bytes(await _exactly(stream, 2), "big")
        target = f"{host}:{port}"
        self.passed.append(Passed("CONNECT", target, {}))
        known = self.knows(target)
        await stream.send_all(bytes((5, 0 if known else 4, 0, 1)) + bytes(6))
        if known:
            await self.tunnel(stream, target)


def _place(target: str) -> str:
    url = urlsplit(target)
    return f"{url.hostname}:{url.port or 80}"


async def _next(connection: h11.Connection, stream: trio.SocketStream) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some(1 << 16))
    return event


async def _refuse(connection: h11.Connection, stream: trio.SocketStream, status: int) -> None:
    response = h11.Response(
        status_code=status,
        reason={407: "Proxy Authentication Required", 502: "Bad Gateway"}[status],
        headers=[("Content-Length", "0"), ("Connection", "close")],
    )
    await stream.send_all(connection.send(response) or b"")


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise OSError("the client left")
        data += more
    return data
