"""Waiting until the memory of a runner that has ended is back on its devices.

Contract: ``runners-and-scheduling.md`` 4.11. Drivers show it as used for up to a second and a half
after the process is gone; a load that went by that would leave layers in main memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from ollamad.hardware.device import Device
from ollamad.scheduler.sizing import MemoryReading
from ollamad.units import human_gib

log = logging.getLogger(__name__)

#: Seconds between two readings, and in which all of it must be back or is no longer waited for.
STEP = 0.25
LIMIT = 5.0
#: The same after a runner that ended by itself: some of it may be back before the first reading.
LIMIT_AFTER_DEATH = 1.5
#: The part of it that has to be back.
SHARE = 0.75

Read = Callable[[], Awaitable[MemoryReading | None]]


def discrete(devices: Sequence[Device]) -> frozenset[str]:
    """The names of the devices that a runner is waited for; none when that is not needed."""
    if len(devices) == 1 and devices[0].library == "Metal":
        return frozenset()
    return frozenset(device.name for device in devices if not device.integrated)


def free_on(reading: MemoryReading | None, names: frozenset[str]) -> int | None:
    """Bytes that are free on these devices together, None when one of them is not there."""
    if reading is None:
        return None
    found = [device.free_memory for device in reading.devices if device.name in names]
    return sum(found) if len(found) == len(names) else None


def shown_on(
    reading: MemoryReading | None, planned: Sequence[Device], names: frozenset[str]
) -> int | None:
    """``free_on``, or None when it has not changed by a byte since the launch was ``planned``.

    Where nobody can ask the driver, figures stay as they were at the start: nothing comes back.
    """
    free = free_on(reading, names)
    then = sum(device.free_memory for device in planned if device.name in names)
    return None if free == then else free


def held_on(devices: Mapping[str, int], names: frozenset[str]) -> int:
    return sum(size for name, size in devices.items() if name in names)


async def until_back(
    read: Read, names: frozenset[str], size: int, before: int | None, limit: float
) -> bool:
    """Return when ``size`` bytes are back on these devices, of which ``before`` were free, or after
    ``limit`` seconds. False when they are not back, or nobody can tell."""
    if not names or size <= 0 or before is None:
        return True
    started = trio.current_time()
    now: int | None = before
    with trio.move_on_after(limit):
        while (now := free_on(await read(), names)) is not None:
            # It may be less than before: others use the devices, too.
            if now - before > SHARE * size:
                waited = round(trio.current_time() - started, 3)
                log.debug("memory is back", extra={"devices": sorted(names), "seconds": waited})
                return True
            await trio.sleep(STEP)
    log.debug(
        "memory is not back",
        extra={
            "devices": sorted(names),
            "expected": human_gib(size),
            "seen": human_gib(max(0, (now or 0) - before)),
        },
    )
    return False
