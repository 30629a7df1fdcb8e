"""What memory was promised to whom, and what launches were seen to take.

Contract: ``runners-and-scheduling.md`` 4.5 step 4, 4.7. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec

from ollamad.scheduler.records import RunnerRecord
from ollamad.scheduler.sizing import (
    LaunchPlan,
    Limits,
    MemoryReading,
    Seen,
    SizeKey,
    plan,
    size_key,
)
from ollamad.scheduler.spec import ModelSpec

#: Launches whose real size is remembered.
REMEMBERED_SIZES = 256


class Sizes:
    """What launches were seen to take, the latest last."""

    def __init__(self, known: Mapping[SizeKey, Seen] | None = None) -> None:
        self._seen: dict[SizeKey, Seen] = dict(known or {})

    def get(self, key: SizeKey) -> Seen:
        return self._seen.get(key, Seen())

    def remember(self, key: SizeKey, seen: Seen) -> None:
        if seen.total <= 0:
            return
        self._seen.pop(key, None)
        self._seen[key] = seen
        while len(self._seen) > REMEMBERED_SIZES:
            del self._seen[next(iter(self._seen))]

    def all(self) -> dict[SizeKey, Seen]:
        return dict(self._seen)


def planner(
    spec: ModelSpec,
    layers: int | None,
    runners: Collection[RunnerRecord],
    reading: MemoryReading,
    limits: Limits,
    sizes: Sizes,
) -> Callable[[Collection[RunnerRecord]], LaunchPlan]:
    """How ``spec`` would be launched beside ``runners``, if those that it is called with were gone.

    ``layers``: no more on devices, None for no such limit.
    """

    def planned_without(going: Collection[RunnerRecord]) -> LaunchPlan:
        staying = [runner for runner in runners if runner not in going]
        return plan(
            spec,
            _without(reading, going) if going else reading,
            limits,
            reserved_by_others=sum(runner.reserved for runner in staying),
            reserved_on=_on_devices(staying),
            mapped_by_others=sum(runner.mapped for runner in staying),
            measured=sizes.get,
            layers=layers,
            beside_others=bool(staying),
        )

    return planned_without


def settle(runner: RunnerRecord, size: int, devices: Mapping[str, int], sizes: Sizes) -> None:
    """Set aside for a runner what it says it takes rather than what it was thought to take.

    ``size``: bytes altogether, 0 if it does not tell; ``devices``: those on each device, by name.
    """
    launch = runner.plan
    seen = {d.name: devices[d.name] for d in launch.devices if d.name in devices}
    shared = [d.name for d in launch.devices if d.integrated]
    host = size - sum(seen.values()) + sum(seen.get(name, 0) for name in shared)
    runner.reserved += max(0, host - launch.host)
    if seen:
        runner.devices = seen
    sizes.remember(size_key(runner.spec, launch), Seen(size, sum(seen.values())))


def _on_devices(runners: Collection[RunnerRecord]) -> dict[str, int]:
    held: dict[str, int] = {}
    for runner in runners:
        for name, size in runner.devices.items():
            held[name] = held.get(name, 0) + size
    return held


def _without(reading: MemoryReading, going: Collection[RunnerRecord]) -> MemoryReading:
    """``reading`` as it would be without these runners, as far as they were promised memory."""
    back = _on_devices(going)
    devices = tuple(
        msgspec.structs.replace(
            device,
            free_memory=min(device.total_memory, device.free_memory + back.get(device.name, 0)),
        )
        for device in reading.devices
    )
    free = reading.free + sum(runner.reserved for runner in going)
    return msgspec.structs.replace(
        reading, devices=devices, free=min(free, reading.total) if reading.total else free
    )
