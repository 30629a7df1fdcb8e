"""What is set aside for runners, and what is remembered of launches: 4.5 step 4, 4.7."""

from __future__ import annotations

import msgspec
from scheduler_world import card, spec

from ollamad.hardware.device import Device
from ollamad.scheduler.failures import NO_RELIEF
from ollamad.scheduler.ledger import REMEMBERED_SIZES, Sizes, planner, settle
from ollamad.scheduler.records import RunnerRecord
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits, MemoryReading, Seen, plan, size_key
from ollamad.scheduler.spec import ModelSpec

CARD = card(0, 24)
SHARED = card(0, 24, integrated=True)


def reading(*devices: Device, free: int = 60) -> MemoryReading:
    return MemoryReading(total=64 * GIB, free=free * GIB, devices=devices)


def record(wanted: ModelSpec, *devices: Device, launch: LaunchPlan | None = None) -> RunnerRecord:
    launch = launch or plan(wanted, reading(*devices), Limits())
    return RunnerRecord(
        id=1,
        spec=wanted,
        plan=launch,
        keep_alive=0,
        reserved=launch.reserved,
        started=0,
        relief=NO_RELIEF,
        devices=launch.on_device,
    )


def more(runner: RunnerRecord, size: float, *on_device: float) -> tuple[float, dict[str, float]]:
    """What is set aside beyond the plan in main memory, and on devices, in GiB."""
    told = dict(zip(["CUDA0"], [int(part * GIB) for part in on_device], strict=False))
    before = runner.reserved
    settle(runner, int(size * GIB), told, Sizes())
    return (runner.reserved - before) / GIB, {n: s / GIB for n, s in runner.devices.items()}


def test_what_a_runner_takes_in_main_memory() -> None:
    assert more(record(spec(gib=4)), 6) == (2, {})
    # It fills its caches later: what it does not take yet stays set aside.
    assert more(record(spec(gib=4)), 3) == (0, {})
    assert more(record(spec(gib=4)), 0) == (0, {}), "it does not tell"


def test_what_a_runner_takes_on_devices() -> None:
    assert more(record(spec(gib=4), CARD), 3, 3) == (0, {"CUDA0": 3})
    assert more(record(spec(gib=4), CARD), 5, 5) == (0, {"CUDA0": 5})
    assert more(record(spec(gib=4), CARD), 7, 5) == (2, {"CUDA0": 5})
    assert more(record(spec(gib=4), CARD), 3) == (3, {"CUDA0": 4}), "nothing about devices"


def test_more_than_ever_in_main_memory_though_it_was_seen_to_take_much() -> None:
    seen = Seen(total=7 * GIB, on_devices=5 * GIB)
    launch = plan(spec(gib=4), reading(CARD), Limits(), measured=lambda _: seen)
    assert (launch.predicted, launch.host, launch.on_device) == (7 * GIB, 0, {"CUDA0": 4 * GIB})
    assert more(record(spec(gib=4), launch=launch), 7, 5) == (2, {"CUDA0": 5})


def test_what_a_runner_takes_on_devices_that_share_main_memory() -> None:
    assert more(record(spec(gib=4), SHARED), 5, 5) == (1, {"CUDA0": 5})
    assert more(record(spec(gib=4), SHARED), 4, 4) == (0, {"CUDA0": 4})


def test_only_so_many_sizes_are_remembered() -> None:
    sizes = Sizes({("old", 1, 1, ""): Seen(1)})
    for number in range(REMEMBERED_SIZES):
        sizes.remember((str(number), 1, 1, ""), Seen(number + 1))
    assert sizes.get(("old", 1, 1, "")) == Seen()
    assert sizes.get(("0", 1, 1, "")) == Seen(1)
    # What is seen again counts as new; what is not told changes nothing.
    sizes.remember(("0", 1, 1, ""), Seen(0))
    sizes.remember(("0", 1, 1, ""), Seen(7))
    sizes.remember(("new", 1, 1, ""), Seen(1))
    assert sizes.get(("0", 1, 1, "")) == Seen(7)
    assert sizes.get(("1", 1, 1, "")) == Seen()
    assert len(sizes.all()) == REMEMBERED_SIZES


def test_how_it_would_be_without_others() -> None:
    other = record(spec("b", gib=16), CARD)
    used = msgspec.structs.replace(CARD, free_memory=8 * GIB)
    without = planner(spec(gib=10), None, [other], reading(used), Limits(), Sizes())
    assert not without(()).placed
    assert without(()).room_on_devices == 8 * GIB
    assert without([other]).room_on_devices == 24 * GIB, "no more than there is"
    assert (without(()).beside_others, without([other]).beside_others) == (True, False)


def test_files_that_others_have_mapped_count() -> None:
    # 4 GiB, a file of 16 that another has mapped, and 8 to keep free are more than 27.
    other = record(spec("b", gib=16), card(1, 24))
    assert other.mapped == 16 * GIB
    for free, use_mmap in ((27, False), (28, None)):
        look = msgspec.structs.replace(reading(CARD, free=free), total=0)
        launch = planner(spec(gib=4), None, [other], look, Limits(), Sizes())(())
        assert launch.use_mmap is use_mmap
    assert record(spec(gib=1)).mapped == 0, "read into memory of its own"


def test_a_size_counts_for_the_same_launch_only() -> None:
    seen = record(spec(gib=4), CARD)
    sizes = Sizes()
    settle(seen, 3 * GIB, {"CUDA0": 3 * GIB}, sizes)
    assert sizes.all() == {size_key(seen.spec, seen.plan): Seen(3 * GIB, 3 * GIB)}
    again = planner(spec(gib=4), None, [], reading(CARD), Limits(), sizes)(())
    assert again.on_device == {"CUDA0": 3 * GIB}
    wider = planner(spec(gib=4, num_ctx=8192), None, [], reading(CARD), Limits(), sizes)(())
    assert wider.on_device == {"CUDA0": 4 * GIB}
