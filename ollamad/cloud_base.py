"""Where cloud models are served: the address in ``OLLAMA_CLOUD_BASE_URL``, and what it may be.

``registry-and-store.md`` 5.6. Pure; imports next to nothing, because the settings need it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: What is used unless another address is accepted.
DEFAULT_URL = "https://ollama.com:443"

# Spelled out, because ``urlsplit`` takes far more for a host.
_NETLOC = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class CloudBase(NamedTuple):
    """``url`` has no slash at its end. ``signing_host``: the host, in lower case and without a
    port, for which requests are signed. ``overridden``: whether it is not the default."""

    url: str
    signing_host: str
    overridden: bool


DEFAULT = CloudBase(DEFAULT_URL, "ollama.com", False)


def parse_cloud_base(text: str, *, development: bool = False) -> CloudBase:
    """The address that ``text`` names; empty means the default.

    A release takes loopback hosts only, a development build also others with https. Raises
    ValueError for anything else: whoever could set this freely would be sent signed requests.
    """
    if text in ("", DEFAULT_URL):
        return DEFAULT
    from urllib.parse import urlsplit  # noqa: PLC0415 - nearly nobody sets this

    parts = urlsplit(text)
    found = _NETLOC.fullmatch(parts.netloc)
    if parts.scheme not in ("http", "https") or found is None or not text.isprintable():
        raise ValueError("scheme and host are needed, and no user name")
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise ValueError("no path, query or fragment may follow the host")
    if parts.port == 0:  # raises ValueError itself for one that is too large
        raise ValueError("port 0 is no port")
    host = found["host"].strip("[]").lower()
    if not _is_loopback(host) and not (development and parts.scheme == "https"):
        raise ValueError("only hosts on this machine may take the cloud's place")
    return CloudBase(f"{parts.scheme}://{parts.netloc}", host, True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    from ipaddress import ip_address  # noqa: PLC0415

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
