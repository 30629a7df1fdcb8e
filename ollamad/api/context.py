"""What a handler gets: the services, the request, and its body when it asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import trio

from ollamad.api.decoding import decode
from ollamad.errors import OllamadError, RequestCanceled

if TYPE_CHECKING:
    from ollamad.inference.services import Services

T = TypeVar("T", bound=msgspec.Struct)

#: Bodies beyond this many bytes are decoded in a thread, so that other streams go on meanwhile.
_LARGE_BODY = 1 << 20
#: The contract knows no limit. This one only keeps a request from taking the whole machine: what is
#: made of a body takes several times its size. Uploads are not kept in memory and have none.
_LARGEST_BODY = 1 << 30
#: Two at a time: more would only take the interpreter from the event loop, and hold more memory.
_DECODERS = trio.CapacityLimiter(2)


class Incoming:
    """The body of one request, read by whoever calls it first, as it arrives.

    ``receive`` is ASGI's. Nothing is read ahead: a slow reader slows the sender down.
    """

    __slots__ = ("_receive", "read")

    def __init__(self, receive: Callable[[], Awaitable[Any]], *, complete: bool) -> None:
        self._receive = receive
        #: Set when nothing is left of the body.
        self.read = trio.Event()
        if complete:
            self.read.set()

    @property
    def complete(self) -> bool:
        return self.read.is_set()

    async def chunk(self) -> bytes:
        """The next piece, empty at the end. Raises RequestCanceled when the client has gone."""
        while not self.read.is_set():
            message = await self._receive()
            if message["type"] != "http.request":
                raise RequestCanceled
            if not message.get("more_body", False):
                self.read.set()
            if message.get("body"):
                return bytes(message["body"])
        return b""


class Context:
    """One request. ``parameters`` are those of the route's path."""

    __slots__ = ("incoming", "parameters", "request_id", "scope", "services")

    def __init__(
        self,
        services: Services,
        scope: Any,
        incoming: Incoming,
        parameters: dict[str, str],
        request_id: str,
    ) -> None:
        self.services = services
        self.scope = scope
        self.incoming = incoming
        self.parameters = parameters
        self.request_id = request_id

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, for uploads. Raises RequestCanceled when the client has gone."""
        while chunk := await self.incoming.chunk():
            yield chunk

    async def body(self) -> bytes:
        """All of the body. Raises RequestCanceled when the client has gone, 413 beyond a GiB."""
        chunks = []
        size = 0
        while chunk := await self.incoming.chunk():
            chunks.append(chunk)
            size += len(chunk)
            if size > _LARGEST_BODY:
                raise OllamadError("http: request body too large", status=413)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def decode(self, type_: type[T]) -> T:
        """The body as a request. Raises BadRequest with the reference's text."""
        body = await self.body()
        if len(body) > _LARGE_BODY:
            return await trio.to_thread.run_sync(decode, type_, body, limiter=_DECODERS)
        return decode(type_, body)

    def header(self, name: str) -> str:
        """The first header called ``name`` (lower case), empty when there is none."""
        return first_header(self.scope, name.encode()) or ""


def first_header(scope: Any, name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None
