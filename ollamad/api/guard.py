"""Which web pages and which host names may talk to the daemon (http-api.md 2). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from ollamad.errors import UsageError
from ollamad.host import split_host_port

_SCHEMES = (
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)
_PRIVATE = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv6Network("fc00::/7"),
)
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_PREFLIGHT = (
    (b"Access-Control-Allow-Methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (
        b"Access-Control-Allow-Headers",
        b"Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta,"
        b"X-Stainless-Arch,X-Stainless-Async,X-Stainless-Custom-Poll-Interval,"
        b"X-Stainless-Helper-Method,X-Stainless-Lang,X-Stainless-Os,X-Stainless-Package-Version,"
        b"X-Stainless-Poll-Helper,X-Stainless-Retry-Count,X-Stainless-Runtime,"
        b"X-Stainless-Runtime-Version,X-Stainless-Timeout",
    ),
    (b"Access-Control-Max-Age", b"43200"),
)

Headers = tuple[tuple[bytes, bytes], ...]


class Verdict(NamedTuple):
    """``status`` of the empty answer that ends the request, or None: it goes on.

    ``headers`` are for the answer, whoever makes it.
    """

    status: int | None
    headers: Headers = ()


_PASS = Verdict(None)
_FORBIDDEN = Verdict(403)
_NO_CONTENT = Verdict(204)


class Origins:
    """The list of allowed origins (2.1).

    Raises UsageError for an entry that the reference refuses to start with.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        entries = tuple(entries)
        self.allow_all = "*" in entries
        self._exact: set[str] = set()
        self._wildcards: list[tuple[str, str]] = []
        for entry in entries:
            if "*" not in entry and not entry.startswith(_SCHEMES):
                raise UsageError(
                    f"bad origin: origins must contain '*' or include {','.join(_SCHEMES)}"
                )
            if entry.count("*") > 1:
                raise UsageError("only one * is allowed")
            if "*" in entry:
                prefix, _, suffix = entry.partition("*")
                self._wildcards.append((prefix, suffix))
            else:
                self._exact.add(entry.lower())

    def allows(self, origin: str) -> bool:
        if self.allow_all or origin in self._exact:
            return True
        return any(
            len(origin) >= len(prefix) + len(suffix)
            and origin.startswith(prefix)
            and origin.endswith(suffix)
            for prefix, suffix in self._wildcards
        )


class Guard:
    """Judges a request before its handler: first its origin, then its host.

    ``checks_host`` is False when the daemon listens on other than loopback addresses.
    ``own_addresses`` lists those of this machine's interfaces, which may change while it runs.
    """

    def __init__(
        self,
        origins: Origins,
        *,
        checks_host: bool,
        hostname: str = "",
        own_addresses: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._origins = origins
        self._checks_host = checks_host
        self._hostname = hostname.lower()
        self._own_addresses = own_addresses

    def judge(self, method: str, host: str, origin: str | None) -> Verdict:
        """``host`` is the Host header as sent, empty when there is none."""
        headers: Headers = ()
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            if not self._origins.allows(origin):
                return _FORBIDDEN
            if method == "OPTIONS":
                return Verdict(204, self._preflight(origin))
            headers = self._allow_origin(origin)
        if self._checks_host:
            verdict = self._judge_host(method, host)
            if verdict.status is not None:
                return Verdict(verdict.status, headers)
        return Verdict(None, headers) if headers else _PASS

    def _judge_host(self, method: str, header: str) -> Verdict:
        split = split_host_port(header)
        host = split[0] if split is not None else header
        try:
            address = ip_address(host)
        except ValueError:
            if self._is_local_name(host.lower()):
                return _NO_CONTENT if method == "OPTIONS" else _PASS
            return _FORBIDDEN
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_loopback or address.is_unspecified:
            return _PASS
        if any(address in network for network in _PRIVATE):
            return _PASS
        own = (ip_address(text.partition("%")[0]) for text in self._own_addresses())
        return _PASS if address in own else _FORBIDDEN

    def _is_local_name(self, host: str) -> bool:
        return host in ("", "localhost", self._hostname) or host.endswith(_LOCAL_SUFFIXES)

    def _allow_origin(self, origin: str) -> Headers:
        if self._origins.allow_all:
            return ((b"Access-Control-Allow-Origin", b"*"),)
        allowed = (b"Access-Control-Allow-Origin", origin.encode("latin-1", "replace"))
        return (allowed, (b"Vary", b"Origin"))

    def _preflight(self, origin: str) -> Headers:
        headers = self._allow_origin(origin) + _PREFLIGHT
        if self._origins.allow_all:
            return headers
        return (
            *headers,
            (b"Vary", b"Access-Control-Request-Method"),
            (b"Vary", b"Access-Control-Request-Headers"),
        )
