"""``signin``, ``signout``, and what a user who is not signed in is told (``cli.md`` 2.6)."""

from __future__ import annotations

import msgspec

from ollamad.cli.answers import decode
from ollamad.cli.browser import open_page
from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import Unauthorized
from ollamad.cli.width import harmless

#: Seconds that the question who is signed in may take before something else is done (1.3).
ACCOUNT_TIMEOUT = 3.0
FOR_CLOUD_MODELS = "You need to be signed in to Ollama to run Cloud models."


class _Account(msgspec.Struct):
    """Of the user object, what matters here."""

    name: str = ""


def signed_in_user(client: Client, timeout: float | None = None) -> str:
    """The name of who is signed in. Raises Unauthorized when nobody is."""
    return decode(_Account, client.call("POST", "/api/me", timeout=timeout)).name


def signin_text(error: Unauthorized, notice: str = FOR_CLOUD_MODELS) -> str:
    """What to print for ``error``: why signing in is necessary, and where that is done. Pure."""
    text = f"{notice}\n\n"
    if error.signin_url:
        url = harmless(error.signin_url, "")
        text += f"If your browser did not open, navigate to:\n    {url}\n\n"
    return text


def signin(invocation: Invocation) -> int:
    """``signin``: the user goes on in the browser; nothing waits for that."""
    try:
        name = signed_in_user(invocation.client)
    except Unauthorized as error:
        if error.signin_url:
            open_page(error.signin_url, invocation.client.environ)
        print(signin_text(error), end="")
        return 0
    if name:
        print(f"You are already signed in as user '{harmless(name, '')}'\n")
    return 0


def signout(invocation: Invocation) -> int:
    """``signout``: the key pair stays; the account forgets it."""
    try:
        invocation.client.call("POST", "/api/signout")
    except Unauthorized:
        print("You are not signed in to ollama.com\n")
    else:
        print("You have signed out of ollama.com\n")
    return 0
