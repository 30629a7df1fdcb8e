"""Signed requests to the cloud: those of clients, passed on, and the daemon's own.

Source: registry-and-store.md 5.6, http-api.md 17.1. No redirect is followed: what the cloud answers
is the answer. Nothing is kept of a body that passes through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING

import trio

from ollamad.cloud_base import CloudBase
from ollamad.errors import Forbidden, OllamadError, Unauthorized
from ollamad.registry.addresses import ANY
from ollamad.registry.bodies import raw_pieces, read_body
from ollamad.registry.errors import TransportError
from ollamad.registry.http import Http
from ollamad.registry.identity import Identity
from ollamad.registry.keys import KeyUnavailable
from ollamad.registry.relayed import answered_headers, own_headers, sent_headers
from ollamad.registry.signing import cloud_message, signed_query

if TYPE_CHECKING:
    import httpx

#: What a disabled cloud cannot do, in the words of its refusals (http-api.md 16, 17.1.1).
NO_MODEL = "remote model is unavailable"
NO_DETAILS = "remote model details are unavailable"
NO_WEB_SEARCH = "web search is unavailable"
NO_WEB_FETCH = "web fetch is unavailable"


class Upstream:
    """An answer of the cloud on its way to a client. Close it in any case."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        #: Those that the client may see.
        self.headers = answered_headers(response.headers.raw)
        self._response = response

    def header(self, name: str) -> str:
        """The first header called ``name``, in whatever case; empty when there is none."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes, nothing read ahead. Raises TransportError when it breaks off."""
        async with raw_pieces(self._response) as pieces:
            async for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._response.aclose()


class Cloud:
    """The server at ``base``. ``disabled``: nothing may be asked of it."""

    def __init__(self, http: Http, identity: Identity, base: CloudBase, *, disabled: bool) -> None:
        self.http = http
        self.identity = identity
        self.base = base
        self.disabled = disabled

    def check(self, operation: str) -> None:
        """Raises Forbidden when the cloud is switched off; ``operation``: what cannot be."""
        if self.disabled:
            raise Forbidden(f"ollama cloud is disabled: {operation}")

    async def forward(
        self,
        method: str,
        path: str,
        query: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> Upstream:
        """A client's request, signed, and the beginning of its answer, whatever its status.

        ``path`` and ``query`` are as they stand in a URL, ``headers`` the client's. Raises
        Unauthorized without a usable key, OllamadError (502) when the cloud cannot be reached.
        """
        ts = self.identity.timestamp
        query = signed_query(query, ts)
        authorization = await self._authorization(method, path, query)
        sent = sent_headers(headers, authorization=authorization, has_body=bool(body))
        try:
            response = await self._send(method, path, query, sent, body)
        except TransportError as error:
            raise OllamadError(error.message, status=502) from error
        if response.status_code < 200:
            await response.aclose()
            raise OllamadError(f"the cloud answers {response.status_code}", status=502)
        return Upstream(response)

    async def read(
        self, method: str, path: str, body: bytes = b"", *, limit: int, timeout: float
    ) -> bytes:
        """What the daemon itself wants to know: the body of a 200.

        ``limit`` in bytes, ``timeout`` in seconds for all of it. Raises Forbidden, Unauthorized,
        and OllamadError for any other status and every failure.
        """
        self.check(NO_DETAILS)
        with trio.move_on_after(timeout):
            query = signed_query("", self.identity.timestamp)
            authorization = await self._authorization(method, path, query)
            headers = own_headers(authorization=authorization, has_body=bool(body))
            response = await self._send(method, path, query, headers, body)
            try:
                if response.status_code != 200:
                    raise OllamadError(f"the cloud answers {response.status_code} to {path}")
                return await read_body(response, limit)
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
        raise OllamadError(f"the cloud did not answer to {path} within {timeout:g} seconds")

    async def _authorization(self, method: str, path: str, query: str) -> str:
        try:
            key = await self.identity.key()
        except KeyUnavailable:
            raise Unauthorized(await self.identity.signin_url()) from None
        return key.authorization(cloud_message(method, path, query))

    async def _send(
        self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
    ) -> httpx.Response:
        # The base is the operator's choice, so it may well be on this machine.
        url = f"{self.base.url}{path}?{query}"
        return await self.http.send(method, url, headers, body, internal=ANY)
