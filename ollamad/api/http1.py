"""Hypercorn's HTTP/1.1 protocol and ASGI stream, where the contract or the speed asks for more.

Differences from the base classes (http-api.md 1):

* refusals have the reference's texts; HTTP/2, h2c and WebSockets are not spoken;
* ``100 Continue`` goes out when the handler first reads the body, not before;
* a client that goes away is reported to the running handler by a call, not by a message in a queue,
  and a body that nobody reads cannot block the end of its answer;
* head and first piece of an answer leave in one write, and a piece of a stream is framed without a
  detour through objects: this is the path of every generated token.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ConnectionState

log = logging.getLogger(__name__)

#: Of the request's head, in bytes (1.4).
HEADER_LIMIT = (1 << 20) + 4096
#: Lines of the request's head. Each costs microseconds, and a megabyte may hold 300,000 of them.
LINE_LIMIT = 1000
_HEAD_END = re.compile(rb"\n\r?\n")
#: Pieces of a request's body that wait for their reader; each is at most one read of the socket.
_WAITING_PIECES = 4
#: How long, in seconds, a stalled client may hold up the last bytes of an answer.
_LAST_BYTES = 5
#: In the place of Hypercorn's wrapper around an application, which is not used.
_NO_APP: Any = None
#: Where a `Stream` is in the scope's extensions.
EXTENSION = "ollamad"
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_REFUSALS = {
    400: b"400 Bad Request",
    431: b"431 Request Header Fields Too Large",
    505: b"505 HTTP Version Not Supported: unsupported protocol version",
}
_MISSING_HOST = b"400 Bad Request: missing required Host header"

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
Write = Callable[[bytes], Awaitable[None]]


class Stream(HTTPStream):
    """One request and its answer; the application finds it in the scope's extensions."""

    def __init__(self, protocol: Http1) -> None:
        super().__init__(
            _NO_APP,
            protocol.config,
            protocol.context,
            protocol.task_group,
            False,
            protocol.client,
            protocol.server,
            protocol.stream_send,
            STREAM_ID,
        )
        self._on_disconnect: Callable[[], None] | None = None
        self._protocol = protocol
        self._suppressed = False
        self._messages: deque[Any] = deque()
        self._changed = trio.Event()

    def start(self, request: h11.Request, headers: list[tuple[bytes, bytes]]) -> None:
        """Run the application on ``request``."""
        path, _, query = request.target.partition(b"?")
        method = request.method.decode("ascii")
        self._suppressed = method == "HEAD"
        scope: Any = {
            "type": "http",
            "http_version": request.http_version.decode("ascii"),
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method,
            "scheme": self.scheme,
            "path": unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "state": {},
            "extensions": {EXTENSION: self},
        }
        self.scope = scope
        self.task_group.spawn(self._run)

    async def handle(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, Body):
            while len(self._messages) >= _WAITING_PIECES and not self.closed:
                await self._changed.wait()
            self._put({"type": "http.request", "body": bytes(event.data), "more_body": True})
        elif isinstance(event, EndBody):
            self._put({"type": "http.request", "body": b"", "more_body": False})
        elif isinstance(event, StreamClosed):
            self.closed = True
            self._put({"type": "http.disconnect"})
            if self.state is not ASGIHTTPState.CLOSED and self._on_disconnect is not None:
                self._on_disconnect()

    def when_left(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the client goes away before the end of the answer."""
        self._on_disconnect = call
        if self.closed:
            call()  # it left before its request came to run

    async def receive(self) -> Any:
        """ASGI's: the next piece of the body, then a disconnect."""
        await self._protocol.invite_body()
        while not self._messages:
            await self._changed.wait()
        message = self._messages.popleft()
        self._wake()
        return message

    async def app_send(self, message: Any) -> None:
        if self.closed and message is not None:
            # The client has gone and the handler is cancelled; here it notices at the latest.
            await trio.lowlevel.checkpoint()
            return
        if (
            message is not None
            and message["type"] == "http.response.body"
            and self.state is ASGIHTTPState.RESPONSE
            and message.get("more_body", False)
        ):
            body = message["body"]
            if body and not self._suppressed:
                await self._protocol.send_piece(body)
            return
        await super().app_send(message)

    async def _send_closed(self) -> None:
        await self.send(EndBody(stream_id=STREAM_ID))
        self.state = ASGIHTTPState.CLOSED
        await self.send(StreamClosed(stream_id=STREAM_ID))

    async def _send_error_response(self, status_code: int) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await self.send(Response(STREAM_ID, headers=headers, status_code=status_code))
        await self._send_closed()

    async def _run(self) -> None:
        try:
            await self._protocol.asgi(self.scope, self.receive, self.app_send)
        except Exception:
            log.exception("the application failed")
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_BYTES):
                await self.app_send(None)

    def _put(self, message: Any) -> None:
        self._messages.append(message)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Http1(H11Protocol):
    """One connection. ``write`` sends bytes and never raises because the client has gone."""

    stream: Stream | None

    def __init__(
        self,
        asgi: ASGIApp,
        config: Config,
        context: Any,
        task_group: Any,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Any], Awaitable[None]],
        write: Write,
    ) -> None:
        super().__init__(
            _NO_APP, config, context, task_group, ConnectionState({}), False, client, server, send
        )
        self.asgi = asgi
        self._write = write
        self._head = b""
        self._chunked = False
        self._refused = False
        self._head_lines = 0
        self._head_seen = b""

    @property
    def unread(self) -> bool:
        """Whether the client may be sending something that nobody will read."""
        return self._refused or self.connection.their_state is h11.SEND_BODY

    async def handle(self, event: Any) -> None:
        if self._refused:
            return
        if isinstance(event, RawData) and self._has_too_many_lines(event.data):
            await self._refuse(431, "")
        else:
            await super().handle(event)

    def _has_too_many_lines(self, data: bytes) -> bool:
        """Whether the head that goes on in ``data`` has more than `LINE_LIMIT` lines."""
        if self.connection.their_state is not h11.IDLE:
            return False  # a body; heads that come with its end are few, as reads are short
        data = self._head_seen + data
        end = _HEAD_END.search(data)
        self._head_lines += data.count(b"\n", len(self._head_seen), end.end() if end else len(data))
        too_many = self._head_lines > LINE_LIMIT
        # The end may be cut in two: its beginning is looked at once more.
        self._head_seen = b"" if end else data[-2:]
        if end:
            self._head_lines = 0
        return too_many

    async def stream_send(self, event: Event) -> None:
        if self._refused:
            return
        if isinstance(event, Response):
            self._begin(event)
        elif isinstance(event, EndBody):
            data = self._head + (self.connection.send(h11.EndOfMessage()) or b"")
            self._head = b""
            if data:
                await self._write(data)
        elif isinstance(event, StreamClosed):
            await self._maybe_recycle()

    async def send_piece(self, data: bytes) -> None:
        """A piece of the body; with the head when it is the first."""
        if self._refused:
            return
        if self._chunked:
            # What h11 would answer to h11.Data, which changes nothing in its state.
            framed = b"%x\r\n%b\r\n" % (len(data), data)
        else:
            framed = self.connection.send(h11.Data(data=data)) or b""
        if self._head:
            framed = self._head + framed
            self._head = b""
        await self._write(framed)

    async def invite_body(self) -> None:
        """``100 Continue`` for a client that waits for it."""
        if self.connection.they_are_waiting_for_100_continue and not self._refused:
            event = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            await self._write(self.connection.send(event) or b"")

    def _begin(self, response: Response) -> None:
        headers = [*response.headers, (b"date", _date())]
        if self.context.terminated.is_set():
            headers.append((b"connection", b"close"))
        event = h11.Response(
            status_code=response.status_code,
            headers=headers,
            reason=_REASONS.get(response.status_code, b""),
        )
        self._head = self.connection.send(event) or b""
        self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in self._head.lower()

    async def _handle_events(self) -> None:
        while True:
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint, str(error))
                return
            if isinstance(event, h11.Request):
                if event.method == b"PRI":
                    await self._refuse(400, "HTTP/2")
                    return
                if event.http_version not in (b"1.1", b"1.0"):
                    await self._refuse(505, "")
                    return
                headers = list(event.headers)
                if sum(len(name) + len(value) for name, value in headers) > HEADER_LIMIT:
                    # h11 does not count what comes with the end of the head.
                    await self._refuse(431, "")
                    return
                await self.send(Updated(idle=False))
                self.stream = Stream(self)
                self.stream.start(event, headers)
            elif event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif isinstance(event, h11.Data) and self.stream is not None:
                await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage) and self.stream is not None:
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
            else:
                return

    async def _refuse(self, status: int, why: str) -> None:
        """Answer what is not HTTP, unless an answer has begun, and close."""
        answering = self.stream is not None and self.stream.state is not ASGIHTTPState.REQUEST
        self._refused = True
        if self.stream is not None:
            await self.stream.handle(StreamClosed(stream_id=STREAM_ID))
        if not answering:
            body = _REFUSALS.get(status, _REFUSALS[400])
            if why == "HTTP/2":
                body = b""
            elif "Missing mandatory Host" in why:
                body = _MISSING_HOST
            reason = _REASONS.get(status, b"Bad Request")
            await self._write(
                b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"Content-Length: %d\r\nConnection: close\r\nDate: %b\r\nX-Request-Id: %b\r\n\r\n%b"
                % (status, reason, len(body), _date(), secrets.token_hex(8).encode(), body)
            )
        await self.send(Closed())


_dated: tuple[int, bytes] = (-1, b"")


def _date() -> bytes:
    """For the ``Date`` header, formatted once a second."""
    global _dated  # noqa: PLW0603 - one entry that all connections share
    second = int(time.time())
    if _dated[0] != second:
        _dated = (second, formatdate(second, usegmt=True).encode())
    return _dated[1]
