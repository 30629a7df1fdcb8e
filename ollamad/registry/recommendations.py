"""The list of recommended models: served from memory, fetched now and then, kept on disk.

``recommended`` decides; this fetches and stores. Source: http-api.md 16.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import trio

from ollamad.errors import OllamadError
from ollamad.registry.cloud import Cloud
from ollamad.registry.recommended import (
    BUILT_IN,
    LONGEST_LIST,
    BadList,
    Schedule,
    read_list,
    snapshot,
)
from ollamad.store.durable import replace_file
from ollamad.wire import ModelRecommendation

log = logging.getLogger(__name__)

_PATH = "/api/experimental/model-recommendations"
#: Seconds for a fetch, and before the first one: a start has other things to do.
_TIMEOUT = 3.0
_FIRST = 30.0


class Recommendations:
    """``models`` is always there. ``path``: the snapshot on disk, which may be missing."""

    def __init__(
        self, cloud: Cloud, path: Path, *, chance: Callable[[], float] = random.random
    ) -> None:
        self.models: tuple[ModelRecommendation, ...] = BUILT_IN
        self._cloud = cloud
        self._path = path
        self._chance = chance
        self._schedule: Schedule | None = None
        self._sooner = trio.Event()

    def read(self) -> tuple[ModelRecommendation, ...]:
        """What a client gets; has the list fetched when it is time."""
        if self._schedule is not None and self._schedule.read(trio.current_time()):
            self._sooner.set()
        return self.models

    async def run(self) -> None:
        """Keep the list fresh, until cancelled. Returns at once when the cloud is switched off."""
        await self._load()
        if self._cloud.disabled:
            return
        schedule = self._schedule = Schedule(trio.current_time() + _FIRST)
        while True:
            with trio.move_on_at(schedule.due):
                await self._sooner.wait()
            self._sooner = trio.Event()
            schedule.started(trio.current_time())
            if await self._fetch():
                schedule.succeeded(trio.current_time(), self._chance())
            else:
                schedule.failed(trio.current_time())

    async def _load(self) -> None:
        try:
            self.models = read_list(await trio.to_thread.run_sync(_read, self._path))
        except FileNotFoundError:
            pass  # never fetched
        except (OSError, BadList) as error:
            log.debug("no recommendations on disk", extra={"error": str(error)})

    async def _fetch(self) -> bool:
        try:
            raw = await self._cloud.read("GET", _PATH, limit=LONGEST_LIST, timeout=_TIMEOUT)
            models = read_list(raw)
        except (OllamadError, BadList) as error:
            # Machines without a network are common: nobody needs to hear of it every hour.
            log.debug("recommendations not fetched", extra={"error": str(error)})
            return False
        if models != self.models:
            self.models = models
            try:
                await trio.to_thread.run_sync(replace_file, self._path, snapshot(models))
            except OSError as error:
                log.debug("recommendations not kept", extra={"error": str(error)})
        return True


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LONGEST_LIST + 1)
