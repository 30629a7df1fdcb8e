"""One operation against one repository: requests, tokens, redirects (registry-and-store 3.2, 5.4).

The token lives as long as the `Session`, which is one pull or one push; so does the judgement how
internal the registry is, and with it how internal the places may be to which it leads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import trio

from ollamad.errors import quoted
from ollamad.registry.addresses import ANY, AddressRefused, AddressScope, scope_of_host
from ollamad.registry.bodies import discard, read_body, read_start
from ollamad.registry.challenge import chosen, parse_challenge, realm_url, token_origins
from ollamad.registry.errors import (
    LONGEST_ERROR_BODY,
    AccessDenied,
    Refused,
    RegistryError,
    RegistryNotFound,
    TransportError,
    status_error,
)
from ollamad.registry.http import SCOPE, Content, Http
from ollamad.registry.keys import SigningKey
from ollamad.registry.redirects import (
    MOST_REQUESTS,
    STATUSES,
    is_redirect,
    located,
    refuse_downgrade,
    target,
)
from ollamad.registry.signing import token_message, token_url
from ollamad.registry.urls import BadUrl, Url, parse_url
from ollamad.store.names import Name

if TYPE_CHECKING:
    import httpx

#: The largest manifest, decoded or not.
LARGEST_MANIFEST = 16 * 1024 * 1024
_LARGEST_TOKEN = 64 * 1024
#: Seconds. A registry may have to put gigabytes together before it answers; a body then flows, and
#: those that are read whole are small.
_ANSWER_LIMIT = 600.0
_BODY_LIMIT = 600.0
_STALL = 60.0

#: Names and values; a name may come more than once.
Fields: TypeAlias = Iterable[tuple[str, str]]
#: The credential for a server, or None.
_Authorize: TypeAlias = Callable[[Url], str | None]


class Answer(NamedTuple):
    """A complete answer. ``url`` is the one that gave it, after redirects; ``body`` is decoded."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: str


class Session:
    """See the module. Several tasks may use one at once; they share its token."""

    def __init__(
        self,
        http: Http,
        name: Name,
        *,
        insecure: bool,
        load_key: Callable[[], SigningKey],
        now: Callable[[], float] = time.time,
        nonce: Callable[[], bytes] = lambda: secrets.token_bytes(16),
    ) -> None:
        """``load_key`` runs in a thread, for each token; ``nonce`` gives 16 random bytes."""
        self.name = name
        self.insecure = insecure
        #: The token of this operation, empty until a registry asked for one.
        self.token = ""
        #: How internal the registry turned out to be.
        self.scope: AddressScope | None = None
        self._http = http
        self._load_key = load_key
        self._now = now
        self._nonce = nonce
        self._refreshing = trio.Lock()

    @property
    def host(self) -> str:
        return self.name.host

    @property
    def base(self) -> str:
        """``scheme://host`` of the registry; plain http when ``insecure``."""
        return f"{'http' if self.insecure else self.name.scheme}://{self.name.host}"

    def url(self, path: str) -> str:
        """Of a path below the repository, such as ``manifests/latest``."""
        return f"{self.base}/v2/{self.name.repository}/{path}"

    def check_scheme(self) -> None:
        """Raise RegistryError for a name that says http without ``insecure`` (1.6)."""
        if self.name.scheme == "http" and not self.insecure:
            raise RegistryError("insecure protocol http")

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Fields = (),
        content: bytes = b"",
        limit: int = LARGEST_MANIFEST,
    ) -> Answer:
        """The "request with retry" of 3.2: redirects followed, a token fetched when asked for.

        Any status below 400 is a success. Raises RegistryNotFound for 404, AccessDenied for a
        second 401, RegistryError with ``<status>: <body>`` for the rest of 400 and above, Refused,
        TooLong, TransportError, KeyUnavailable.
        """
        fields = list(headers)
        names = {name.lower() for name, _ in fields}
        if method != "HEAD" and not names & {"range", "accept-encoding"}:
            fields.append(("Accept-Encoding", "gzip"))
        parsed = _parsed(method, url)

        async def send() -> tuple[httpx.Response, Url]:
            return await self._follow(method, parsed, fields, content, self._bearer, _ANSWER_LIMIT)

        response, where = await self._with_token(url, send)
        try:
            await _check_status(response)
            body = (
                b"" if method == "HEAD" else await read_body(response, limit, _STALL, _BODY_LIMIT)
            )
            return Answer(response.status_code, response.headers, body, str(where))
        finally:
            await _close(response)

    async def direct_url(self, url: str) -> str:
        """Where the bytes of a blob are, found by one GET whose body is not read (3.5.5).

        The caller repeats it after an error. Raises as `request`, and RegistryError for a status
        or a redirect that tells no place.
        """
        parsed = _parsed("GET", url)
        fields = [("Accept-Encoding", "identity")]

        async def send() -> tuple[httpx.Response, Url]:
            return await self._stay(parsed, fields)

        response, where = await self._with_token(url, send)
        try:
            await _check_status(response)
            status, location = response.status_code, response.headers.get("location")
        finally:
            await _close(response)
        if status not in (200, *STATUSES):
            raise RegistryError(f"unexpected status code {status}")
        if location is None:
            if status == 200:
                return str(where)
            raise RegistryError("http: no Location header in response")
        found = located(where, location)
        refuse_downgrade(where, found, self._registry, insecure=self.insecure)
        return str(found)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Fields = (),
        content: Content = b"",
        follow: bool,
        authorized: bool = True,
    ) -> AsyncIterator[httpx.Response]:
        """One attempt; the answer's body is streamed (``aiter_raw``), its status for the caller.

        The token goes along only to the registry itself, and not at all unless ``authorized``.
        With ``follow`` redirects are followed; ``content`` in pieces is then iterated once for
        each. Waits as long as it takes. Raises Refused and TransportError.
        """
        fields = list(headers)
        if not any(name.lower() == "accept-encoding" for name, _ in fields):
            fields.append(("Accept-Encoding", "identity"))
        parsed = _parsed(method, url)
        authorize = self._bearer if authorized else _nothing
        if follow:
            response, _ = await self._follow(method, parsed, fields, content, authorize)
        else:
            response = await self._send(method, parsed, fields, content, authorize)
        try:
            yield response
        finally:
            await _close(response)

    def led_to(self, url: str, location: str) -> str:
        """Where ``location``, of an answer of ``url``, leads; byte for byte if it is a whole URL.

        Raises Refused for a way from https to http, TransportError for what is no URL.
        """
        at = _parsed("GET", url)
        found = located(at, location)
        refuse_downgrade(at, found, self._registry, insecure=self.insecure)
        return str(found)

    async def refresh_token(
        self, www_authenticate: str, url: str, *, rejected: str | None = None
    ) -> None:
        """Fetch a token as a 401 of ``url`` asks for it (5.4), and keep it.

        ``rejected``: the token that was refused; if another task has replaced it meanwhile, that
        one is good enough. Raises RegistryError, Refused, TransportError, KeyUnavailable.
        """
        asked = _parsed("GET", url)
        if asked.origin != self._registry.origin:
            # Nobody else's realm gets a signature, and nobody else gets the token.
            raise AccessDenied
        challenge = parse_challenge(www_authenticate)
        realm = realm_url(challenge.realm, asked, insecure=self.insecure)
        async with self._refreshing:
            if rejected is None or self.token == rejected:
                self.token = await self._fetch_token(realm, challenge.service, challenge.scope)

    @property
    def _registry(self) -> Url:
        return _parsed("GET", self.base)

    def _bearer(self, url: Url) -> str | None:
        if not self.token or url.origin not in token_origins(self._registry):
            return None
        return f"Bearer {self.token}"

    async def _with_token(
        self, url: str, send: Callable[[], Awaitable[tuple[httpx.Response, Url]]]
    ) -> tuple[httpx.Response, Url]:
        """The first answer that is not 401, after at most one new token."""
        asked = _parsed("GET", url)
        for _ in range(2):
            used = self.token
            response, where = await send()
            if response.status_code != 401 or asked.origin != self._registry.origin:
                return response, where
            header = chosen(response.headers.get_list("www-authenticate"))
            await discard(response)
            await self.refresh_token(header, url, rejected=used)
        raise AccessDenied

    async def _fetch_token(self, realm: Url, service: str, scope: str) -> str:
        url = token_url(str(realm), service, scope, ts=int(self._now()), nonce=self._nonce())
        key = await trio.to_thread.run_sync(self._load_key, abandon_on_cancel=True)
        authorization = key.authorization(token_message(url))
        parsed = _parsed("GET", url)

        def authorize(at: Url) -> str | None:
            return authorization if at.origin == parsed.origin else None

        fields = [("Accept-Encoding", "gzip")]
        response, _ = await self._follow("GET", parsed, fields, b"", authorize, _ANSWER_LIMIT)
        try:
            if response.status_code >= 400:
                text = await read_start(response, LONGEST_ERROR_BODY, _STALL, _BODY_LIMIT)
                error = f": {text.decode('utf-8', 'replace')}" if text else ""
                raise RegistryError(f"{response.status_code}{error}", code=response.status_code)
            return _token(await read_body(response, _LARGEST_TOKEN, _STALL, _BODY_LIMIT))
        finally:
            await _close(response)

    async def _follow(
        self,
        method: str,
        url: Url,
        fields: Fields,
        content: Content,
        authorize: _Authorize,
        limit: float = float("inf"),
    ) -> tuple[httpx.Response, Url]:
        """The answer at the end of the redirects, and who gave it."""
        for _ in range(MOST_REQUESTS):
            response = await self._send(method, url, fields, content, authorize, limit)
            status, location = response.status_code, response.headers.get("location")
            if location is None or not is_redirect(status, location):
                return response, url
            await discard(response)
            url = target(url, status, method, location, self._registry, insecure=self.insecure)
        raise TransportError(f"stopped after {MOST_REQUESTS} redirects", request=_shown("GET", url))

    async def _stay(self, url: Url, fields: Fields) -> tuple[httpx.Response, Url]:
        """As `_follow`, but the first redirect to another host name is the answer (3.5.5)."""
        host = url.host
        for _ in range(MOST_REQUESTS + 1):
            response = await self._send("GET", url, fields, b"", self._bearer, _ANSWER_LIMIT)
            status, location = response.status_code, response.headers.get("location")
            if location is None or not is_redirect(status, location):
                return response, url
            try:
                found = target(url, status, "GET", location, self._registry, insecure=self.insecure)
            except BaseException:
                await _close(response)
                raise
            if found.host != host:
                return response, url
            await discard(response)
            url = found
        raise TransportError(f"maximum redirects exceeded ({MOST_REQUESTS}) for directURL")

    async def _send(
        self,
        method: str,
        url: Url,
        fields: Fields,
        content: Content,
        authorize: _Authorize,
        limit: float = float("inf"),
    ) -> httpx.Response:
        headers = list(fields)
        credential = authorize(url)
        if credential is not None:
            headers.append(("Authorization", credential))
        internal = ANY if self.insecure or self.scope is None else self.scope
        response: httpx.Response | None = None
        with trio.move_on_after(limit):
            try:
                response = await self._http.send(
                    method, str(url), headers, content, internal=internal
                )
            except AddressRefused as error:
                raise self._refused(error) from None
        if response is None:
            raise TransportError("timeout awaiting response headers", request=_shown(method, url))
        if self.scope is None:
            self.scope = response.extensions.get(SCOPE, scope_of_host(url.host))
        return response

    def _refused(self, error: AddressRefused) -> Refused:
        return Refused(
            f"refused: registry {quoted(self.host)} leads to the internal address "
            f"{error.address} of {quoted(error.host)} (only with --insecure)"
        )


def _nothing(url: Url) -> str | None:
    return None


async def _check_status(response: httpx.Response) -> None:
    if response.status_code == 404:
        # A text of its own (3.2), whatever becomes of the body.
        await discard(response)
        raise RegistryNotFound
    if response.status_code >= 400:
        body = await read_start(response, LONGEST_ERROR_BODY, _STALL, _BODY_LIMIT)
        error = status_error(response.status_code, body)
        error.retry_after = response.headers.get("retry-after")
        raise error


async def _close(response: httpx.Response) -> None:
    with trio.CancelScope(shield=True):
        await response.aclose()


def _parsed(method: str, url: str) -> Url:
    try:
        return parse_url(url)
    except BadUrl as error:
        raise TransportError(f"{method.capitalize()}: {error}") from None


def _shown(method: str, url: Url) -> str:
    return f'{method.capitalize()} "{url.shown}"'


def _token(body: bytes) -> str:
    """What a token's answer says; ``access_token`` is the name that other servers use."""
    try:
        value: Any = msgspec.json.decode(body)
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise RegistryError(f"the token's answer is not JSON: {error}") from None
    fields = value if isinstance(value, dict) else {}
    token = fields.get("token") or fields.get("access_token") or ""
    # It is going to be part of a header.
    if not isinstance(token, str) or not all("!" <= character <= "~" for character in token):
        raise RegistryError("the registry's token cannot be used")
    return token
