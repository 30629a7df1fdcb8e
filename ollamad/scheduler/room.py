"""Who goes when a load needs room.

Contract: ``runners-and-scheduling.md`` 4.5 step 6 and 4.9. Pure: it chooses and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from ollamad.scheduler.records import RunnerRecord, State, usefulness
from ollamad.scheduler.sizing import LaunchPlan, Verdict

#: How a launch would be if these were gone.
PlannedWithout = Callable[[Collection[RunnerRecord]], LaunchPlan]

#: Less than this part of a model is not worth another model's place.
_WORTH = 0.05


def victim(runners: Collection[RunnerRecord]) -> RunnerRecord:
    """Which of ``runners`` goes when a place is needed.

    One that is stopping already; else the least useful idle one; else the one that is condemned
    already, or the choice could move on for ever; else the least useful.
    """
    for runner in runners:
        if runner.state is State.STOPPING:
            return runner
    return _order(runners, busy_too=True)[0]


def victim_on_devices(
    runners: Collection[RunnerRecord],
    launch: LaunchPlan,
    planned_without: PlannedWithout,
) -> RunnerRecord | None:
    """Which runner goes for a launch that does not fit on devices; None when that would not help.

    Only as many go as are needed for the whole model; when all are not enough, as many as win it a
    fair part of its layers. A number of layers that the user named is not fitted, and counts like
    all the others. Nobody goes for a launch that is refused all the same.
    """
    holders = [runner for runner in runners if any(runner.devices.values())]
    if launch.placed or not holders:
        return None
    for runner in holders:
        if runner.state is State.STOPPING:
            return runner
    order = _order(holders, busy_too=True)
    best = planned_without(order)
    if best.verdict in (Verdict.TOO_LARGE, Verdict.NO_GPU):
        return None
    if not best.placed and _share(best) <= _share(launch) + _WORTH:
        return None

    def is_enough(going: Collection[RunnerRecord]) -> bool:
        there = planned_without(going)
        return there.placed if best.placed else _share(there) >= _share(best) - _WORTH

    return _fewest(order, is_enough)[0]


def victim_in_memory(
    runners: Collection[RunnerRecord],
    launch: LaunchPlan,
    planned_without: PlannedWithout,
) -> RunnerRecord | None:
    """Which runner goes for a launch that main memory has no room for; None when nobody does.

    Idle ones go rather than that memory is swapped out, busy ones only if it must be. Only as many
    go as are needed.
    """
    if launch.verdict not in (Verdict.NEEDS_SWAP, Verdict.NEEDS_ROOM):
        return None
    for runner in runners:
        if runner.state is State.STOPPING:
            return runner
    order = _order(runners, busy_too=launch.verdict is Verdict.NEEDS_ROOM)
    enough = {Verdict.FITS}
    if launch.verdict is Verdict.NEEDS_ROOM:
        enough.add(Verdict.NEEDS_SWAP)

    def is_enough(going: Collection[RunnerRecord]) -> bool:
        return planned_without(going).verdict in enough

    going = _fewest(order, is_enough)
    if launch.verdict is Verdict.NEEDS_SWAP and not is_enough(going):
        # It will be swapped out in any case: those stay who would hardly make that less.
        going = [runner for runner in going if runner.reserved > _WORTH * launch.host]
    return going[0] if going else None


def _fewest(
    order: list[RunnerRecord], is_enough: Callable[[Collection[RunnerRecord]], bool]
) -> list[RunnerRecord]:
    """Of ``order``, the least useful first, those that have to go; all if all are not enough."""
    going = order
    for count in range(1, len(order)):
        if is_enough(order[:count]):
            going = order[:count]
            break
    # The last one is needed. Of the others the most useful may stay if it goes without them.
    for runner in going[-2::-1]:
        without = [other for other in going if other is not runner]
        if is_enough(without):
            going = without
    return going


def _share(launch: LaunchPlan) -> float:
    """The part of what is wanted on devices that there is room for."""
    return min(1.0, launch.room_on_devices / max(1, launch.wanted_on_devices))


def _order(runners: Collection[RunnerRecord], *, busy_too: bool) -> list[RunnerRecord]:
    """The least useful first; idle ones before busy ones, of these the condemned first."""
    return sorted(
        (runner for runner in runners if busy_too or not runner.leases),
        key=lambda runner: (
            runner.leases > 0,
            runner.leases > 0 and runner.condemned is None,
            usefulness(runner),
        ),
    )
