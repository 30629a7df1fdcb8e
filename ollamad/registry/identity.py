"""Who this machine is to ollama.com: its key, its name, and where its user signs in.

registry-and-store.md 5.1, 5.2 and 5.7. The key is read anew for every signature, so another one
needs no restart.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import trio

from ollamad.registry.keys import KeyUnavailable, SigningKey, load_key
from ollamad.registry.signing import connect_url


class Identity:
    """``load`` blocks and raises KeyUnavailable; ``now`` is Unix seconds."""

    def __init__(
        self,
        load: Callable[[], SigningKey],
        *,
        hostname: Callable[[], str] = socket.gethostname,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._load = load
        self._hostname = hostname
        self._now = now

    @classmethod
    def of_file(cls, path: Path) -> Identity:
        return cls(lambda: load_key(path))

    @property
    def timestamp(self) -> int:
        """Now, as signatures name it."""
        return int(self._now())

    async def key(self) -> SigningKey:
        """Raises KeyUnavailable."""
        return await trio.to_thread.run_sync(self._load)

    async def signin_url(self) -> str:
        """Where a user makes ollama.com know this machine; empty without a key."""
        try:
            key = await self.key()
        except KeyUnavailable:
            return ""
        return connect_url(self._hostname(), key.public_line)
