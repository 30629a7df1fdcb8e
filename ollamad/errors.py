"""Every error that a client may see: its HTTP status and its text in one place.

Source of statuses and texts: ``http-api.md`` 4 and 6, ``runners-and-scheduling.md`` 2.10, 3.8 and
4.13. Code below the API raises these; only the API turns them into bytes.
"""

from __future__ import annotations

import json
from typing import Any


class OllamadError(Exception):
    """An error with a text for the client. ``status`` is the HTTP status that carries it."""

    status = 500

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status

    @property
    def members(self) -> dict[str, Any]:
        """What the JSON object holds that tells a client (http-api 6.1)."""
        return {"error": self.message}


class BadRequest(OllamadError):
    """The request itself is wrong: malformed body, bad field, bad name."""

    status = 400


class Unauthorized(OllamadError):
    """ollama.com does not know this machine's key, or there is none (http-api 6.3, 17.1.4).

    ``signin_url``: where its user can change that; empty when there is no key.
    """

    status = 401

    def __init__(self, signin_url: str = "") -> None:
        super().__init__("unauthorized")
        self.signin_url = signin_url

    @property
    def members(self) -> dict[str, Any]:
        if not self.signin_url:
            return super().members
        return {"error": self.message, "signin_url": self.signin_url}


class Forbidden(OllamadError):
    status = 403


class NotFound(OllamadError):
    """A model or a blob that is not stored."""

    status = 404


class RequestCanceled(OllamadError):
    """The client went away while its request waited; only logs and proxies see it."""

    status = 499

    def __init__(self) -> None:
        super().__init__("request canceled")


class ServerBusy(OllamadError):
    """More requests wait than ``OLLAMA_MAX_QUEUE`` allows. ``retry_after`` is in whole seconds."""

    status = 503

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("server busy, please try again.  maximum pending requests exceeded")
        self.retry_after = max(1, retry_after)


class RunnerKeepsDying(OllamadError):
    """A model's runners died one after the other, so that it is left alone for ``retry_after``
    seconds. ``error``: what the last one printed."""

    status = 503

    def __init__(self, name: str, deaths: int, error: str, *, retry_after: int) -> None:
        why = error or "it gave no reason"
        super().__init__(
            f"the runner of {name} died {deaths} times in a row without an answer and is started "
            f"again in {retry_after} seconds at the earliest: {why}"
        )
        self.retry_after = max(1, retry_after)


class ShuttingDown(OllamadError):
    """The daemon is stopping and takes no new work, or cut this request when the grace ended."""

    status = 503

    def __init__(self, message: str = "server is shutting down") -> None:
        super().__init__(message)


class LoadError(OllamadError):
    """A runner could not be started or did not become ready (runners-and-scheduling 2.10)."""

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class RunnerError(OllamadError):
    """A runner refused or broke off a request (runners-and-scheduling 3.8).

    ``out_of_memory``: the runner's text says that memory ran out, so every model is unloaded.
    """

    def __init__(self, message: str, *, status: int = 500, out_of_memory: bool = False) -> None:
        super().__init__(message, status=status)
        self.out_of_memory = out_of_memory


class RunnerUnfit(RunnerError):
    """A runner that does not answer as it should, and will not: it has to be replaced
    (runners-and-scheduling 4.4)."""


class UsageError(OllamadError):
    """A bad command line or environment value: one line on stderr, exit status 1."""


def quoted(text: str) -> str:
    """``text`` in double quotes with escapes for quotes, backslashes and control characters."""
    return json.dumps(text, ensure_ascii=False)


def model_not_found(requested: str) -> NotFound:
    """The text of generate, chat and delete: single quotes (http-api 4)."""
    return NotFound(f"model '{requested}' not found")


def model_not_found_try_pulling(requested: str) -> NotFound:
    """The text of embed and embeddings: double quotes and the hint (http-api 4)."""
    return NotFound(f"model {quoted(requested)} not found, try pulling it first")


def missing_capability(full_name: str, missing: list[str]) -> BadRequest:
    """http-api 6.5: ``full_name`` is always the long form with host and tag."""
    return BadRequest(f"{full_name} does not support {chr(10).join(missing)}")


def cannot(requested: str, verb: str) -> BadRequest:
    """http-api 6.5 for a missing completion capability: ``verb`` is ``generate`` or ``chat``."""
    return BadRequest(f"{quoted(requested)} does not support {verb}")


def incompatible_suffix(short_name: str) -> str:
    """What is appended when the weights are of a kind that the runner cannot load (2.10)."""
    return (
        ": this model may be incompatible with your version of Ollama. If you previously pulled "
        f"this model, try updating it by running `ollama pull {short_name}`"
    )
