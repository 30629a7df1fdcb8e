"""Have a model loaded or unloaded (``cli.md`` 2.5)."""

from __future__ import annotations

import sys

from ollamad.cli.bodies import KeepAlive, body
from ollamad.cli.client import Client
from ollamad.cli.cloud import is_cloud
from ollamad.cli.progress import Display
from ollamad.wire import GenerateRequest, GenerateResponse, ShowRequest, ShowResponse, Think

_OLLAMAS = "https://ollama.com"


def show_request(model: str) -> ShowRequest:
    """``name`` is for very old servers."""
    return ShowRequest(model=model, name=model)


def load(
    client: Client,
    model: str,
    keep_alive: KeepAlive | None = None,
    think: Think | None = None,
    *,
    announce: bool = False,
) -> None:
    """Load ``model``, or unload it with a ``keep_alive`` of zero.

    A model that runs elsewhere is not loaded, but where ollama.com runs it, the user has to be
    signed in; ``announce`` tells on stderr where it is. An unsupported ``think`` fails here
    already. Raises ServerError, its text has ``not found`` for an unknown model, and Unauthorized.
    """
    with Display(transient=True) as display:
        display.spin()
        shown = client.post(ShowResponse, "/api/show", show_request(model))
        cloud = is_cloud(model)
        if not shown.remote_host and not cloud:
            request = GenerateRequest(model=model, prompt="", think=think)
            client.drain(GenerateResponse, "/api/generate", body(request, keep_alive))
            return
        if cloud or shown.remote_host.startswith(_OLLAMAS):
            client.call("POST", "/api/me")
    if announce:
        print(connection_text(shown, model), file=sys.stderr)


def connection_text(shown: ShowResponse, model: str) -> str:
    """Where ``model``, which runs elsewhere, does. Pure."""
    remote = shown.remote_model or model
    if not shown.remote_host or shown.remote_host.startswith(_OLLAMAS):
        return f"Connecting to '{remote}' on 'ollama.com' ⚡"
    return f"Connecting to '{remote}' on '{shown.remote_host}'"
