"""Which proxy leads to the daemon (``cli.md`` 1.3). Imported only where a proxy is set."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import NamedTuple

from ollamad import proxies
from ollamad.cli.errors import ConnectionFailed
from ollamad.proxies import is_loopback

__all__ = ["Proxy", "is_loopback", "proxy_for"]


class Proxy(NamedTuple):
    """An HTTP proxy; ``headers`` are what it wants beside a request's own."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``scheme://host:port`` by the rules of `proxies.proxy_for`.

    Raises ConnectionFailed for a proxy that is not plain HTTP: the command line knows no other.
    """
    try:
        proxy = proxies.proxy_for(scheme, host, port, environ)
    except proxies.BadProxy as error:
        raise ConnectionFailed(error.message) from error
    if proxy is None:
        return None
    if proxy.scheme != "http":
        raise ConnectionFailed(f"cannot use this kind of proxy for {scheme}: only http://HOST:PORT")
    headers: tuple[tuple[str, str], ...] = ()
    if proxy.username is not None:
        user = f"{proxy.username}:{proxy.password or ''}"
        headers = (("Proxy-Authorization", f"Basic {base64.b64encode(user.encode()).decode()}"),)
    return Proxy(proxy.host, proxy.port, headers)
