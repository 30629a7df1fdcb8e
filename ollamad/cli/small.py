"""Commands of few lines: ``stop``, ``cp``, ``rm``, ``-v`` (``cli.md`` 2.3 and 2.5)."""

from __future__ import annotations

import sys

from ollamad.cli.client import Client
from ollamad.cli.commands import Invocation
from ollamad.cli.errors import ServerError
from ollamad.cli.load import load
from ollamad.errors import OllamadError
from ollamad.version import API_VERSION
from ollamad.wire import CopyRequest, DeleteRequest, VersionResponse

_AT_ONCE = "0s"


def stop(invocation: Invocation) -> int:
    """``stop MODEL``."""
    model = invocation.words[0]
    try:
        load(invocation.client, model, _AT_ONCE)
    except ServerError as error:
        if "not found" in error.message:
            raise ServerError(f'couldn\'t find model "{model}" to stop') from error
        raise
    return 0


def copy(invocation: Invocation) -> int:
    """``cp SOURCE DESTINATION``."""
    source, destination = invocation.words
    request = CopyRequest(source=source, destination=destination)
    invocation.client.call("POST", "/api/copy", request)
    print(f"copied '{source}' to '{destination}'")
    return 0


def remove(invocation: Invocation) -> int:
    """``rm MODEL...``: unload and delete each; the first failure ends it."""
    client = invocation.client
    for model in invocation.words:
        try:
            load(client, model, _AT_ONCE)
        except OllamadError as error:
            if "not found" not in error.message.lower():
                print(f"Warning: unable to stop model '{model}'", file=sys.stderr)
        client.call("DELETE", "/api/delete", DeleteRequest(model=model, name=model))
        print(f"deleted '{model}'", flush=True)
    return 0


def print_versions(client: Client) -> None:
    """``-v``: never fails, whatever the server does."""
    try:
        server = client.get(VersionResponse, "/api/version").version
    except OllamadError:
        server = ""
    if server:
        print(f"ollama version is {server}")
    else:
        print("Warning: could not connect to a running Ollama instance")
    if server != API_VERSION:
        print(f"Warning: client version is {API_VERSION}")
