"""The strings that are signed, and the URLs that carry the signatures' times.

Pure; registry-and-store 5.3 to 5.7. What is signed and what is sent must be the same text, so each
URL is built once, here. Times are Unix seconds.
"""

from __future__ import annotations

import base64
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

#: The hex text of the SHA-256 of nothing, in base64: the token's request has no body.
_EMPTY = "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ=="
_CONNECT = "https://ollama.com/connect"
#: What stands for itself in a segment of a path, beside letters, digits and ``-_.~``.
_SEGMENT = "$&+=:@"


def token_url(realm: str, service: str, scope: str, *, ts: int, nonce: bytes) -> str:
    """The URL to ask for a token: the realm, its query kept, with what is asked for (5.4).

    ``scope`` may be several, separated by blanks. ``nonce`` are 16 random bytes.
    """
    base, _, query = realm.partition("#")[0].partition("?")
    pairs = _pairs(query)
    pairs.append((b"service", service.encode()))
    pairs += [(b"scope", piece.encode()) for piece in scope.split(" ")]
    pairs += [(b"ts", b"%d" % ts), (b"nonce", _unpadded(nonce).encode())]
    return f"{base}?{_encoded(pairs)}"


def token_message(url: str) -> bytes:
    """What is signed for a request of a token; ``url`` is exactly what is sent."""
    return f"GET,{url},{_EMPTY}".encode()


def api_message(method: str, path: str, ts: int) -> bytes:
    """What a client of the API signs; ``path`` is the API's, without a prefix of the host (5.5)."""
    return f"{method},{path}?ts={ts}".encode()


def signed_query(query: str, ts: int) -> str:
    """``query`` in sorted order, with ``ts`` in place of any that it had (5.6)."""
    pairs = [(name, value) for name, value in _pairs(query) if name != b"ts"]
    return _encoded([*pairs, (b"ts", b"%d" % ts)])


def cloud_message(method: str, path: str, query: str) -> bytes:
    """What is signed for the cloud; ``query`` is a `signed_query`, ``path`` as it is sent (5.6)."""
    return f"{method},{path}?{query}".encode()


def account_key(public_line: str) -> str:
    """The public key as ollama.com names it in URLs (K of 5.7)."""
    return _unpadded(public_line.encode())


def connect_url(hostname: str, public_line: str) -> str:
    """Where a user signs this machine in (5.7)."""
    return f"{_CONNECT}?name={quote(hostname, safe=_SEGMENT)}&key={account_key(public_line)}"


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _pairs(query: str) -> list[tuple[bytes, bytes]]:
    pairs = [piece.partition("=") for piece in query.split("&") if piece]
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))


def _encoded(pairs: list[tuple[bytes, bytes]]) -> str:
    """Names in ascending order, values of one name in the order given."""
    ordered = sorted(pairs, key=lambda pair: pair[0])
    return "&".join(f"{_form(name)}={_form(value)}" for name, value in ordered)


def _form(data: bytes) -> str:
    return quote_from_bytes(data, safe=" ").replace(" ", "+")
