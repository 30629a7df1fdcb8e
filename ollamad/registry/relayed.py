"""Which headers pass between a client and the cloud, and which do not. Pure.

Source: registry-and-store.md 5.6, http-api.md 17.1.3. Beyond the hop-by-hop headers of the contract
some stay behind because they are about this server and its client, not about the request: cookies,
what browsers are told of other origins, and what our own server writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ollamad.version import API_VERSION

Headers = Iterable[tuple[bytes, bytes]]

VERSION_HEADER = "X-Ollama-Client-Version"

_HOP_BY_HOP = frozenset(
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
#: Of a request: of this connection, or not for other servers. The signature takes the place of
#: ``Authorization``.
_NOT_SENT: frozenset[str] = _HOP_BY_HOP | {
    "authorization",
    "cookie",
    "cookie2",
    "expect",
    "host",
    VERSION_HEADER.lower(),
}
#: Of an answer: what would speak for this server, or what it writes itself.
_NOT_RELAYED: frozenset[str] = _HOP_BY_HOP | {
    "alt-svc",
    "clear-site-data",
    "date",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "x-request-id",
}
_ORIGIN_RULES = "access-control-"

_NAME = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Line breaks and other controls in a value would end the header, or the whole head.
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def sent_headers(headers: Headers, *, authorization: str, has_body: bool) -> list[tuple[str, str]]:
    """The headers of a client's request as the cloud gets them, in order."""
    kept = [(n.decode("ascii"), v.decode("latin-1")) for n, v in _kept(headers, _NOT_SENT)]
    names = {name.lower() for name, _ in kept}
    if has_body and "content-type" not in names:
        kept.append(("Content-Type", "application/json"))
    if "accept-encoding" not in names:
        # The answer is passed on as it comes: it must not be packed for one who did not ask.
        kept.append(("Accept-Encoding", "identity"))
    kept.append((VERSION_HEADER, API_VERSION))
    kept.append(("Authorization", authorization))
    return kept


def own_headers(*, authorization: str, has_body: bool = False) -> list[tuple[str, str]]:
    """The headers of what the daemon itself reads from the cloud."""
    headers = [
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        (VERSION_HEADER, API_VERSION),
        ("Authorization", authorization),
    ]
    return [*headers, ("Content-Type", "application/json")] if has_body else headers


def answered_headers(headers: Headers) -> list[tuple[str, str]]:
    """The headers of the cloud's answer as the client gets them, in order.

    What is no header (a value with a line break, say) or no text is left out.
    """
    kept = []
    for name, value in _kept(headers, _NOT_RELAYED):
        if name.lower().startswith(_ORIGIN_RULES.encode()):
            continue
        try:
            kept.append((name.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            continue
    return kept


def _kept(headers: Headers, left_out: frozenset[str]) -> list[tuple[bytes, bytes]]:
    pairs = list(headers)
    named = {
        token.strip().lower()
        for name, value in pairs
        if name.lower() == b"connection"
        for token in value.split(b",")
    }
    return [
        (name, value)
        for name, value in pairs
        if name.lower() not in named
        and name.lower().decode("latin-1") not in left_out
        and _NAME.fullmatch(name)
        and _VALUE.fullmatch(value)
    ]
