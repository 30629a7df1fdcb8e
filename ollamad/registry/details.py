"""What the cloud says of its models, kept for a while: ``show`` answers at once (http-api 17.1.6).

What is known is served as it is and asked for again behind the client's back.
"""

from __future__ import annotations

import logging

import trio

from ollamad.errors import OllamadError
from ollamad.registry.cloud import Cloud
from ollamad.registry.cloud_bodies import cloud_body
from ollamad.wire import ShowRequest

log = logging.getLogger(__name__)

#: Seconds between two refreshes of one model, and for one of them.
_BETWEEN = 5.0
_TIMEOUT = 3.0
#: Bytes of one model's details, and how many models are remembered.
LONGEST = 1 << 20
_MOST = 256


class _Known:
    __slots__ = ("asked_at", "body")

    def __init__(self, body: bytes, asked_at: float) -> None:
        self.body = body
        self.asked_at = asked_at


class Details:
    """Answers of ``show`` by the plain names of models. Refreshes run in ``nursery``."""

    def __init__(self, cloud: Cloud, nursery: trio.Nursery) -> None:
        self._cloud = cloud
        self._nursery = nursery
        self._known: dict[str, _Known] = {}

    def get(self, model: str) -> bytes | None:
        """What was last heard of ``model``, or None. Has it asked for again when that is old."""
        known = self._known.get(model)
        if known is None:
            return None
        if trio.current_time() - known.asked_at >= _BETWEEN:
            known.asked_at = trio.current_time()
            self._nursery.start_soon(self._refresh, model, known)
        return known.body

    def put(self, model: str, body: bytes) -> None:
        """Remember the answer that a client just got."""
        if len(body) > LONGEST:
            return
        if model not in self._known and len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]  # the one that was first heard of
        self._known[model] = _Known(body, trio.current_time())

    def forget(self) -> None:
        """After signing out nothing is known."""
        self._known.clear()

    async def _refresh(self, model: str, known: _Known) -> None:
        body = cloud_body(ShowRequest(), model)
        try:
            known.body = await self._cloud.read(
                "POST", "/api/show", body, limit=LONGEST, timeout=_TIMEOUT
            )
        except OllamadError as error:
            log.debug("details not refreshed", extra={"model": model, "error": error.message})
