"""What a registry asks for with a 401, and whether its realm may be asked (registry-and-store 5.4).

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ollamad.errors import quoted
from ollamad.registry.errors import Refused, RegistryError
from ollamad.registry.urls import BadUrl, Url, parse_url

_BEARER = "Bearer "
#: A quote inside a value survives: the closing one ends the header, or a comma follows.
_CLOSING = re.compile(r'"(?=,|\Z)')
_LONGEST = 16 * 1024

#: A host, and the other one that may tell its tokens: asked through hf.co, private repositories
#: name the service's main host.
_ALIAS = ("hf.co", "huggingface.co")


class Challenge(NamedTuple):
    """The three values that count; each may be empty."""

    realm: str
    service: str
    scope: str


def parse_challenge(header: str) -> Challenge:
    """``WWW-Authenticate``; keys are case-sensitive, nothing in it is an error."""
    header = header[:_LONGEST].removeprefix(_BEARER)
    return Challenge(_value(header, "realm"), _value(header, "service"), _value(header, "scope"))


def chosen(headers: Sequence[str]) -> str:
    """Of several ``WWW-Authenticate`` headers the first that asks for a token."""
    return next((each for each in headers if each.startswith(_BEARER)), "".join(headers[:1]))


def _value(header: str, key: str) -> str:
    _, found, rest = header.partition(f"{key}=")
    if not found or not rest.startswith('"'):
        return rest.partition(",")[0].strip()
    rest = rest[1:]
    closing = _CLOSING.search(rest)
    return rest[: closing.start()] if closing else rest


def realm_url(realm: str, asked: Url, *, insecure: bool) -> Url:
    """The realm as a place to ask for a token, ``asked`` being the request that was refused.

    Its host with the port must be that of ``asked``, letter for letter: whoever is asked gets a
    signature of this machine's key. Raises RegistryError, and Refused for one that would send it
    in plain text although ``asked`` was not.
    """
    host = _literal_host(realm)
    aliased = (asked.authority, host) == _ALIAS and realm.startswith("https://")
    if host != asked.authority and not aliased:
        raise RegistryError(
            f"realm host {quoted(host)} does not match original host {quoted(asked.authority)}"
        )
    try:
        url = parse_url(realm)
    except BadUrl as error:
        raise RegistryError(f"realm {quoted(realm)}: {error}") from None
    if asked.scheme == "https" and url.scheme != "https" and not insecure:
        raise Refused(
            f"refused: registry {quoted(asked.authority)} wants to be asked for a token "
            "over plain http"
        )
    return url


def _literal_host(realm: str) -> str:
    """Host and port as written, without user information; empty when there are none."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in realm):
        raise RegistryError(f"parse {quoted(realm)}: net/url: invalid control character in URL")
    if realm.startswith(":"):
        raise RegistryError(f"parse {quoted(realm)}: missing protocol scheme")
    match = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//([^/?#]*)", realm)
    return match[1].rpartition("@")[2] if match else ""


def token_origins(registry: Url) -> frozenset[tuple[str, str, int]]:
    """The servers that may see a token of ``registry``: itself, and who tells its tokens."""
    origins = {registry.origin}
    if registry.origin == ("https", _ALIAS[0], 443):
        origins.add(("https", _ALIAS[1], 443))
    return frozenset(origins)
