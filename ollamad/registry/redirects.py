"""Whether and how a redirect is followed (registry-and-store 3.2, 3.5.5).

Pure. Who may see the token is asked for each request afresh (`challenge.token_origins`), how
internal a target is where it is resolved (`registry.addresses`).
"""

from __future__ import annotations

from ollamad.errors import quoted
from ollamad.registry.errors import Refused, RegistryError, TransportError
from ollamad.registry.urls import BadUrl, Url, resolve

#: Requests in a row that redirects may cost.
MOST_REQUESTS = 10
#: With these everything but GET and HEAD would become a GET, and its body vanish.
_TO_GET = (301, 302, 303)
STATUSES = (*_TO_GET, 307, 308)


def is_redirect(status: int, location: str | None) -> bool:
    """A 3xx without ``Location`` is an answer like any other."""
    return status in STATUSES and location is not None


def target(
    url: Url, status: int, method: str, location: str, registry: Url, *, insecure: bool
) -> Url:
    """Where to ask next, with the same method and headers.

    Raises Refused for a way from https to http, RegistryError when the method would not survive,
    TransportError for a Location that is no URL.
    """
    if status in _TO_GET and method not in ("GET", "HEAD"):
        raise RegistryError(f"{status}: unexpected redirect of a {method} request", code=status)
    found = located(url, location)
    refuse_downgrade(url, found, registry, insecure=insecure)
    return found


def located(url: Url, location: str) -> Url:
    """``Location`` as seen from ``url``. Raises TransportError."""
    try:
        return resolve(url, location)
    except BadUrl as error:
        raise TransportError(f"failed to parse Location header: {error}") from None


def refuse_downgrade(url: Url, found: Url, registry: Url, *, insecure: bool) -> None:
    """Raise Refused when the way from ``url`` to ``found`` leaves TLS."""
    if url.scheme == "https" and found.scheme != "https" and not insecure:
        raise Refused(
            f"refused: registry {quoted(registry.authority)} leads from https to plain http at "
            f"{quoted(found.authority)} (only with --insecure)"
        )
