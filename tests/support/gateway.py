"""A reverse proxy under a test's control, the common part of the token server and the fault proxy.

It takes requests apart with h11 and passes targets, headers and bodies on as they are (``Host``
too, so that what is behind it makes URLs that lead back to it). Subclasses override ``handle``.
It lives on trio, in the test's own loop (``serving``) or in a thread (``in_thread``).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct
import sys
import termios
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

import h11
import trio

Headers = Sequence[tuple[str, str]]

_CHUNK = 65536
#: What may be under way in the kernel when a client leaves: small, so that "sent" means something.
_SEND_BUFFER = 65536
_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "upgrade", "expect"))
_BODY_LIMIT = 64 * 1024 * 1024
#: No answer of these methods' requests, and none with these statuses, has a body.
_BODILESS = frozenset((204, 304))


@dataclass
class Seen:
    """One request as it arrived, and what was done about it."""

    method: str
    target: str
    headers: dict[str, str]
    status: int = 0
    #: Bytes of bodies: from the client, to the client (taken by the kernel for sending).
    received: int = 0
    sent: int = 0
    #: What the gateway did on purpose, for the messages of failing tests.
    note: str = ""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    def __str__(self) -> str:
        ranged = self.headers.get("range", "")
        return (
            f"{self.method} {self.target} {ranged} -> {self.status} "
            f"{self.received} in {self.sent} out {self.note}"
        )


class Answer:
    """What is behind the gateway answers: ``headers`` without those of the connection."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: AsyncIterator[bytes]):
        self.status = status
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        return next((v for k, v in self.headers if k.lower() == name), None)


class Exchange:
    """One request of a client: the handler answers it, or ends the connection without."""

    def __init__(self, client: _Connection, seen: Seen, gateway: Gateway) -> None:
        self.seen = seen
        self.method = seen.method
        self.target = seen.target
        self.path = seen.path
        self.query = seen.query
        self.headers = seen.headers
        self._client = client
        self._gateway = gateway
        self._upstream: _Connection | None = None

    @property
    def host(self) -> str:
        return self.headers.get("host", "")

    # --- the request ------------------------------------------------------------------------------

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body of the request as it arrives."""
        if self._client.h11.they_are_waiting_for_100_continue:
            await self._client.send(h11.InformationalResponse(status_code=100, headers=[]))
        while True:
            event = await self._client.next()
            if not isinstance(event, h11.Data):
                return
            self.seen.received += len(event.data)
            yield bytes(event.data)

    async def body(self, limit: int = _BODY_LIMIT) -> bytes:
        parts = bytearray()
        async for chunk in self.chunks():
            parts += chunk
            if len(parts) > limit:
                raise ValueError("body too long")
        return bytes(parts)

    # --- what is behind ---------------------------------------------------------------------------

    async def ask_half(self, count: int) -> None:
        """Passes on the request with only the first ``count`` bytes of its body, and hangs up."""
        upstream = self._upstream = await self._gateway.connect()
        await upstream.send(self._head())
        async for chunk in self.chunks():
            await upstream.send(h11.Data(data=chunk[:count]))
            count -= len(chunk)
            if count <= 0:
                break
        await upstream.close()

    def _head(self) -> h11.Request:
        headers = [(k, v) for k, v in self._client.raw_headers if k.lower() not in _HOP]
        return h11.Request(
            method=self.method, target=self.target, headers=[*headers, *_framing(self)]
        )

    async def ask(self) -> Answer:
        """Passes the request on; the answer, whose body is still to be read."""
        upstream = self._upstream = await self._gateway.connect()
        try:
            await upstream.send(self._head())
            async for chunk in self.chunks():
                await upstream.send(h11.Data(data=chunk))
            await upstream.send(h11.EndOfMessage())
        except trio.BrokenResourceError:
            pass  # it may have answered before it had read everything
        while True:
            event = await upstream.next()
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse):
                raise trio.BrokenResourceError("no answer from behind the gateway")
        kept = [
            (k.decode("latin-1"), v.decode("latin-1"))
            for k, v in event.headers
            if k.lower().decode() not in _HOP
        ]
        return Answer(event.status_code, kept, upstream.data())

    # --- the answer -------------------------------------------------------------------------------

    async def start(self, status: int, headers: Headers = ()) -> None:
        self.seen.status = status
        await self._client.send(h11.Response(status_code=status, headers=list(headers)))

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), _CHUNK):
            piece = data[at : at + _CHUNK]
            await self._gateway.pace(len(piece))
            await self._client.send(h11.Data(data=piece))
            self.seen.sent += len(piece)

    async def end(self) -> None:
        await self._client.send(h11.EndOfMessage())

    async def answer(self, status: int, body: bytes = b"", headers: Headers = ()) -> None:
        await self.start(status, [*headers, ("Content-Length", str(len(body)))])
        if self.method != "HEAD" and status not in _BODILESS:
            await self.send(body)
        await self.end()

    async def forward(self) -> None:
        """Lets the request and its answer pass unchanged."""
        await self.relay(await self.ask())

    async def relay(self, answer: Answer) -> None:
        await self.start(answer.status, answer.headers)
        async for chunk in answer.body:
            await self.send(chunk)
        await self.end()

    async def gone(self, limit: float) -> bool:
        """Waits until the client leaves, at most ``limit`` seconds; whether it left."""
        with trio.move_on_after(limit):
            await self._client.gone()
            return True
        return False

    async def drop(self, *, reset: bool = False) -> None:
        """Closes the connection to the client now: in order (FIN), or with RST."""
        if reset:
            # What the kernel has not delivered yet is thrown away with the connection.
            self.seen.sent -= min(self.seen.sent, self._client.undelivered())
        await self._client.close(reset=reset)

    async def leave(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()


class Gateway:
    """Passes everything on to a server on loopback; ``seen`` tells what came.

    ``upstream`` is that server's port (None: there is none, for subclasses that answer all by
    themselves); ``rate`` limits the bytes a second of all answers together.
    """

    def __init__(self, upstream: int | None = None, *, rate: float | None = None) -> None:
        self.upstream = upstream
        self.rate = rate
        self.port = 0
        self.seen: list[Seen] = []
        self._free_at = 0.0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def handle(self, exchange: Exchange) -> None:
        """Answers a request. Not answering, or raising OSError, ends the connection."""
        await exchange.forward()

    def requests(self, method: str = "", part: str = "") -> list[Seen]:
        """What came with that method and with ``part`` in the target."""
        return [s for s in self.seen if s.method.startswith(method) and part in s.target]

    async def connect(self) -> _Connection:
        assert self.upstream is not None, "nothing is behind this gateway"
        return _Connection(await trio.open_tcp_stream("127.0.0.1", self.upstream), h11.CLIENT)

    async def pace(self, count: int) -> None:
        """Waits until ``count`` more bytes may be sent."""
        if self.rate is None:
            return
        now = trio.current_time()
        begin = max(now, self._free_at)
        self._free_at = begin + count / self.rate
        if self._free_at > now:
            await trio.sleep(self._free_at - now)

    async def serve(
        self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        for listener in listeners:
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.port = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, self._client, listeners)
            task_status.started(self.port)

    async def _client(self, stream: trio.SocketStream) -> None:
        connection = _Connection(stream, h11.SERVER)
        try:
            while await self._one(connection):
                pass
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass  # it left, or what is behind did: a client sees its connection end
        finally:
            await connection.close()

    async def _one(self, connection: _Connection) -> bool:
        """Serves one request; whether the connection can take another one."""
        request = await connection.next()
        if not isinstance(request, h11.Request):
            return False
        connection.raw_headers = [
            (k.decode("latin-1"), v.decode("latin-1")) for k, v in request.headers.raw_items()
        ]
        seen = Seen(
            request.method.decode(),
            request.target.decode("latin-1"),
            {k.lower(): v for k, v in connection.raw_headers},
        )
        self.seen.append(seen)
        exchange = Exchange(connection, seen, self)
        try:
            await self.handle(exchange)
        finally:
            await exchange.leave()
        return await connection.next_cycle()


class _Connection:
    """An h11 connection and its socket."""

    def __init__(self, stream: trio.SocketStream, role: type[h11.CLIENT | h11.SERVER]) -> None:
        self.stream = stream
        self.h11 = h11.Connection(role)
        self.raw_headers: list[tuple[str, str]] = []

    async def next(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self.h11.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.h11.receive_data(await self.stream.receive_some(_CHUNK))

    async def data(self) -> AsyncIterator[bytes]:
        while True:
            event = await self.next()
            if not isinstance(event, h11.Data):
                return
            yield bytes(event.data)

    async def send(self, event: h11.Event) -> None:
        data = self.h11.send(event)
        if data:
            await self.stream.send_all(data)

    async def gone(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await self.stream.receive_some(_CHUNK):
                self.h11.receive_data(data)

    async def next_cycle(self) -> bool:
        with suppress(h11.ProtocolError):
            # What nobody has read of a request would be taken for the next one.
            while self.h11.their_state is h11.SEND_BODY:
                await self.next()
            self.h11.start_next_cycle()
            return True
        return False

    def undelivered(self) -> int:
        """Bytes that were sent and that the other side has not acknowledged."""
        if sys.platform != "linux":
            return 0
        number = array.array("i", [0])
        with suppress(OSError):
            fcntl.ioctl(self.stream.socket.fileno(), termios.TIOCOUTQ, number, True)
        return number[0]

    async def close(self, *, reset: bool = False) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            if reset:
                linger = struct.pack("ii", 1, 0)
                self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            else:
                # So that bytes of the client that nobody has read do not make it a reset.
                self.stream.socket.shutdown(socket.SHUT_WR)
        with trio.CancelScope(shield=True):
            await self.stream.aclose()


def _framing(exchange: Exchange) -> Headers:
    """How the body of a passed-on request is delimited: as it was."""
    if "chunked" in exchange.headers.get("transfer-encoding", "").lower():
        return [("Transfer-Encoding", "chunked")]
    return []


@dataclass
class Stranger(Gateway):
    """A server that nobody should talk to, or should not tell secrets: answers all with ``status``
    and ``content``, and remembers what it was told."""

    status: int = 200
    content: bytes = b"{}"
    more: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(None)

    async def handle(self, exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(self.status, self.content, self.more)


G = TypeVar("G", bound=Gateway)


@asynccontextmanager
async def serving(*gateways: Gateway) -> AsyncIterator[None]:
    """They serve in this loop."""
    async with trio.open_nursery() as nursery:
        for gateway in gateways:
            await nursery.start(gateway.serve, gateway.port)
        yield
        nursery.cancel_scope.cancel()


@contextmanager
def in_thread(gateway: G) -> Iterator[G]:
    """It serves in a thread of its own."""
    ready = threading.Event()
    stop: list[trio.CancelScope] = []
    tokens: list[trio.lowlevel.TrioToken] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            stop.append(nursery.cancel_scope)
            tokens.append(trio.lowlevel.current_trio_token())
            await nursery.start(gateway.serve, gateway.port)
            ready.set()

    def run() -> None:
        try:
            trio.run(main)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name=type(gateway).__name__, daemon=True)
    thread.start()
    ready.wait(10)
    assert gateway.port, "the gateway did not start"
    try:
        yield gateway
    finally:
        with suppress(trio.RunFinishedError):
            tokens[0].run_sync_soon(stop[0].cancel)
        thread.join(10)
        assert not thread.is_alive(), "the gateway does not end"
