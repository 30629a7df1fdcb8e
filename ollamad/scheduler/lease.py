"""What callers of the scheduler get to see: a lease on a runner, and the list of loaded models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import msgspec

from ollamad.scheduler.runner import R


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model in memory, for ``ps``. Sizes in bytes.

    ``devices``: bytes on each device, by its name. ``reason``: why not all of it is on devices.
    ``expires_in``: nanoseconds until it is unloaded if nobody asks for it, at most 0 once it is on
    its way out, FOREVER when it stays.
    """

    key: str
    name: str
    digest: str
    info: Any
    size: int
    size_vram: int
    num_ctx: int
    expires_in: int
    leases: int
    devices: dict[str, int] = {}
    reason: str = ""


class Waited:
    """How long a request has waited, once it has its lease; nanoseconds.

    ``queued_ns``: for a place, without ``loaded_ns``, the time in which its model was being loaded.
    """

    __slots__ = ("is_over", "loaded_ns", "queued_ns")

    def __init__(self) -> None:
        self.is_over = False
        self.queued_ns = self.loaded_ns = 0

    def for_lease(self, lease: Lease[Any]) -> None:
        """The request has got ``lease``."""
        self.is_over = True
        self.queued_ns = max(0, lease.queued_ns - lease.loaded_ns)
        self.loaded_ns = lease.loaded_ns


class Lease(Generic[R]):
    """A runner that is yours until the ``async with`` that gave it ends.

    ``num_ctx``: tokens that this request may use. ``queued_ns``: how long the request waited
    altogether; ``loaded_ns``: the part of that in which its model was being loaded.
    """

    __slots__ = ("_condemn", "loaded_ns", "num_ctx", "queued_ns", "runner", "ticket")

    def __init__(
        self,
        runner: R,
        *,
        ticket: int,
        num_ctx: int,
        queued_ns: int,
        loaded_ns: int,
        condemn: Callable[[int, str], None],
    ) -> None:
        self.runner = runner
        self.ticket = ticket
        self.num_ctx = num_ctx
        self.queued_ns = queued_ns
        self.loaded_ns = loaded_ns
        self._condemn = condemn

    def condemn(self, reason: str) -> None:
        """Say that this runner lives but does not answer as it should (``reason`` is logged).

        Nobody gets it any more, and it is stopped when its leases have ended.
        """
        self._condemn(self.ticket, reason)
