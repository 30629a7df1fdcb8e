"""Memory that comes back late, and what survives a restart: runners-and-scheduling 4.11."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from scheduler_world import card, spec
from trio.testing import MockClock

from ollamad.errors import LoadError, RunnerKeepsDying
from ollamad.hardware.device import Device
from ollamad.scheduler.core import Core
from ollamad.scheduler.recovery import (
    LIMIT,
    LIMIT_AFTER_DEATH,
    STEP,
    discrete,
    free_on,
    held_on,
    until_back,
)
from ollamad.scheduler.shell import Scheduler
from ollamad.scheduler.sizes_file import SizesFile
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits, MemoryReading, Seen
from ollamad.scheduler.spec import ModelSpec


class Use(msgspec.Struct):
    per_device: dict[str, int]
    total: int
    gpu_layers: int = 1
    total_layers: int = 1

    @property
    def vram(self) -> int:
        return sum(self.per_device.values())


class CardRunner:
    def __init__(self, world: CardWorld, plan: LaunchPlan) -> None:
        self.world = world
        self.client = object()
        self.exited = trio.Event()
        self.use = Use(plan.on_device, total=plan.predicted)

    def memory(self) -> Use:
        return self.use

    def termination_text(self) -> str:
        return "signal: killed"

    async def check(self) -> None:
        await trio.lowlevel.checkpoint()

    async def stop(self) -> None:
        self.exit()

    def exit(self) -> None:
        self.exited.set()
        for name, size in self.use.per_device.items():
            self.world.give_back(name, size)


class CardWorld:
    """Devices whose drivers show memory as used for ``lag`` seconds after a process has ended."""

    def __init__(self, *cards: Device, lag: float = 1.0) -> None:
        self.cards = cards
        self.lag = lag
        self.used = {card.name: 0 for card in cards}
        self.late: list[tuple[float, str, int]] = []
        self.readings = 0
        self.failures = 0
        self.broken = False
        self.plans: list[tuple[float, LaunchPlan]] = []
        self.runners: list[CardRunner] = []

    def give_back(self, name: str, size: int) -> None:
        self.late.append((trio.current_time() + self.lag, name, size))

    async def start(self, spec: ModelSpec, plan: LaunchPlan) -> CardRunner:
        self.plans.append((trio.current_time(), plan))
        for name, size in plan.on_device.items():
            self.used[name] += size
        if self.failures:
            self.failures -= 1
            for name, size in plan.on_device.items():
                self.give_back(name, size)
            raise LoadError("no memory", out_of_memory=True)
        runner = CardRunner(self, plan)
        self.runners.append(runner)
        return runner

    async def read(self) -> MemoryReading:
        self.readings += 1
        if self.broken:
            raise OSError("the driver is gone")
        for late in [late for late in self.late if late[0] <= trio.current_time()]:
            self.late.remove(late)
            self.used[late[1]] -= late[2]
        return MemoryReading(
            total=64 * GIB,
            free=60 * GIB,
            devices=tuple(
                msgspec.structs.replace(card, free_memory=card.total_memory - self.used[card.name])
                for card in self.cards
            ),
        )


@asynccontextmanager
async def running(
    world: CardWorld, limits: Limits | None = None, sizes: SizesFile | None = None
) -> AsyncIterator[Scheduler[CardRunner]]:
    core = Core(limits or Limits(), sizes.read() if sizes else None)
    scheduler: Scheduler[CardRunner] = Scheduler(core, world.start, world.read, sizes)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run)
        yield scheduler
        nursery.cancel_scope.cancel()
    assert not list(core.runners())


def loaded_names(scheduler: Scheduler[CardRunner]) -> list[str]:
    return [model.name for model in scheduler.loaded()]


async def use(scheduler: Scheduler[CardRunner], wanted: ModelSpec) -> None:
    async with scheduler.lease(wanted):
        pass


async def test_a_load_waits_until_memory_is_back(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16))
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        before = trio.current_time()
        await use(scheduler, spec("b", gib=10))
        assert trio.current_time() - before == pytest.approx(world.lag, abs=STEP)
        assert world.plans[-1][1].placed, "all of it found room"
        assert loaded_names(scheduler) == ["model-b"]


async def test_a_model_that_has_gone_is_not_shown_while_its_memory_is_not_back(
    autojump_clock: MockClock,
) -> None:
    world = CardWorld(card(0, 16))
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        scheduler.expire("a")
        await trio.sleep(0.5)
        assert world.used["CUDA0"]
        assert scheduler.loaded() == []
        assert not scheduler.is_loaded("a")


async def test_memory_that_never_comes_back_is_not_waited_for_for_ever(
    autojump_clock: MockClock,
) -> None:
    world = CardWorld(card(0, 16), lag=1e9)
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        before = trio.current_time()
        await use(scheduler, spec("b", gib=10))
        assert trio.current_time() - before == pytest.approx(LIMIT, abs=STEP)


async def test_others_are_served_and_loaded_meanwhile(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16), card(1, 16), lag=3)
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        scheduler.expire("a")
        await trio.sleep(0.1)
        before = trio.current_time()
        await use(scheduler, spec("b", gib=10))
        await use(scheduler, spec("b", gib=10))
        assert trio.current_time() == before, "the other device has room"


async def test_a_shutdown_does_not_wait_for_memory(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16), lag=1e9)
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        before = trio.current_time()
    assert trio.current_time() == before


async def test_after_a_crash_the_next_load_gives_the_driver_time(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16))
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        world.runners[0].exit()
        await trio.testing.wait_all_tasks_blocked()
        assert scheduler.loaded() == []
        before = trio.current_time()
        await use(scheduler, spec("a", gib=10))
        assert trio.current_time() - before <= LIMIT_AFTER_DEATH
        assert world.plans[-1][1].placed


async def test_after_memory_ran_out_the_next_try_gives_the_driver_time(
    autojump_clock: MockClock,
) -> None:
    world = CardWorld(card(0, 16))
    world.failures = 1
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10, num_ctx=8192))
        (first, _), (second, plan) = world.plans
        assert second - first == pytest.approx(world.lag, abs=STEP)
        assert (plan.num_ctx, plan.placed) == (4096, True)


async def test_no_device_costs_no_reading(autojump_clock: MockClock) -> None:
    world = CardWorld()
    async with running(world) as scheduler:
        await use(scheduler, spec("a"))
        readings = world.readings
        scheduler.expire("a")
        await trio.sleep(LIMIT)
        assert world.readings == readings == 1


async def test_a_driver_that_fails_holds_up_nothing(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16))
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        world.broken = True
        scheduler.expire("a")
        before = trio.current_time()
        await use(scheduler, spec("b", gib=10))
        assert trio.current_time() == before


async def test_figures_that_never_change_are_not_waited_for(autojump_clock: MockClock) -> None:
    world = CardWorld(card(0, 16))
    async with running(world) as scheduler:
        await use(scheduler, spec("a", gib=10))
        world.used["CUDA0"] = 0
        before = trio.current_time()
        await use(scheduler, spec("b", gib=10))
        assert trio.current_time() == before
        assert loaded_names(scheduler) == ["model-b"], "it was promised, all the same"


async def test_a_model_that_keeps_dying_says_why(autojump_clock: MockClock) -> None:
    world = CardWorld(lag=0)
    async with running(world) as scheduler:

        async def attempt() -> None:
            async with scheduler.lease(spec("a")):
                world.runners[-1].exit()
                await trio.testing.wait_all_tasks_blocked()
                raise ZeroDivisionError

        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await attempt()
        with pytest.raises(RunnerKeepsDying) as error:
            await attempt()
        assert len(world.plans) == 3
        assert error.value.message.endswith(": signal: killed")
        await trio.sleep(error.value.retry_after)
        await use(scheduler, spec("a"))


# --- the parts ---------------------------------------------------------------------------------


def test_which_devices_are_waited_for() -> None:
    metal = card(0, 64, library="Metal")
    shared = card(1, 16, integrated=True)
    assert discrete([]) == discrete([metal]) == discrete([shared]) == frozenset()
    assert discrete([card(0, 8), shared]) == {"CUDA0"}
    assert discrete([metal, card(1, 8, library="Metal")]) == {"Metal0", "Metal1"}
    assert held_on({"CUDA0": 3, "CUDA1": 4}, frozenset({"CUDA1", "CUDA2"})) == 4


def test_a_device_that_is_not_in_the_reading() -> None:
    reading = MemoryReading(devices=(card(0, 8), card(1, 4)))
    assert free_on(reading, frozenset({"CUDA0", "CUDA1"})) == 12 * GIB
    assert free_on(reading, frozenset({"CUDA0", "CUDA7"})) is None
    assert free_on(None, frozenset({"CUDA0"})) is None


@pytest.mark.parametrize(
    ("before", "readings", "back"),
    [
        (8, [8, 8, 15.4, 15.6], True),
        # Others take more than what comes back: signed, or it would look like a lot.
        (8, [0] * 99, False),
        (8, [15.4] * 99, False),
    ],
)
async def test_when_it_is_back(
    autojump_clock: MockClock, before: int, readings: list[float], back: bool
) -> None:
    left = [int(free * GIB) for free in readings]

    async def read() -> MemoryReading:
        free = left.pop(0)
        return MemoryReading(devices=(msgspec.structs.replace(card(0, 80), free_memory=free),))

    names = frozenset({"CUDA0"})
    assert await until_back(read, names, 10 * GIB, before * GIB, LIMIT) is back
    assert trio.current_time() <= LIMIT
    assert bool(left) is not back


# --- the file ----------------------------------------------------------------------------------

KNOWN = {("/a\n/b", 4096, 1, ""): Seen(3, 2), ("/c", 8192, 2, "q8_0"): Seen(5)}


def test_the_file_gives_back_what_it_got(tmp_path: Path) -> None:
    file = SizesFile(tmp_path / "cache" / "sizes.json")
    assert file.read() == {}
    file.write(KNOWN)
    assert list(file.read().items()) == list(KNOWN.items())
    file.write({})
    assert file.read() == {}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["sizes.json"]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"version": 2, "launches": []}',
        b'{"version": 1, "launches": [{"key": "a"}]}',
        b"[" * 100_000,
        b" " * (5 << 20),
    ],
)
def test_a_damaged_file_is_an_empty_one(tmp_path: Path, damage: bytes) -> None:
    file = SizesFile(tmp_path / "sizes.json")
    file.path.write_bytes(damage)
    assert file.read() == {}
    file.write(KNOWN)
    assert file.read() == KNOWN


def test_figures_that_cannot_be_are_not_believed(tmp_path: Path) -> None:
    file = SizesFile(tmp_path / "sizes.json")
    wrong = [Seen(-1), Seen(0), Seen(3, 4), Seen(3, -1), Seen(1 << 60)]
    file.write({(str(i), 1, 1, ""): seen for i, seen in enumerate(wrong)} | KNOWN)
    assert file.read() == KNOWN


def test_the_file_is_bounded(tmp_path: Path) -> None:
    file = SizesFile(tmp_path / "sizes.json")
    file.write({(str(i), 1, 1, ""): Seen(i + 1) for i in range(1000)})
    assert [seen.total for seen in file.read().values()] == list(range(745, 1001))


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = SizesFile(tmp_path / "file" / "sizes.json")
    file.write(KNOWN)
    assert file.read() == {}


async def test_what_was_seen_counts_after_a_restart(tmp_path: Path) -> None:
    file = SizesFile(tmp_path / "sizes.json")
    world = CardWorld(card(0, 16), lag=0)
    async with running(world, sizes=file) as scheduler:
        await use(scheduler, spec("a", gib=13))
        assert not world.plans[0][1].placed
        while not file.read():
            await trio.lowlevel.checkpoint()
        world.runners[0].use.per_device.clear()
    ((key, seen),) = file.read().items()
    assert (key[0], seen) == ("a", Seen(13 * GIB, 13 * GIB))
    file.write({key: Seen(11 * GIB, 11 * GIB)})
    world = CardWorld(card(0, 16), lag=0)
    async with running(world, sizes=file) as scheduler:
        await use(scheduler, spec("a", gib=13))
        assert world.plans[0][1].placed
        assert world.plans[0][1].predicted == 11 * GIB
