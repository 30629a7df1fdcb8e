"""Transfers that several operations share (registry-and-store 3.7).

The work must not live in the task of whoever asked first: that client's leaving would end it for
all. It runs in a nursery that lives as long as the daemon, and is counted by its watchers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from ollamad.errors import OllamadError, ShuttingDown

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class Transfer:
    """One transfer as its watchers see it. Its work sets ``total`` and ``completed``, in bytes."""

    def __init__(self) -> None:
        self.total = 0
        self.completed = 0
        self._error: OllamadError | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._watchers = 0
        #: Its last watcher has left: it is winding down, and nobody may join it.
        self._abandoned = False

    @property
    def is_done(self) -> bool:
        return self._ended.is_set()

    async def wait(self) -> None:
        """Return when it has succeeded. Raises the OllamadError that ended it."""
        await self._ended.wait()
        if self._error is not None:
            # A new object: several tasks raising one would tangle their tracebacks.
            raise OllamadError(self._error.message, status=self._error.status) from self._error


#: What a transfer does: raises OllamadError, is cancelled when nobody watches any more.
Work = Callable[[Transfer], Awaitable[None]]


class Shared(Generic[K]):
    """At most one transfer for each key. ``nursery`` outlives all operations."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._transfers: dict[K, Transfer] = {}

    @asynccontextmanager
    async def join(self, key: K, work: Work) -> AsyncIterator[Transfer]:
        """Watch the transfer of ``key``, which ``work`` does if nobody does it yet.

        Whoever leaves last stops it and goes when all its tasks are gone. A transfer that is being
        stopped takes no watchers: they wait for its end and begin a new one.
        """
        while (transfer := self._transfers.get(key)) is not None and transfer._abandoned:
            await transfer._ended.wait()
        if transfer is None:
            transfer = self._transfers[key] = Transfer()
            self._nursery.start_soon(self._run, key, transfer, work)
        transfer._watchers += 1
        try:
            yield transfer
        finally:
            transfer._watchers -= 1
            if not transfer._watchers and not transfer.is_done:
                transfer._abandoned = True
                transfer._scope.cancel()
                with trio.CancelScope(shield=True):
                    await transfer._ended.wait()

    async def _run(self, key: K, transfer: Transfer, work: Work) -> None:
        # Until the work says that it ended otherwise, it was cut short.
        transfer._error = ShuttingDown()
        try:
            with transfer._scope:
                await work(transfer)
                transfer._error = None
        except OllamadError as error:
            transfer._error = error
        except Exception as error:
            # It must not take the daemon with it, in whose nursery it runs.
            logger.exception("a transfer ended with an unexpected error")
            transfer._error = OllamadError(f"internal error: {type(error).__name__}")
        finally:
            del self._transfers[key]
            transfer._ended.set()
