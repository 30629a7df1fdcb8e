"""Which proxy leads to a server (``cli.md`` 1.3). Imported only where a proxy is set."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ollamad.cli.errors import ConnectionFailed


class Proxy(NamedTuple):
    """An HTTP proxy; ``headers`` are what it wants beside a request's own."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``scheme://host:port`` by ``HTTP_PROXY``, ``HTTPS_PROXY`` and ``NO_PROXY``.

    Lower-case names are read, too. Loopback hosts never have one. Raises ConnectionFailed for a
    proxy that is not plain HTTP.
    """
    text = _variable(environ, f"{scheme}_proxy")
    if not text or is_loopback(host) or _excepted(host, port, _variable(environ, "no_proxy")):
        return None
    url = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port_of_proxy = url.port or 80
    except ValueError:
        port_of_proxy = 0
    if url.scheme != "http" or not url.hostname or not port_of_proxy:
        raise ConnectionFailed(f"cannot use this kind of proxy for {scheme}: only http://HOST:PORT")
    headers: tuple[tuple[str, str], ...] = ()
    if url.username is not None:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers = (("Proxy-Authorization", f"Basic {base64.b64encode(user.encode()).decode()}"),)
    return Proxy(url.hostname, port_of_proxy, headers)


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name or address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper()) or environ.get(name) or ""


def _excepted(host: str, port: int, listed: str) -> bool:
    """Whether one of ``NO_PROXY``'s names, addresses, networks or suffixes covers ``host``."""
    host = host.lower()
    for entry in (part.strip().lower() for part in listed.split(",")):
        if entry == "*":
            return True
        name, colon, number = entry.rpartition(":")
        if colon and number.isdigit() and ":" not in name.strip("[]"):
            if number != str(port):
                continue
            entry = name  # noqa: PLW2901 - the rest of the entry, without its port
        entry = entry.strip("[]").removeprefix("*").removeprefix(".")  # noqa: PLW2901
        if entry and (host == entry or host.endswith(f".{entry}") or _in_network(host, entry)):
            return True
    return False


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
