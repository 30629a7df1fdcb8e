"""The address in ``OLLAMA_HOST``: where the daemon listens and where clients connect.

``runners-and-scheduling.md`` 5.2 and 8.1. Imports next to nothing, because the command line starts
with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

DEFAULT_PORT = 11434
_SCHEME_PORTS = {"http": 80, "https": 443}
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Host(NamedTuple):
    """An address as the user wrote it. ``host`` is without brackets; empty means this machine, on
    all interfaces. ``port_text`` keeps a sign or leading zeros; ``path`` starts with ``/`` or is
    empty.
    """

    scheme: str
    host: str
    port_text: str
    path: str

    @property
    def port(self) -> int:
        return int(self.port_text)

    @property
    def url(self) -> str:
        """``scheme://host:port/path`` with brackets around IPv6."""
        return f"{self.scheme}://{join_host_port(self.host, self.port_text)}{self.path}"

    @property
    def address(self) -> str:
        """``host:port``, as error texts and logs show it."""
        return join_host_port(self.host, self.port_text)


def unquoted(value: str) -> str:
    """An environment value as meant: blanks around it go, then any quotes, inner blanks stay."""
    return value.strip().strip("\"'")


def parse_host(text: str, warn: Callable[[str], None] | None = None) -> Host:
    """Read a value of ``OLLAMA_HOST``; every text has a meaning, nothing is an error.

    ``warn`` is called with the offending port when it is not an integer in 0..65535 and the default
    is used instead.
    """
    text = unquoted(text).strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
        if text == "ollama.com":
            scheme, rest = "https", "ollama.com:443"
    default = str(_SCHEME_PORTS.get(scheme, DEFAULT_PORT) if separator else DEFAULT_PORT)
    rest, slash, path = rest.partition("/")
    split = split_host_port(rest)
    if split is not None:
        host, port = split
    else:
        host, port = _ip_text(rest.strip("[]")) or rest or "127.0.0.1", default
    if not _INTEGER.fullmatch(port) or not 0 <= int(port) <= 65535:
        if warn is not None:
            warn(port)
        port = default
    return Host(scheme, host, port, slash + path if path else "")


def from_environ(environ: Mapping[str, str]) -> Host:
    """The address that ``OLLAMA_HOST`` names in ``environ``, or the default one."""
    return parse_host(environ.get("OLLAMA_HOST", ""))


def connectable(host: Host) -> Host:
    """``host`` with an unspecified address replaced by loopback: for clients."""
    replacement = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.host)
    return host if replacement is None else host._replace(host=replacement)


def connect_url(host: Host) -> str:
    """The base URL for a client of ``host``, without a trailing slash of its own."""
    return connectable(host).url


def split_host_port(text: str) -> tuple[str, str] | None:
    """``host:port`` or ``[host]:port`` in two, or None: no port, stray brackets, bare IPv6."""
    colon = text.rfind(":")
    if colon < 0:
        return None
    if text.startswith("["):
        end = text.find("]")
        if end < 0 or end + 1 != colon:
            return None
        host, rest = text[1:end], text[1:end] + text[end + 1 :]
    else:
        host, rest = text[:colon], text
        if ":" in host:
            return None
    if "[" in rest or "]" in rest:
        return None
    return host, text[colon + 1 :]


def join_host_port(host: str, port: str | int) -> str:
    """``host:port``, with brackets when ``host`` has a colon itself."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ip_text(text: str) -> str | None:
    """The usual spelling of an IP literal, or None. IPv4 in IPv6 becomes IPv4."""
    if not text or "%" in text or (":" not in text and not text[0].isdigit()):
        return None
    from ipaddress import IPv6Address, ip_address  # noqa: PLC0415 - only for literal addresses

    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
