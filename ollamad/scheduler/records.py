"""What the scheduler's core remembers about runners, requests and leases."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from ollamad.scheduler.failures import NO_RELIEF, Relief
from ollamad.scheduler.sizing import LaunchPlan
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import FOREVER


class State(enum.Enum):
    LOADING = enum.auto()
    READY = enum.auto()
    STOPPING = enum.auto()


@dataclass(slots=True)
class Condemned:
    """A runner has to go once it is idle.

    Requests with a ticket below ``before`` may still use it. ``ticket``: the request that wants it
    gone and without which it may stay, None when nothing saves it. ``since``: nanoseconds.
    """

    before: int
    ticket: int | None
    since: int
    reason: str


@dataclass(slots=True, eq=False)
class RunnerRecord:
    """A runner from the decision to start it until its process is gone.

    ``spec`` holds the options really in force. ``leases`` counts those who hold it, ``busy`` those
    of them who hold a slot. Times are nanoseconds, sizes bytes. ``idle_since`` counts from the end
    of the last lease. ``reserved``: of main memory; ``devices``: of each device, by its name.
    ``served``: when it had served the first request, 0 before.
    """

    id: int
    spec: ModelSpec
    plan: LaunchPlan
    keep_alive: int
    reserved: int
    started: int
    relief: Relief
    devices: dict[str, int] = field(default_factory=dict)
    state: State = State.LOADING
    ready: int = 0
    idle_since: int = 0
    leases: int = 0
    busy: int = 0
    served: int = 0
    condemned: Condemned | None = None

    @property
    def mapped(self) -> int:
        """Bytes of files that it has mapped."""
        return 0 if self.plan.use_mmap is False else self.spec.shape.weight_bytes

    def expires_in(self, now: int) -> int:
        """Nanoseconds until it goes if nobody comes; FOREVER; at most 0 when it is on its way."""
        if self.condemned is not None:
            return min(0, self.condemned.since - now)
        if self.keep_alive >= FOREVER:
            return FOREVER
        if self.leases or self.state is State.LOADING:
            return self.keep_alive
        return self.idle_since + self.keep_alive - now


@dataclass(slots=True)
class WaitingRequest:
    """A request without a lease. Tickets rise in the order of arrival.

    ``relief``: what its next load is spared, because memory ran out.
    ``judged``: the last runner its options were compared with, and whether they fitted.
    """

    ticket: int
    spec: ModelSpec
    keep_alive: int | None
    slot: bool
    arrived: int
    relief: Relief = NO_RELIEF
    judged: tuple[int, bool] = (0, False)


@dataclass(slots=True)
class HeldLease:
    runner: RunnerRecord
    slot: bool
    granted: int


def usefulness(runner: RunnerRecord) -> tuple[int, int, str]:
    """Sorts the least useful runner first (4.9)."""
    return (runner.keep_alive, runner.idle_since, runner.spec.key)
