"""Errors that only the command line knows; each ends it with ``Error: MESSAGE`` and status 1."""

from __future__ import annotations

from ollamad.errors import OllamadError

SEE_LOGS = "something went wrong, please see the ollama server logs for details"
NOT_RUNNING = "could not connect to ollama server, run 'ollama serve' to start it"


class ServerError(OllamadError):
    """The server answered with an error, or not with what was asked for. ``status`` is its."""


class Unauthorized(ServerError):
    """Status 401. ``signin_url`` is where the user can sign in, or empty."""

    def __init__(self, message: str, signin_url: str) -> None:
        super().__init__(message, status=401)
        self.signin_url = signin_url


class ConnectionFailed(OllamadError):
    """No answer came. ``refused``: nobody listens there."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class NotAvailable(OllamadError):
    """A part of Ollama that this program does not have yet."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not available in ollamad yet", status=501)
