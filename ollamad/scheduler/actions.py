"""What the scheduler's core tells its shell to do. Tickets name requests, ids name runners."""

from __future__ import annotations

import msgspec

from ollamad.errors import OllamadError
from ollamad.scheduler.failures import NO_RELIEF, Relief
from ollamad.scheduler.sizing import LaunchPlan
from ollamad.scheduler.spec import ModelSpec


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """The request may use the runner until it is released. Nanoseconds, see ``lease.Lease``."""

    ticket: int
    runner_id: int
    num_ctx: int
    queued_ns: int
    loaded_ns: int


class Reject(msgspec.Struct, frozen=True, kw_only=True):
    """The request will not be served; the error is its own, not shared with others."""

    ticket: int
    error: OllamadError


class Measure(msgspec.Struct, frozen=True):
    """Read the machine's memory and answer with ``Core.memory``."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Start a runner; answer with ``Core.loaded`` or ``Core.load_failed``.

    ``relief``: what is different from the last try, for the log.
    """

    runner_id: int
    spec: ModelSpec
    plan: LaunchPlan
    relief: Relief = NO_RELIEF


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody wants this load any more: cancel it and answer with ``Core.gone``."""

    runner_id: int


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """End an idle runner and answer with ``Core.gone``. ``reason`` is for the log."""

    runner_id: int
    reason: str


Action = Grant | Reject | Measure | Start | Abort | Stop
