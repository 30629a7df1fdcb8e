"""``pull``, and the pull that ``run`` does by itself (``cli.md`` 8.1 and 8.2)."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Literal

from ollamad.cli.client import Client
from ollamad.cli.cloud import is_cloud, may_be_in_the_cloud, pull_form
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ConnectionFailed, ServerError
from ollamad.cli.events import PULL, EventProgress
from ollamad.cli.load import show_request
from ollamad.cli.progress import Display
from ollamad.errors import OllamadError
from ollamad.wire import ListResponse, Progress, PullRequest, ShowResponse

Verb = Literal["pull", "run"]

#: What the server says of a name that no registry knows.
UNKNOWN_MODEL = "pull model manifest: file does not exist"


def pull(invocation: Invocation) -> int:
    """``pull MODEL``."""
    insecure = invocation.parsed.switch("insecure")
    pull_model(invocation.client, invocation.words[0], insecure=insecure, verb="pull")
    return 0


def pull_model(client: Client, model: str, *, insecure: bool, verb: Verb) -> str:
    """Pull ``model``, or, when no registry has it, what the user takes instead of it.

    Returns the name of what was pulled. ``verb`` is the command that the user gave. Raises
    ServerError with the server's text; for a model that only the cloud has, it tells so.
    """
    suggestion = _Suggestion(client, model, insecure, verb)
    with Display() as display:
        try:
            _follow(client, model, insecure, verb, display)
            return model
        except ServerError as error:
            if not suggestion.suits(error):
                raise
            failure = error
            if suggestion.can_ask:
                display.discard()
    if not suggestion.accepted(failure):
        raise failure
    with Display() as display:
        _follow(client, suggestion.cloud, insecure, verb, display)
    return suggestion.cloud


def show(client: Client, model: str) -> ShowResponse:
    """What the server knows about ``model``. Raises ServerError."""
    return client.post(ShowResponse, "/api/show", show_request(model))


def can_be_pulled(model: str, error: ServerError) -> bool:
    """Whether a pull helps, after ``error`` was the answer to ``show``. Pure."""
    return error.status == 404 and not is_cloud(model)


def show_or_pull(client: Client, model: str, *, insecure: bool) -> tuple[str, ShowResponse]:
    """What the server knows about ``model``, which is pulled if it is not stored; and its name,
    for it may be another model that the user takes instead.
    """
    try:
        return model, show(client, model)
    except ServerError as error:
        if not can_be_pulled(model, error):
            raise
    model = pull_model(client, model, insecure=insecure, verb="run")
    return model, show(client, model)


def keep_stub(client: Client, model: str) -> None:
    """Have a cloud model listed, now that it is used (5.2). It runs without that, too, so no
    failure matters.
    """
    if not is_cloud(model):
        return
    stub = pull_form(model)
    with Display(transient=True) as display, suppress(OllamadError):
        display.spin()
        listed = client.get(ListResponse, "/api/tags").models
        names = {m.name.lower() for m in listed} | {m.model.lower() for m in listed}
        if names.isdisjoint((model.lower(), stub.lower())):
            client.drain(Progress, "/api/pull", PullRequest(model=stub, name=stub))


def _follow(client: Client, model: str, insecure: bool, verb: Verb, display: Display) -> None:
    """Pull and show how it goes, until it is done."""
    request = PullRequest(model=model, name=model, insecure=insecure)
    progress = EventProgress(display, PULL)
    try:
        with client.stream(Progress, "/api/pull", request) as events:
            for event in events:
                progress.show(event)
        progress.end()
    except ConnectionFailed as error:
        raise ConnectionFailed(_lost(error.message, verb, model)) from error
    except KeyboardInterrupt:
        display.end()
        if progress.has_moved:
            print(_kept(verb, model), file=sys.stderr)
        raise


def _lost(cause: str, verb: Verb, model: str) -> str:
    return (
        f"lost the connection to the server during the pull: {cause}; "
        f"'ollama {verb} {model}' goes on from there"
    )


def _kept(verb: Verb, model: str) -> str:
    return f"Interrupted: 'ollama {verb} {model}' goes on from here"


class _Suggestion:
    """The cloud model of the same name, for a model that the registry does not have."""

    def __init__(self, client: Client, model: str, insecure: bool, verb: Verb) -> None:
        self._client = client
        self._model = model
        self._insecure = insecure
        self._verb = verb
        self.cloud = f"{model}:cloud"

    def suits(self, error: ServerError) -> bool:
        """Whether the pull that ended in ``error`` can be answered by the cloud. Asks the server
        at most once.
        """
        if UNKNOWN_MODEL not in error.message or self._insecure:
            return False
        if not may_be_in_the_cloud(self._model):
            return False
        try:
            self._client.call("POST", "/api/show", show_request(self.cloud))
        except OllamadError:
            return False  # whatever it is, the first error is what the user has to know
        return True

    @property
    def can_ask(self) -> bool:
        return is_terminal(sys.stdin) and is_terminal(sys.stdout)

    def accepted(self, error: ServerError) -> bool:
        """Ask the user. Raises ServerError with the way to the cloud where nobody can be asked."""
        if self.can_ask:
            from ollamad.cli.confirm import confirm  # noqa: PLC0415 - seldom

            return confirm(f'Did you mean "{self.cloud}"?')
        hint = (
            f'"{self.cloud}" is available as a cloud model. Try:\n'
            f"  ollama {self._verb} {self.cloud}"
        )
        raise ServerError(f"{error.message}\n\n{hint}", status=error.status) from error


def is_terminal(stream: object) -> bool:
    """Whether ``stream`` is one. One that was closed before the program began is None."""
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())
