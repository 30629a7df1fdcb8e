"""URLs as they are sent: taken apart once, put on the wire byte for byte.

Pure. What decides about an address or a credential and what connects must see the same host, so
there is one strict parser, and what it does not understand is an error. The path and the query are
kept as they came: a signature may cover them (registry-and-store, pitfall 12).
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import quote, urljoin

from ollamad.errors import quoted

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.~-]*)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(?::([0-9]{0,5}))?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: All that may stand on a request line; the rest is percent-encoded, what is encoded stays.
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_LONGEST = 16 * 1024


class BadUrl(ValueError):
    """The text is no URL that could be asked for."""


class Url(NamedTuple):
    """``host`` is in lower case without brackets, ``port`` is never missing, ``authority`` is host
    and port as they were written, ``target`` is path and query as they are sent."""

    scheme: str
    host: str
    port: int
    authority: str
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """What two URLs of the same server have in common."""
        return (self.scheme, self.host, self.port)

    @property
    def shown(self) -> str:
        """For texts and logs: values of a query may be signatures."""
        path, mark, query = self.target.partition("?")
        hidden = "&".join(_hidden(pair) for pair in query.split("&")) if query else ""
        return f"{self.scheme}://{self.authority}{path}{mark}{hidden}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """An absolute http or https URL. Raises BadUrl; a fragment is dropped."""
    if len(text) > _LONGEST:
        raise BadUrl("URL is too long")
    if _CONTROL.search(text):
        raise BadUrl("invalid control character in URL")
    match = _SCHEME.fullmatch(text)
    scheme = match[1].lower() if match else ""
    if match is None or scheme not in _PORTS:
        raise BadUrl(f"unsupported protocol scheme {quoted(scheme)}")
    rest = match[2]
    if not rest.startswith("//"):
        raise BadUrl("no Host in request URL")
    end = next((i for i, c in enumerate(rest[2:], 2) if c in "/?#"), len(rest))
    authority, target = rest[2:end], rest[end:].partition("#")[0]
    host, port = _host_and_port(authority)
    if not target.startswith("/"):
        target = f"/{target}"
    target = quote(target, safe=_VISIBLE)
    return Url(scheme, host, port or _PORTS[scheme], authority.rstrip(":"), target)


def resolve(base: Url, reference: str) -> Url:
    """``reference``, a ``Location``, as seen from ``base``. Raises BadUrl."""
    reference = reference.strip(" \t")
    if _CONTROL.search(reference):
        raise BadUrl("invalid control character in URL")
    if _SCHEME.fullmatch(reference):
        return parse_url(reference)
    if not reference.startswith("/"):
        # A path beside the present one.
        try:
            return parse_url(urljoin(str(base), reference))
        except ValueError as error:
            raise BadUrl(str(error)) from None
    if reference.startswith("//"):
        return parse_url(f"{base.scheme}:{reference}")
    # As it is: joining would tidy up dots that a signature may cover.
    return parse_url(f"{base.scheme}://{base.authority}{reference}")


def shown(text: str) -> str:
    """`Url.shown` of any text; what is no URL is not shown."""
    try:
        return parse_url(text).shown
    except BadUrl:
        return "(invalid URL)"


def _host_and_port(authority: str) -> tuple[str, int]:
    if "@" in authority:
        raise BadUrl("URL with user information")
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise BadUrl("invalid host in URL")
    host = match[1]
    port = int(match[2] or 0)
    if match[2] and not 0 < port < 65536:
        raise BadUrl("invalid port in URL")
    if not host:
        raise BadUrl("no Host in request URL")
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1])), port
        except ValueError:
            raise BadUrl("invalid host in URL") from None
    if not _HOST_NAME.fullmatch(host) or len(host) > 350:
        raise BadUrl("invalid host in URL")
    return host.lower(), port


def _hidden(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}{equals}…" if equals else "…"
