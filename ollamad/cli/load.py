"""Have a model loaded or unloaded (``cli.md`` 2.5)."""

from __future__ import annotations

from ollamad.cli.bodies import KeepAlive, body
from ollamad.cli.client import Client
from ollamad.cli.progress import Display
from ollamad.wire import GenerateRequest, GenerateResponse, ShowRequest, ShowResponse, Think


def show_request(model: str) -> ShowRequest:
    """``name`` is for very old servers."""
    return ShowRequest(model=model, name=model)


def load(
    client: Client,
    model: str,
    keep_alive: KeepAlive | None = None,
    think: Think | None = None,
) -> None:
    """Load ``model``, or unload it with a ``keep_alive`` of zero.

    An unsupported ``think`` fails here already. Raises ServerError, its text has ``not found`` for
    an unknown model.
    """
    with Display(transient=True) as display:
        display.spin()
        shown = client.post(ShowResponse, "/api/show", show_request(model))
        if shown.remote_host:
            return  # it runs elsewhere
        request = GenerateRequest(model=model, prompt="", think=think)
        client.drain(GenerateResponse, "/api/generate", body(request, keep_alive))
