"""What can go wrong with a registry, in the texts of registry-and-store 8.3.

Two kinds: `RegistryError` is an answer or a decision, and asking again gives the same;
`TransportError` is a connection that failed, and may go better the next time.
"""

from __future__ import annotations

from ollamad.errors import OllamadError

#: No more of an answer's text than this is kept for an error.
LONGEST_ERROR_BODY = 64 * 1024


class RegistryError(OllamadError):
    """A registry said no, or something that is not understood. ``code`` is its HTTP status, or 0.

    ``status`` stays 500: it is the daemon's answer, not the registry's.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        #: The header Retry-After as it came, if it did.
        self.retry_after: str | None = None


class RegistryNotFound(RegistryError):
    """404: no such manifest or blob."""

    def __init__(self) -> None:
        super().__init__("file does not exist", code=404)


class AccessDenied(RegistryError):
    """401 although a token was fetched just before."""

    def __init__(self) -> None:
        super().__init__("unauthorized: access denied", code=401)


class Refused(RegistryError):
    """This side will not go where a registry leads: an internal address, or plain http."""


class TransportError(OllamadError):
    """No answer, or not all of it. ``cause`` is the text without method and URL.

    Nothing that a URL hides is in it: no user information, no values of a query.
    """

    def __init__(self, cause: str, *, request: str = "") -> None:
        super().__init__(f"{request}: {cause}" if request else cause)
        self.cause = cause


class ConnectFailed(TransportError):
    """Not even a connection: nothing of the request was sent."""


class BodyCut(TransportError):
    """The other side closed in order before the end of its answer: what came is good."""

    def __init__(self) -> None:
        super().__init__("unexpected EOF")


def status_error(code: int, body: bytes) -> RegistryError:
    """The error for a status of 400 and above (3.2): 404 has a text of its own."""
    if code == 404:
        return RegistryNotFound()
    return RegistryError(f"{code}: {body.decode('utf-8', 'replace')}", code=code)
