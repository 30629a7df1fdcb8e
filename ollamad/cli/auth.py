"""Requests signed with the user's key, for a gateway in front of a server, and for ollama.com
(registry-and-store 5.5). What signs is imported only where something is signed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ollamad.host import Host, unquoted

if TYPE_CHECKING:
    from ollamad.registry.keys import SigningKey

_SIGNED_HOST = "ollama.com"


class Signed(NamedTuple):
    """A request's target with its time, and its header ``Authorization``."""

    path: str
    authorization: str


def is_signed(host: Host, environ: Mapping[str, str]) -> bool:
    """Whether requests to ``host`` carry a signature."""
    if host.host == _SIGNED_HOST:
        return True
    value = unquoted(environ.get("OLLAMA_AUTH", ""))
    if not value:
        return False
    from ollamad.environment import boolean  # noqa: PLC0415 - seldom set

    return boolean(value)


class Signer:
    """Signs with the key in ``~/.ollama``, which is read for every signature: it may change."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - costs less
        self._home = home

    def sign(self, method: str, path: str) -> Signed:
        """``path`` is that of the API, without what ``OLLAMA_HOST`` has in front of it.

        Raises OllamadError ``open <path>: ...`` when the key cannot be read.
        """
        from pathlib import Path  # noqa: PLC0415

        from ollamad.registry.keys import load_key  # noqa: PLC0415

        key = load_key(Path(self._home) / ".ollama" / "id_ed25519")
        return signed(method, path, key, int(time.time()))


def signed(method: str, path: str, key: SigningKey, ts: int) -> Signed:
    """Pure. ``ts`` in Unix seconds. A query that ``path`` has is kept, and is not signed."""
    from ollamad.registry.signing import api_message  # noqa: PLC0415

    plain, mark, query = path.partition("?")
    target = f"{plain}?{query}&ts={ts}" if mark else f"{plain}?ts={ts}"
    return Signed(target, key.authorization(api_message(method, plain, ts)))
