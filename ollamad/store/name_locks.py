"""One lock a model name, for operations that replace a model (modelfile-and-create 4.15.3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from ollamad.store.names import Name


@dataclass(slots=True)
class _Entry:
    lock: trio.Lock = field(default_factory=trio.Lock)
    holders: int = 0


class NameLocks:
    """Holds of the same name, whatever its case, come one after another in the order of asking."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str, str], _Entry] = {}

    @asynccontextmanager
    async def hold(self, name: Name) -> AsyncIterator[None]:
        """Wait for the name and keep it; cancellation while waiting leaves no trace."""
        entry = self._entries.setdefault(name.folded, _Entry())
        entry.holders += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.holders -= 1
            if not entry.holders:
                del self._entries[name.folded]
