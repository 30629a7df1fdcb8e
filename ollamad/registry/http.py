"""The daemon's only way out: requests to registries and to ollama.com (registry-and-store 3.2, 6).

No redirect is followed here, no cookie kept, no credential added. What is heavy (httpx, TLS) loads
with the first request: most daemons never send one.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeAlias, cast

import trio

from ollamad.proxies import Proxy, proxy_for
from ollamad.registry.addresses import ANY, AddressRefused, AddressScope, scope_of_host
from ollamad.registry.errors import TransportError
from ollamad.registry.urls import BadUrl, Url, parse_url
from ollamad.version import user_agent

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

#: A body in one piece, or in pieces that are asked for when they are sent.
Content: TypeAlias = bytes | AsyncIterable[bytes]
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

CONNECT_TIMEOUT = 30.0
_SWEEPING = 30.0
#: Key of ``httpx.Response.extensions``: the `AddressScope` of who answered; missing behind a proxy.
SCOPE = "ollamad.scope"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request as a transport gets it. ``headers`` are complete but for framing and Host."""

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...]
    content: Content
    #: The connection may lead to nothing more internal than this.
    internal: AddressScope
    #: Seconds for name, connection and TLS together.
    connect_timeout: float
    proxy: Proxy | None

    @property
    def shown(self) -> str:
        """``Get "<url>"``, what stands before the cause of a failure."""
        return f'{self.method.capitalize()} "{self.url.shown}"'


class Transport(Protocol):
    """What carries requests: the real one is in ``registry.transport``; tests have others."""

    async def send(self, request: Outgoing) -> httpx.Response:
        """The answer, its body still to be read. Raises TransportError and AddressRefused."""

    async def sweep(self) -> None:
        """Close connections that were kept for too long."""

    async def aclose(self) -> None:
        """Close what is open."""


class Http:
    """One for the daemon's life: ``async with http: …``. Several tasks may send at once."""

    def __init__(self, connect: Callable[[], Transport], environ: Mapping[str, str]) -> None:
        """``connect`` makes the transport; it is called in a thread, with the first request."""
        self._connect = connect
        self._environ = dict(environ)
        self._transport: Transport | None = None
        self._connecting = trio.Lock()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Http:
        """The real thing, with the proxies and certificates that ``environ`` names."""
        environ = dict(environ)

        def connect() -> Transport:
            module = importlib.import_module("ollamad.registry.transport")
            return cast(Transport, module.SocketTransport(environ))

        return cls(connect, environ)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            with trio.CancelScope(shield=True):
                await self._transport.aclose()
            self._transport = None

    async def sweep(self) -> NoReturn:
        """A task for the daemon's life: what was kept and not used again is closed in time."""
        while True:
            await trio.sleep(_SWEEPING)
            if self._transport is not None:
                await self._transport.sweep()

    async def send(
        self,
        method: str,
        url: str,
        headers: Headers = (),
        content: Content = b"",
        *,
        internal: AddressScope = ANY,
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> httpx.Response:
        """One request, one answer, whose body the caller reads (``aiter_raw``) and closes.

        ``url`` goes out byte for byte; ``headers`` replace the default User-Agent. ``content`` in
        pieces needs a ``Content-Length`` among the headers, or is sent in chunks. Raises
        TransportError, also from reading the body, and `addresses.AddressRefused`.
        """
        sent = _with_agent(headers.items() if isinstance(headers, Mapping) else headers)
        try:
            parsed = parse_url(url)
        except BadUrl as error:
            raise TransportError(f"{method.capitalize()}: {error}") from None
        proxy = proxy_for(parsed.scheme, parsed.host, parsed.port, self._environ)
        # What a proxy resolves is not seen here: only what the URL itself says can be judged.
        if proxy is not None and scope_of_host(parsed.host) > internal:
            raise AddressRefused(parsed.host, parsed.host)
        request = Outgoing(method, parsed, sent, content, internal, connect_timeout, proxy)
        transport = self._transport or await self._connected()
        return await transport.send(request)

    async def _connected(self) -> Transport:
        async with self._connecting:
            if self._transport is None:
                self._transport = await trio.to_thread.run_sync(self._connect)
            return self._transport


def _with_agent(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    sent = tuple(headers)
    if any(name.lower() == "user-agent" for name, _ in sent):
        return sent
    return (("User-Agent", user_agent()), *sent)
