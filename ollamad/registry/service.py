"""Pull and push as the rest of the daemon asks for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from ollamad.registry.client import Session
from ollamad.registry.download import DEFAULT_TIMING, Timing
from ollamad.registry.http import Http
from ollamad.registry.keys import SigningKey, load_key
from ollamad.registry.pull import pull_events
from ollamad.registry.push import UploadKey, push_events
from ollamad.registry.sharing import Shared
from ollamad.settings import Settings
from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name
from ollamad.store.store import Store
from ollamad.wire import Progress


class Registry:
    """One for the daemon's life. ``nursery`` holds the transfers: it must end before ``http``."""

    def __init__(
        self,
        store: Store,
        http: Http,
        settings: Settings,
        nursery: trio.Nursery,
        name_locks: NameLocks,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._store = store
        self._http = http
        self._settings = settings
        self._name_locks = name_locks
        self._timing = timing
        self._downloads: Shared[str] = Shared(nursery)
        self._uploads: Shared[UploadKey] = Shared(nursery)

    async def pull(self, name: Name, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Fetch a model; events as http-api.md 15.1, last ``success``. ``name`` is valid.

        Raises OllamadError. Close the generator (``aclosing``) if you may stop early: then the
        transfers stop, unless others wait for them too.
        """
        name = await trio.to_thread.run_sync(self._store.resolve, name)
        events = pull_events(
            self._store,
            self._session(name, insecure),
            downloads=self._downloads,
            locks=self._name_locks,
            timing=self._timing,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def push(self, name: Name, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        """Send a stored model; events as http-api.md 15.2. ``name`` may be invalid: an event tells.

        Raises and ends as `pull`.
        """
        name = await trio.to_thread.run_sync(self._store.resolve, name)
        events = push_events(
            self._store,
            self._session(name, insecure),
            name,
            uploads=self._uploads,
            streams=self._settings.max_transfer_streams,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    def _session(self, name: Name, insecure: bool) -> Session:
        return Session(self._http, name, insecure=insecure, load_key=self._load_key)

    def _load_key(self) -> SigningKey:
        return load_key(self._settings.key_path)
