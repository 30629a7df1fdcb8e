"""``push`` (``cli.md`` 8.3)."""

from __future__ import annotations

import sys

from ollamad.cli.account import ACCOUNT_TIMEOUT, signed_in_user, signin_text
from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ConnectionFailed, ServerError, Unauthorized
from ollamad.cli.events import PUSH, EventProgress
from ollamad.cli.progress import Display
from ollamad.store.names import Name
from ollamad.wire import Progress, PushRequest

_NOT_YOURS = (
    "you are not authorized to push to this namespace, create the model under a namespace you own"
)
_REFUSALS = ("access denied", "unauthorized", "unknown ollama key")
_NOTICE = "You need to be signed in to push models to ollama.com."


def push(invocation: Invocation) -> int:
    """``push MODEL``."""
    client, model = invocation.client, invocation.words[0]
    name = Name.parse(model)
    if is_ollamas(name.host):
        try:
            signed_in_user(client, timeout=ACCOUNT_TIMEOUT)
        except Unauthorized as error:
            print(signin_text(error, _NOTICE), end="")
            return 0
    with Display() as display:
        _follow(client, model, invocation.parsed.switch("insecure"), display)
    print(f"\nYou can find your model at:\n\n\t{destination(name)}")
    return 0


def is_ollamas(host: str) -> bool:
    """Whether the registry is one of ollama.com, where a model has a page and an owner."""
    return host.lower().endswith((".ollama.ai", ".ollama.com"))


def destination(name: Name) -> str:
    """Where a pushed model is found: its page, or its full name on other registries."""
    if is_ollamas(name.host):
        return f"https://ollama.com/{name.short.removesuffix(':latest')}"
    return name.full


def _follow(client: Client, model: str, insecure: bool, display: Display) -> None:
    request = PushRequest(model=model, name=model, insecure=insecure)
    progress = EventProgress(display, PUSH)
    try:
        with client.stream(Progress, "/api/push", request) as events:
            for event in events:
                progress.show(event)
        progress.end()
    except ServerError as error:
        if any(refusal in error.message.lower() for refusal in _REFUSALS):
            raise ServerError(_NOT_YOURS, status=error.status) from error
        raise
    except ConnectionFailed as error:
        raise ConnectionFailed(
            f"lost the connection to the server during the push: {error.message}; "
            f"'ollama push {model}' sends what the registry does not have yet"
        ) from error
    except KeyboardInterrupt:
        display.end()
        if progress.has_moved:
            print(
                f"Interrupted: 'ollama push {model}' sends what the registry does not have yet",
                file=sys.stderr,
            )
        raise
