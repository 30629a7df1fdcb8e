"""A registry without sockets: what it answers is written down, what it was asked is kept.

    script = Script()
    script.on("GET", "https://r.test/v2/ns/m/manifests/latest", Reply(body=b"{}"))
    async with script.http() as http:
        session = Session(http, name, insecure=False, load_key=signing_key)

Times are trio's, so with an autojump clock waits and stalls cost nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx
import trio

from ollamad.proxies import Proxy
from ollamad.registry.addresses import AddressScope, allowed, scope_of
from ollamad.registry.errors import BodyCut, ConnectFailed, TransportError
from ollamad.registry.http import SCOPE, Http, Outgoing
from ollamad.registry.keys import SigningKey

PUBLIC_ADDRESS = "93.184.215.14"


@dataclass(frozen=True)
class Wait:
    """Seconds in which nothing comes."""

    seconds: float


class _Mark:
    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


#: The other side closes in order, before the end.
CUT = _Mark("CUT")
#: The connection breaks.
RESET = _Mark("RESET")
#: Nothing comes any more.
STALL = _Mark("STALL")

Step: TypeAlias = "bytes | Wait | _Mark"


@dataclass(frozen=True)
class Reply:
    """``body`` in steps; ``after`` are seconds before the head. Content-Length is the caller's,
    unless the body is one piece of bytes."""

    status: int = 200
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = ()
    body: bytes | Sequence[Step] = b""
    after: float = 0.0
    #: Answer before the body was read; otherwise it is read to its end first.
    early: bool = False


@dataclass(frozen=True)
class Fail:
    """No answer. ``cause`` stands after method and URL; ``connected``: the request went out."""

    cause: str = "dial tcp: connect: connection refused"
    connected: bool = False
    after: float = 0.0


@dataclass
class Seen:
    """A request as it came in."""

    method: str
    url: str
    headers: httpx.Headers
    at: float
    body: bytes = b""
    proxy: Proxy | None = None
    internal: AddressScope = AddressScope.LOOPBACK

    @property
    def path(self) -> str:
        """Path and query."""
        return "/" + self.url.split("/", 3)[3]


Answers: TypeAlias = "Reply | Fail | Callable[[Seen], Reply | Fail]"


@dataclass
class Script:
    """Answers by method and URL. ``addresses``: where hosts are; others are at a public one."""

    addresses: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    #: Bodies being read now, and the most there ever were.
    open: int = 0
    most_open: int = 0
    _answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    def on(self, method: str, url: str, *answers: Answers) -> None:
        """Answer so, one after another, the last one for ever. ``url`` may end in ``*``.

        An answer may be a function of the request. Replaces what was said before for this URL.
        """
        self._answers[method, url] = list(answers)

    def http(self) -> Http:
        http = Http(lambda: self, self.environ)
        http._transport = self  # there at once: a clock that jumps does not wait for a thread
        return http

    def asked(self, method: str = "", part: str = "") -> list[Seen]:
        """The requests with this method and this text in their URL."""
        return [s for s in self.requests if method in ("", s.method) and part in s.url]

    async def sweep(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def send(self, request: Outgoing) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        url = str(request.url)
        address = self.addresses.get(request.url.host, PUBLIC_ADDRESS)
        if request.proxy is None:
            allowed(request.url.host, [address], request.internal)
        seen = Seen(
            request.method,
            url,
            httpx.Headers(list(request.headers)),
            trio.current_time(),
            proxy=request.proxy,
            internal=request.internal,
        )
        self.requests.append(seen)
        answer = self._next(request.method, url)
        early = isinstance(answer, Reply) and answer.early
        if isinstance(request.content, bytes):
            seen.body = request.content
        elif not early and not (isinstance(answer, Fail) and not answer.connected):
            async for piece in request.content:
                seen.body += piece
        if not isinstance(answer, Reply | Fail):
            answer = answer(seen)
        await trio.sleep(answer.after)
        if isinstance(answer, Fail):
            kind = TransportError if answer.connected else ConnectFailed
            raise kind(answer.cause, request=request.shown)
        headers = httpx.Headers(
            dict(answer.headers) if isinstance(answer.headers, Mapping) else list(answer.headers)
        )
        if isinstance(answer.body, bytes) and "content-length" not in headers:
            headers["content-length"] = str(len(answer.body))
        steps = [answer.body] if isinstance(answer.body, bytes) else answer.body
        if request.method == "HEAD":
            steps = []
        extensions = {} if request.proxy else {SCOPE: scope_of(address)}
        return httpx.Response(
            answer.status, headers=headers, stream=_Body(self, steps), extensions=extensions
        )

    def _next(self, method: str, url: str) -> Any:
        # The very URL before a pattern, a longer pattern before a shorter one.
        found = (
            self._answers.get((method, url))
            or max(
                (
                    (len(pattern), answers)
                    for (of, pattern), answers in self._answers.items()
                    if of == method and pattern.endswith("*") and url.startswith(pattern[:-1])
                ),
                key=lambda each: each[0],
                default=(0, None),
            )[1]
        )
        if found:
            return found.pop(0) if len(found) > 1 else found[0]
        raise AssertionError(f"unexpected request: {method} {url}")


class _Body(httpx.AsyncByteStream):
    def __init__(self, script: Script, steps: Sequence[Step]) -> None:
        self._script = script
        self._steps = steps
        self._closed = False
        script.open += 1
        script.most_open = max(script.most_open, script.open)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self._steps:
            await trio.lowlevel.checkpoint()
            if isinstance(step, bytes):
                if step:
                    yield step
            elif isinstance(step, Wait):
                await trio.sleep(step.seconds)
            elif step is CUT:
                raise BodyCut
            elif step is RESET:
                raise TransportError("read: connection reset by peer")
            else:
                await trio.sleep_forever()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._script.open -= 1


def signing_key() -> SigningKey:
    """The key of registry-and-store 9.1."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return SigningKey(public.decode(), key.sign)
