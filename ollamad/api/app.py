"""The ASGI application: every request passes the router and the guard, then goes to its handler.

Order (http-api.md 1 and 2): redirects, origin, host, 404 and 405, handler. The connection and the
responses are Quart's; its sessions, signals, hooks and second routing, which nothing here uses, are
left out: they cost a fifth of what the daemon adds to the time to a first token. Under
`ollamad.api.server.Server` a client that goes away cancels its handler at once; under another ASGI
server a task watches for it.
"""

from __future__ import annotations

import logging
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trio
from quart.utils import encode_headers
from quart.wrappers.response import DataBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection

from ollamad.api.context import Context, Incoming, first_header
from ollamad.api.guard import Guard, Origins
from ollamad.api.http1 import EXTENSION
from ollamad.api.responses import (
    AnswerCut,
    Response,
    StreamBody,
    empty_response,
    error_response,
)
from ollamad.api.routes import ROUTES
from ollamad.api.routing import Handler, Match, Redirect, Route, Router, Unrouted
from ollamad.errors import OllamadError
from ollamad.store.errors import os_error_text

if TYPE_CHECKING:
    from ollamad.inference.services import Services

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: A body that nobody read is skipped up to this size; beyond it the connection is closed.
_SKIPPED_BODY = 256 * 1024
#: How long, in seconds, a stalled client may hold up the last bytes of an answer.
_LAST_BYTES = 5

Send = Callable[[Any], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]
Headers = list[tuple[bytes, bytes]]


def create_app(
    services: Services,
    *,
    checks_host: bool = True,
    routes: Iterable[Route] = ROUTES,
) -> Application:
    """The application over ``services``.

    ``checks_host``: whether only names of this machine are accepted in the Host header, which is
    for loopback listeners. Raises UsageError for bad origins in the settings.
    """
    guard = Guard(
        Origins(services.settings.origins),
        checks_host=checks_host,
        hostname=socket.gethostname(),
        own_addresses=own_addresses,
    )
    return Application(services, guard, Router(routes))


def own_addresses() -> list[str]:
    """The addresses of this machine's interfaces."""
    import psutil  # noqa: PLC0415 - only for requests that name such an address

    families = (socket.AF_INET, socket.AF_INET6)
    interfaces = psutil.net_if_addrs().values()
    return [each.address for found in interfaces for each in found if each.family in families]


class Application(QuartTrio):
    """Quart with the contract's answers for everything that is not a handler's."""

    def __init__(self, services: Any, guard: Guard, router: Router) -> None:
        super().__init__("ollamad.api", static_folder=None)
        self.services = services
        self.guard = guard
        self.router = router
        self.running: set[Exchange] = set()
        self.asgi_http_class = Exchange  # type: ignore[assignment]
        self.config.update(MAX_CONTENT_LENGTH=None, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)

    def cut(self, error: OllamadError) -> None:
        """End all running requests now: with ``error`` as their answer or last line."""
        for exchange in list(self.running):
            exchange.cut(error)


def answer_to(error: Exception) -> Response:
    """The answer of a request whose handler raised ``error``."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # of a handler with a nursery
    if isinstance(error, OllamadError):
        return error_response(error)
    if isinstance(error, OSError):
        # The disk is full, a name too long for it, a file not ours to read: no fault of the code.
        text = os_error_text("open" if error.filename else "write", error)
        log.warning("the system refused", extra={"error": text})
        return error_response(OllamadError(text))
    log.error("a handler failed", exc_info=error)
    return empty_response(500)


class Exchange(TrioASGIHTTPConnection):
    """One request and its answer."""

    app: Application

    def __init__(self, app: Application, scope: Any) -> None:
        super().__init__(app, scope)
        self.context: Context
        self._cancel_scope = trio.CancelScope()
        self._cut_with: OllamadError | None = None
        self._headers: Headers = []
        self._started = False
        self._stream: StreamBody | None = None

    async def __call__(self, receive: Receive, send: Send) -> None:
        scope: Any = self.scope
        request_id = _request_id(first_header(scope, b"x-request-id"))
        self._headers.append((b"x-request-id", request_id.encode()))
        path = _path(scope)
        incoming = Incoming(receive, complete=not _has_body(scope))
        found = self.app.router.resolve(scope["method"], path)
        self.context = Context(
            self.app.services,
            scope,
            incoming,
            found.parameters if isinstance(found, Match) else {},
            request_id,
        )
        answer = self._answer_without_handler(found)
        if answer is not None:
            await self._send_response(send, answer)
        else:
            assert isinstance(found, Match)
            self.app.running.add(self)
            try:
                await self._run(found.route.handler, receive, send)
            finally:
                self.app.running.discard(self)

    def cut(self, error: OllamadError) -> None:
        self._cut_with = error
        self._cancel_scope.cancel()

    def _answer_without_handler(self, found: Match | Redirect | Unrouted) -> Response | None:
        scope = self.scope
        method = scope["method"]
        if isinstance(found, Redirect):
            return _redirect(found, method, scope["query_string"])
        host = first_header(scope, b"host") or ""
        verdict = self.app.guard.judge(method, host, first_header(scope, b"origin"))
        self._headers += verdict.headers
        if verdict.status is None and isinstance(found, Match):
            return None
        allow = () if isinstance(found, Match) else found.allow
        if verdict.status is not None:
            answer = empty_response(verdict.status)
        elif allow:
            answer = Response("405 method not allowed", 405, content_type="text/plain")
        else:
            answer = Response("404 page not found", 404, content_type="text/plain")
        if allow and verdict.status != 403:
            answer.headers["Allow"] = ", ".join(allow)
        return answer

    async def _run(self, handler: Handler, receive: Receive, send: Send) -> None:
        link: Any = self.scope["extensions"].get(EXTENSION)
        if link is not None:
            link.when_left(self._cancel_scope.cancel)
            with self._cancel_scope:
                await self._answer(handler, send)
        else:
            async with trio.open_nursery() as nursery:
                self._cancel_scope = nursery.cancel_scope
                nursery.start_soon(self._watch, receive)
                await self._answer(handler, send)
                nursery.cancel_scope.cancel()
        if self._cut_with is not None and self._cancel_scope.cancelled_caught:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_BYTES):
                await self._send_cut(send, self._cut_with)

    async def _watch(self, receive: Receive) -> None:
        """Cancel when the client goes away; its body belongs to the handler until it is read."""
        await self.context.incoming.read.wait()
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel_scope.cancel()

    async def _answer(self, handler: Handler, send: Send) -> None:
        try:
            response = await handler(self.context)
        except Exception as error:  # noqa: BLE001 - it is logged where it is no answer itself
            response = answer_to(error)
        await self._send_response(send, response)

    async def _send_response(self, send: Send, response: Any) -> None:
        if response.status_code == 204:
            response.headers.pop("Content-Length", None)
        headers = encode_headers(response.headers) + self._headers
        body = response.response
        # Entered before anything can fail or be cancelled: a stream has begun and holds its lease.
        async with body as items:
            if not await self._skipped_body():
                headers.append((b"connection", b"close"))
            await send(
                {"type": "http.response.start", "status": response.status_code, "headers": headers}
            )
            self._started = True
            if isinstance(body, DataBody):
                if body.data:
                    await send({"type": "http.response.body", "body": body.data, "more_body": True})
            else:
                self._stream = body if isinstance(body, StreamBody) else None
                try:
                    async for item in items:
                        await send({"type": "http.response.body", "body": item, "more_body": True})
                except AnswerCut:
                    return  # an answer without an end: the server closes the connection
        await self._send_end(send)

    async def _send_end(self, send: Send) -> None:
        # Sending the end makes a server report the disconnect before it has closed the connection;
        # a cancellation in between would leave it open.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_BYTES):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_cut(self, send: Send, error: OllamadError) -> None:
        if not self._started:
            await self._send_response(send, error_response(error))
        elif self._stream is not None:
            item = self._stream.error_item(error)
            await send({"type": "http.response.body", "body": item, "more_body": True})
            await self._send_end(send)

    async def _skipped_body(self) -> bool:
        """Read what is left of the request's body; False when that is too much to bother."""
        incoming = self.context.incoming
        if incoming.complete:
            return True
        if self._cut_with is not None:
            return False  # there is no time to wait for it
        if first_header(self.scope, b"expect") is not None:
            return False  # it is not being sent unless it is asked for
        length = first_header(self.scope, b"content-length")
        if length is not None and int(length) > _SKIPPED_BODY:
            return False
        skipped = 0
        try:
            while chunk := await incoming.chunk():
                skipped += len(chunk)
                if skipped > _SKIPPED_BODY:
                    return False
        except OllamadError:
            return False  # the client has gone
        return True


def _request_id(given: str | None) -> str:
    """The client's own when it is a harmless one, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _has_body(scope: Any) -> bool:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return bool(value.strip(b"0"))
        if name == b"transfer-encoding":
            return True
    return False


def _path(scope: Any) -> str:
    """The decoded path; of an absolute-form target only its path."""
    path: str = scope["path"]
    if not path.startswith("/"):
        _, _, rest = path.partition("://")
        _, slash, path = rest.partition("/")
        path = slash + path
    return path or "/"


def _redirect(found: Redirect, method: str, query: bytes) -> Response:
    location = quote(found.path, safe="/!$&'()*+,;=:@~")
    if query:
        location += f"?{query.decode('latin-1')}"
    body = ""
    if method == "GET":
        phrase = "Moved Permanently" if found.status == 301 else "Temporary Redirect"
        body = f'<a href="{escape(location)}">{phrase}</a>.\n\n'
    response = Response(body, found.status, content_type="text/html; charset=utf-8")
    if method not in ("GET", "HEAD"):
        del response.headers["Content-Type"]
    response.headers["Location"] = location
    return response
