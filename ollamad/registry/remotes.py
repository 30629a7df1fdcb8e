"""The hosts that stored stubs name: where they are, and which may be asked at all. Pure.

Source: http-api.md 17.3, registry-and-store.md 5.5 and 5.6. A stub may come from a registry, so
what it names is not trusted: what is no plain URL is nowhere, and only listed hosts are asked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ollamad.errors import BadRequest
from ollamad.registry.urls import BadUrl, parse_url

#: The only host that is told who asks.
_SIGNED = "ollama.com"


class RemoteHost(NamedTuple):
    """``url`` has no slash at its end. ``signed``: whether requests to it carry a signature."""

    url: str
    hostname: str
    signed: bool


def remote_host(text: str, allowed: Collection[str]) -> RemoteHost:
    """The host in a stub's config. ``allowed``: host names, as ``OLLAMA_REMOTES`` lists them.

    Raises BadRequest for one that is not listed, and for what is no URL of a host.
    """
    refusal = BadRequest("this server cannot run this remote model")
    try:
        url = parse_url(text)
    except BadUrl:
        raise refusal from None
    if "?" in url.target or "#" in text or "\\" in text:
        raise refusal
    if url.host not in {name.lower() for name in allowed}:
        raise refusal
    # In the clear a signature could be taken and used by whoever listens.
    signed = url.host == _SIGNED and url.scheme == "https"
    return RemoteHost(str(url).rstrip("/"), url.host, signed)
