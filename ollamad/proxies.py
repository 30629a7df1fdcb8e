"""Which proxy leads to a server, by the environment (``registry-and-store.md`` 6, ``cli.md`` 1.3).

Pure. A redirect's target is matched afresh, so this is asked for every request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from ollamad.errors import OllamadError

#: The schemes of proxies, with the ports that go without saying.
PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


class BadProxy(OllamadError):
    """A proxy variable that names no proxy. The text shows no password."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """``scheme`` is one of `PORTS`; ``username`` and ``password`` are decoded, None when absent."""

    scheme: str
    host: str
    port: int
    username: str | None = None
    #: Never shown.
    password: str | None = field(default=None, repr=False)


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``scheme://host:port``, or None for the direct way.

    ``HTTPS_PROXY`` or ``HTTP_PROXY`` by ``scheme``, without those that ``NO_PROXY`` lists; the
    names may be in lower case, the others win. This machine never has one. ``host`` is without
    brackets. Raises BadProxy.
    """
    text = _variable(environ, f"{scheme}_proxy")
    if not text or is_loopback(host) or excepted(host, port, _variable(environ, "no_proxy")):
        return None
    return _parsed(text, f"{scheme.upper()}_PROXY")


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its name or address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = _address(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def excepted(host: str, port: int, listed: str) -> bool:
    """Whether ``listed``, a value of ``NO_PROXY``, covers ``host`` and ``port``.

    A name covers itself and what is below it, with a leading dot or ``*.`` only what is below;
    an address and a network cover addresses; ``:port`` restricts any; ``*`` covers all.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    for entry in (part.strip().lower() for part in listed.split(",")):
        if entry == "*":
            return True
        network = _network(entry)
        if network is not None:
            if address is not None and address in network:
                return True
            continue
        name, number = _port_apart(entry)
        if not name or (number and number != str(port)):
            continue
        if address is not None:
            if _address(name) == address:
                return True
        elif _covers(name, host):
            return True
    return False


def _covers(name: str, host: str) -> bool:
    below = name.removeprefix("*").rstrip(".")
    if below.startswith("."):
        return host.endswith(below)
    return host == below or host.endswith(f".{below}")


def _port_apart(entry: str) -> tuple[str, str]:
    """``name:81`` in two; an IPv6 address has its port only behind brackets."""
    name, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):
        return name.strip("[]"), number
    return entry.strip("[]"), ""


def _parsed(text: str, variable: str) -> Proxy:
    text = text.strip()
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        scheme = url.scheme.lower()
        port = PORTS.get(scheme) if url.port is None else url.port
    except ValueError:
        raise BadProxy(f"{variable} is not a proxy's address") from None
    if scheme not in PORTS:
        raise BadProxy(f"{variable}: unsupported kind of proxy {scheme!r}")
    if not url.hostname or not port:
        raise BadProxy(f"{variable} is not a proxy's address")
    username = None if url.username is None else unquote(url.username)
    password = None if url.password is None else unquote(url.password)
    return Proxy(scheme, url.hostname, port, username, password)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper()) or environ.get(name) or ""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # The same machine in the spelling that NO_PROXY will have.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    if "/" not in text:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
