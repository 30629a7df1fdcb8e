"""Requests over real sockets: HTTP/1.1, connections kept for the next one (registry-and-store 3.2).

httpcore speaks the protocol. Which connection may carry a request is decided here, because a kept
one may lead to a place that is too internal for the next request.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import httpcore
import httpx
import trio

from ollamad.proxies import Proxy
from ollamad.registry.addresses import ANY, AddressScope
from ollamad.registry.errors import BodyCut, ConnectFailed, TransportError
from ollamad.registry.http import SCOPE, Outgoing
from ollamad.registry.streams import Stream, connect
from ollamad.registry.tls import client_context
from ollamad.registry.tunnels import connect_socks, connect_tunnel, credentials

#: Seconds for which an unused connection is kept, and how many are.
KEPT = 90.0
_MOST_KEPT = 64
_MOST_KEPT_FOR_ONE = 16
_LONGEST_REASON = 200
#: Bytes of a piece of a body.
_SMALL = 4096
#: Asked again over a new connection when a kept one turns out to be closed.
_REPEATABLE = ("GET", "HEAD")


class _Way(NamedTuple):
    """What must be equal for a connection to be used again."""

    proxy: Proxy | None
    scheme: str
    host: str
    port: int


@dataclass(eq=False)
class _Connection:
    way: _Way
    stream: Stream
    http: httpcore.AsyncHTTP11Connection
    #: None behind a proxy: who answers is not known.
    scope: AddressScope | None
    used: bool = False

    @property
    def has_more(self) -> bool:
        """Whether bytes are there that nobody asked for: they would pass for the next answer."""
        return bool(self.http._h11_state.trailing_data[0])

    def serves(self, way: _Way, internal: AddressScope) -> bool:
        return self.way == way and (self.scope is None or self.scope <= internal)


class SocketTransport:
    """A `http.Transport`. ``environ`` names the certificates; proxies come with the requests."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._context: ssl.SSLContext | None = None
        self._kept: list[_Connection] = []

    async def send(self, request: Outgoing) -> httpx.Response:
        way = _Way(request.proxy, *request.url.origin)
        sent = _on_the_wire(request)
        while True:
            connection = await self._take(way, request.internal)
            if connection is None:
                connection = await self._open(request, way)
            was_used, connection.used = connection.used, True
            try:
                return await self._exchange(connection, request, sent)
            except _Closed:
                if not was_used or request.method not in _REPEATABLE:
                    raise TransportError("EOF", request=request.shown) from None

    async def sweep(self) -> None:
        """Close what was kept for too long, or is closed on the other side."""
        stale = [each for each in self._kept if each.http.has_expired()]
        self._kept = [each for each in self._kept if each not in stale]
        for connection in stale:
            await connection.http.aclose()

    async def aclose(self) -> None:
        kept, self._kept = self._kept, []
        for connection in kept:
            await connection.http.aclose()

    async def _take(self, way: _Way, internal: AddressScope) -> _Connection | None:
        await self.sweep()
        for connection in reversed(self._kept):
            if connection.serves(way, internal):
                self._kept.remove(connection)
                return connection
        return None

    async def _give_back(self, connection: _Connection) -> None:
        same = sum(each.way == connection.way for each in self._kept)
        full = len(self._kept) >= _MOST_KEPT or same >= _MOST_KEPT_FOR_ONE
        if connection.http.is_idle() and not full and not connection.has_more:
            self._kept.append(connection)
        else:
            await connection.http.aclose()

    async def _open(self, request: Outgoing, way: _Way) -> _Connection:
        try:
            with trio.fail_after(request.connect_timeout):
                stream = await self._connected(request)
        except trio.TooSlowError:
            cause = f"dial tcp {request.url.authority}: i/o timeout"
            raise ConnectFailed(cause, request=request.shown) from None
        except TransportError as error:
            raise ConnectFailed(error.cause, request=request.shown) from error
        except httpcore.WriteError:
            raise ConnectFailed("EOF", request=request.shown) from None
        origin = httpcore.Origin(way.scheme.encode(), way.host.encode(), way.port)
        http = httpcore.AsyncHTTP11Connection(origin, stream, keepalive_expiry=KEPT)
        return _Connection(way, stream, http, None if way.proxy else stream.link.scope)

    async def _connected(self, request: Outgoing) -> Stream:
        url, proxy = request.url, request.proxy
        if proxy is None:
            stream = await connect(url.host, url.port, request.internal)
        else:
            stream = await connect(proxy.host, proxy.port, ANY)
        try:
            if proxy is not None and proxy.scheme == "https":
                stream = await stream.start_tls(await self._tls(), proxy.host)
            if proxy is not None and proxy.scheme.startswith("socks5"):
                await connect_socks(stream, proxy, url.host, url.port)
            elif proxy is not None and url.scheme == "https":
                await connect_tunnel(stream, proxy, url.host, url.port)
            if url.scheme == "https":
                stream = await stream.start_tls(await self._tls(), url.host)
        except BaseException:
            await stream.aclose()
            raise
        return stream

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await trio.to_thread.run_sync(client_context, self._environ)
        return self._context

    async def _exchange(
        self, connection: _Connection, request: Outgoing, sent: httpcore.Request
    ) -> httpx.Response:
        stream = connection.stream
        stream.expect_head()
        try:
            response = await connection.http.handle_async_request(sent)
        except httpcore.RemoteProtocolError as error:
            if stream.ended:
                raise _Closed from None
            cause = f"malformed HTTP response: {error}"[:_LONGEST_REASON]
            raise TransportError(cause, request=request.shown) from None
        except httpcore.LocalProtocolError:
            # Its text would tell the header, which may be a token.
            raise TransportError("invalid header in the request", request=request.shown) from None
        except TransportError as error:
            if connection.used and "reset" in error.cause:
                raise _Closed from error
            raise TransportError(error.cause, request=request.shown) from error
        stream.head_complete()
        body = _Body(self, connection, response)
        extensions = {} if connection.scope is None else {SCOPE: connection.scope}
        return httpx.Response(
            response.status, headers=response.headers, stream=body, extensions=extensions
        )


class _Closed(Exception):
    """The connection ended before any answer."""


class _Body(httpx.AsyncByteStream):
    """A body as it comes. Its connection is kept when it was read to its end."""

    def __init__(
        self, transport: SocketTransport, connection: _Connection, response: httpcore.Response
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._response = response
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.aiter_stream():
                yield piece
                if len(piece) < _SMALL:
                    # Thousands of them come with one read, and others want to run meanwhile.
                    await trio.lowlevel.checkpoint()
        except httpcore.RemoteProtocolError as error:
            if self._connection.stream.ended:
                raise BodyCut from None
            raise TransportError(f"malformed HTTP response: {error}"[:_LONGEST_REASON]) from None

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._response.aclose()
                await self._transport._give_back(self._connection)


def _on_the_wire(request: Outgoing) -> httpcore.Request:
    url = request.url
    headers = [("Host", url.authority), *request.headers]
    names = {name.lower() for name, _ in headers}
    sized = isinstance(request.content, bytes)
    if not names & {"content-length", "transfer-encoding"}:
        if not sized:
            headers.append(("Transfer-Encoding", "chunked"))
        elif request.content or request.method in ("POST", "PUT", "PATCH"):
            headers.append(("Content-Length", str(len(request.content))))  # type: ignore[arg-type]
    target = url.target
    if request.proxy is not None and url.scheme == "http" and request.proxy.scheme in _FORWARDING:
        target = str(url)
        headers += credentials(request.proxy)
    try:
        encoded = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    except UnicodeEncodeError:
        raise TransportError("invalid header in the request", request=request.shown) from None
    return httpcore.Request(
        request.method.encode(),
        httpcore.URL(
            scheme=url.scheme.encode(),
            host=url.host.encode(),
            port=url.port,
            target=target.encode(),
        ),
        headers=encoded,
        content=request.content,
    )


#: Proxies to which a plain request is sent whole.
_FORWARDING = ("http", "https")
