"""The scheduler under trio, with runners that are made up and a clock that jumps."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest
import trio
from scheduler_world import SECOND, card, spec
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.errors import (
    LoadError,
    NotFound,
    OllamadError,
    RunnerError,
    RunnerUnfit,
    ServerBusy,
    ShuttingDown,
)
from ollamad.scheduler.core import Core
from ollamad.scheduler.shell import MEASURE_DEADLINE, STOP_DEADLINE, Scheduler
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits, MemoryReading
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import FOREVER


@dataclass
class Use:
    total: int = 3 * GIB
    vram: int = GIB
    per_device: dict[str, int] = field(default_factory=lambda: {"CUDA0": GIB})
    gpu_layers: int = 0
    total_layers: int = 0


class MadeUpRunner:
    def __init__(self, world: MadeUpWorld, key: str) -> None:
        self.world = world
        self.key = key
        self.client = object()
        self.exited = trio.Event()
        self.sickness = world.sickness

    def memory(self) -> Use:
        return Use()

    async def check(self) -> None:
        await trio.sleep(self.world.check_seconds)
        if self.sickness is not None:
            raise self.sickness

    async def stop(self) -> None:
        assert not self.exited.is_set()
        await trio.sleep(self.world.stop_seconds)
        self.exit()

    def termination_text(self) -> str:
        return "llama-server process has terminated: signal: killed"

    def exit(self) -> None:
        if not self.exited.is_set():
            self.exited.set()
            self.world.alive.remove(self)


class MadeUpWorld:
    """Starts runners as told; knows which are alive and what was begun and never finished."""

    def __init__(self) -> None:
        self.load_seconds = 1.0
        self.stop_seconds = 0.1
        self.measure_seconds = 0.0
        self.check_seconds = 0.0
        #: What is wrong with runners from their start.
        self.sickness: OllamadError | None = None
        self.failure: Exception | None = None
        self.alive: list[MadeUpRunner] = []
        self.starts: list[str] = []
        self.unfinished = 0

    async def start(self, wanted: ModelSpec, plan: LaunchPlan) -> MadeUpRunner:
        self.starts.append(wanted.key)
        self.unfinished += 1
        try:
            await trio.sleep(self.load_seconds)
            if self.failure is not None:
                raise self.failure
        finally:
            self.unfinished -= 1
        runner = MadeUpRunner(self, wanted.key)
        self.alive.append(runner)
        return runner

    async def read_memory(self) -> MemoryReading:
        await trio.sleep(self.measure_seconds)
        return MemoryReading(total=64 * GIB, free=60 * GIB)


@asynccontextmanager
async def running(
    world: MadeUpWorld, limits: Limits | None = None
) -> AsyncIterator[Scheduler[MadeUpRunner]]:
    core = Core(limits or Limits())
    scheduler = Scheduler(core, world.start, world.read_memory)
    async with trio.open_nursery() as nursery:
        await nursery.start(scheduler.run)
        yield scheduler
        nursery.cancel_scope.cancel()
    assert not world.alive, "a runner outlived the scheduler"
    assert not world.unfinished, "a start outlived the scheduler"
    assert not core.leases
    assert not core.waiting
    assert not list(core.runners())


async def hold(
    scheduler: Scheduler[MadeUpRunner],
    wanted: ModelSpec,
    seconds: float,
    outcomes: list[object] | None = None,
) -> None:
    try:
        async with scheduler.lease(wanted) as lease:
            await trio.sleep(seconds)
            outcome: object = lease.runner
    except OllamadError as error:
        outcome = error
    if outcomes is not None:
        outcomes.append(outcome)


async def test_a_lease_gives_a_runner_and_how_long_it_took(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    world.measure_seconds = 0.5
    async with running(world) as scheduler:
        async with scheduler.lease(spec()) as first:
            assert first.runner is world.alive[0]
            assert first.num_ctx == 4096
            assert first.queued_ns == pytest.approx(1.5 * SECOND)
            assert first.loaded_ns == pytest.approx(SECOND)
        async with scheduler.lease(spec()) as second:
            assert second.runner is first.runner
            assert second.queued_ns == second.loaded_ns == 0


async def test_whether_a_model_is_loaded(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler, trio.open_nursery() as nursery:
        assert not scheduler.is_loaded("a")
        nursery.start_soon(hold, scheduler, spec("a"), 1.0)
        await trio.sleep(0.9)
        assert not scheduler.is_loaded("a")
        await trio.sleep(0.2)
        assert scheduler.is_loaded("a")
        assert not scheduler.is_loaded("b")
        world.alive[0].exit()
        await wait_all_tasks_blocked()
        assert not scheduler.is_loaded("a")


async def test_keep_alive(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world, Limits(keep_alive=5 * SECOND)) as scheduler:
        async with scheduler.lease(spec("a")):
            pass
        async with scheduler.lease(spec("b"), keep_alive=10 * SECOND):
            pass
        # "a" became idle one second before "b".
        await trio.sleep(3.9)
        assert [r.key for r in world.alive] == ["a", "b"]
        await trio.sleep(0.3)
        assert [r.key for r in world.alive] == ["b"]
        await trio.sleep(5.7)
        assert [r.key for r in world.alive] == ["b"]
        await trio.sleep(0.3)
        assert world.alive == []
        assert scheduler.loaded() == []


async def test_a_shorter_keep_alive_wakes_the_timer(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world, Limits(keep_alive=3600 * SECOND)) as scheduler:
        async with scheduler.lease(spec("a")):
            pass
        await trio.sleep(1)
        async with scheduler.lease(spec("a"), keep_alive=2 * SECOND):
            pass
        await trio.sleep(2.2)
        assert world.alive == []


async def test_loading_only_keeps_no_slot(autojump_clock: MockClock) -> None:
    async with (
        running(MadeUpWorld()) as scheduler,
        scheduler.lease(spec(), slot=False) as loaded,
        scheduler.lease(spec()) as lease,
    ):
        assert lease.runner is loaded.runner


async def test_a_client_that_leaves_ends_the_load(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        with trio.move_on_after(0.5):
            async with scheduler.lease(spec()):
                raise AssertionError("it takes a second to load")
        await wait_all_tasks_blocked()
        assert world.unfinished == 0
        assert scheduler.loaded() == []
        async with scheduler.lease(spec()):
            assert world.starts == ["a", "a"]


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_a_client_that_leaves_while_its_lease_is_granted_gives_it_back(
    cancelled_first: bool, autojump_clock: MockClock
) -> None:
    async with running(MadeUpWorld()) as scheduler, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def leaves() -> None:
            with scope:
                async with scheduler.lease(spec()):
                    await trio.sleep_forever()

        async with scheduler.lease(spec()):
            nursery.start_soon(leaves)
            await wait_all_tasks_blocked()
            if cancelled_first:
                scope.cancel()
        # Leaving has granted the lease to the other task, which has not run since.
        scope.cancel()
        with trio.fail_after(1):
            async with scheduler.lease(spec()):
                pass


async def test_a_lease_is_given_back_whatever_ends_it(autojump_clock: MockClock) -> None:
    async with running(MadeUpWorld()) as scheduler:
        with pytest.raises(ZeroDivisionError):
            async with scheduler.lease(spec()):
                raise ZeroDivisionError
        with trio.move_on_after(1):
            async with scheduler.lease(spec()):
                await trio.sleep_forever()
        with trio.fail_after(1):
            async with scheduler.lease(spec()):
                pass


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (LoadError("exit status 1"), LoadError, "exit status 1"),
        (
            FileNotFoundError("/blobs/x"),
            NotFound,
            'model "model-a" not found, try pulling it first',
        ),
        (PermissionError("denied"), LoadError, "denied"),
        (ZeroDivisionError("bug"), LoadError, "loading the model failed: bug"),
    ],
)
async def test_loads_that_fail(
    failure: Exception, kind: type[OllamadError], text: str, autojump_clock: MockClock
) -> None:
    world = MadeUpWorld()
    world.failure = failure
    outcomes: list[object] = []
    async with running(world) as scheduler:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(hold, scheduler, spec(), 1, outcomes)
        assert [type(outcome) for outcome in outcomes] == [kind, kind]
        assert [getattr(outcome, "message", "") for outcome in outcomes] == [text, text]
        assert world.starts == ["a"]
        world.failure = None
        async with scheduler.lease(spec()):
            pass


async def test_a_runner_that_ends_by_itself_is_replaced(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler, scheduler.lease(spec()) as lease:
        lease.runner.exit()
        await wait_all_tasks_blocked()
        assert scheduler.loaded() == []
        async with scheduler.lease(spec()) as other:
            assert other.runner is not lease.runner


async def test_a_runner_that_does_not_answer_is_replaced(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        async with scheduler.lease(spec()) as lease:
            lease.condemn("does not answer")
        async with scheduler.lease(spec()) as other:
            assert other.runner is not lease.runner
        assert len(world.alive) == 1


async def test_a_runner_that_got_unfit_is_replaced_before_it_is_used(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        async with scheduler.lease(spec()) as lease:
            lease.runner.sickness = RunnerUnfit("llama-server error: sick")
        for slot in (False, True):
            async with scheduler.lease(spec(), slot=slot) as other:
                assert other.runner is not lease.runner
        assert world.starts == ["a", "a"]
        assert len(world.alive) == 1


async def test_a_runner_that_is_unfit_when_it_comes_is_not_loaded_over_and_over(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    world.sickness = RunnerUnfit("llama-server error: sick")
    async with running(world) as scheduler:
        async with scheduler.lease(spec(), slot=False):
            pass
        with pytest.raises(RunnerUnfit, match="llama-server error: sick"):
            async with scheduler.lease(spec()):
                pass
        assert world.starts == ["a", "a"], "the first was replaced, and the second is as bad"
        await trio.sleep(1)
        assert world.alive == []


async def test_a_runner_that_is_not_ready_is_kept(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    world.sickness = RunnerError("no slots available after 10 retries")
    async with running(world) as scheduler:
        for _ in range(2):
            with pytest.raises(RunnerError, match="no slots"):
                async with scheduler.lease(spec()):
                    pass
        world.alive[0].sickness = None
        async with scheduler.lease(spec()):
            assert world.starts == ["a"]


async def test_a_client_that_leaves_while_its_runner_is_checked(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    world.check_seconds = 5
    async with running(world) as scheduler:
        with trio.move_on_after(3) as scope:
            async with scheduler.lease(spec()):
                raise AssertionError("the check takes longer")
        assert scope.cancelled_caught
        assert [model.leases for model in scheduler.loaded()] == [0]


async def test_a_runner_that_cannot_be_stopped_does_not_hold_up_the_queue(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    async with running(world, Limits(max_loaded=1)) as scheduler:
        async with scheduler.lease(spec("a")):
            stuck = world.alive[0]
        world.stop_seconds = 1000
        async with scheduler.lease(spec("b")) as lease:
            assert lease.queued_ns == pytest.approx((STOP_DEADLINE + 1) * SECOND)
        world.stop_seconds = 0.1
        stuck.exit()


async def test_memory_that_cannot_be_read_does_not_hold_up_the_queue(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    world.measure_seconds = 1000
    async with running(world) as scheduler, scheduler.lease(spec()) as lease:
        assert lease.queued_ns == pytest.approx((MEASURE_DEADLINE + 1) * SECOND)


async def test_devices_are_used_though_their_memory_cannot_be_read(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    nearly_full = msgspec.structs.replace(card(0, 16), free_memory=GIB)
    readings = [MemoryReading(total=64 * GIB, free=60 * GIB, devices=(nearly_full,))]
    plans: list[LaunchPlan] = []
    start = world.start

    async def read_memory() -> MemoryReading:
        if not readings:
            raise OSError("the driver is ill")
        return readings.pop()

    async def started(wanted: ModelSpec, plan: LaunchPlan) -> MadeUpRunner:
        plans.append(plan)
        return await start(wanted, plan)

    world.read_memory = read_memory  # type: ignore[method-assign]
    world.start = started  # type: ignore[method-assign]
    async with running(world) as scheduler:
        for key in "ab":
            async with scheduler.lease(spec(key, gib=5)):
                pass
    assert [[device.name for device in plan.devices] for plan in plans] == [["CUDA0"]] * 2
    # How much is free now nobody knows, but the first runner was promised one GiB.
    assert [plan.room_on_devices for plan in plans] == [GIB, 15 * GIB]


async def test_what_ps_shows(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        async with scheduler.lease(spec("a"), keep_alive=60 * SECOND):
            pass
        async with scheduler.lease(spec("b"), keep_alive=FOREVER):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, scheduler, spec("c", gib=2), 1)
            await trio.sleep(0.5)
            b, a = scheduler.loaded()
        assert (b.name, b.key, b.size, b.size_vram, b.num_ctx) == (
            "model-b",
            "b",
            3 * GIB,
            GIB,
            4096,
        )
        assert (b.devices, b.reason) == ({"CUDA0": GIB}, "on the CPU: no GPU was found")
        assert b.expires_in == FOREVER
        assert a.expires_in == pytest.approx(58.5 * SECOND)


async def test_unload_by_key_or_name(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        for key in "ab":
            async with scheduler.lease(spec(key)):
                pass
        assert scheduler.expire("a")
        assert scheduler.expire("model-b")
        assert not scheduler.expire("c")
        assert [model.expires_in <= 0 for model in scheduler.loaded()] == [True, True]
        await trio.sleep(0.2)
        assert world.alive == []


async def test_unloading_everything(autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    async with running(world) as scheduler:
        async with scheduler.lease(spec("a")), scheduler.lease(spec("b")):
            scheduler.expire_all()
            await trio.sleep(1)
            assert len(world.alive) == 2
        await trio.sleep(0.2)
        assert world.alive == []


@pytest.mark.parametrize(("seconds", "in_time"), [(2, True), (20, False)])
async def test_draining(seconds: float, in_time: bool, autojump_clock: MockClock) -> None:
    world = MadeUpWorld()
    outcomes: list[object] = []
    async with running(world) as scheduler, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(hold, scheduler, spec(), seconds, outcomes)
        await trio.sleep(1.5)
        started = trio.current_time()
        assert await scheduler.drain(5) is in_time
        assert trio.current_time() - started == pytest.approx(1.5 if in_time else 5)
        assert isinstance(outcomes[0], ShuttingDown), "who waited was turned away at once"
        with pytest.raises(ShuttingDown):
            async with scheduler.lease(spec()):
                pass
        nursery.cancel_scope.cancel()


async def test_draining_when_nothing_runs(autojump_clock: MockClock) -> None:
    async with running(MadeUpWorld()) as scheduler:
        assert await scheduler.drain(5)
        assert trio.current_time() == 0


async def test_when_it_is_cancelled_nobody_waits_and_no_runner_is_left(
    autojump_clock: MockClock,
) -> None:
    world = MadeUpWorld()
    outcomes: list[object] = []
    core = Core(Limits())
    scheduler = Scheduler(core, world.start, world.read_memory)
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as nursery:
            await nursery.start(scheduler.run)
            async with scheduler.lease(spec("a")):
                pass
            world.load_seconds = 100
            for key in "abc":
                clients.start_soon(hold, scheduler, spec(key), 5, outcomes)
            await trio.sleep(1)
            assert (len(world.alive), world.unfinished) == (1, 1)
            nursery.cancel_scope.cancel()
        assert (world.alive, world.unfinished, list(core.runners())) == ([], 0, [])
        await wait_all_tasks_blocked()
        assert [type(outcome) for outcome in outcomes] == [ShuttingDown, ShuttingDown]
        assert core.leases == 1, "one client has not noticed yet"
        with pytest.raises(ShuttingDown):
            async with scheduler.lease(spec()):
                pass
    assert core.leases == 0


async def test_asking_before_it_runs() -> None:
    world = MadeUpWorld()
    with pytest.raises(ShuttingDown):
        async with Scheduler(Core(Limits()), world.start, world.read_memory).lease(spec()):
            pass


async def test_a_rush_of_clients(autojump_clock: MockClock) -> None:
    """64 clients, two models, 32 places to wait: an answer or a refusal each, and nothing left."""
    world = MadeUpWorld()
    outcomes: list[object] = []
    async with running(world, Limits(max_queue=32, keep_alive=SECOND)) as scheduler:
        for key in "ab":
            async with scheduler.lease(spec(key), keep_alive=FOREVER):
                pass
        async with trio.open_nursery() as nursery:
            for i in range(64):
                nursery.start_soon(hold, scheduler, spec("ab"[i % 2]), 0.5, outcomes)
        assert len(outcomes) == 64
        assert sum(isinstance(outcome, ServerBusy) for outcome in outcomes) == 64 - 2 - 32
        assert sorted(model.key for model in scheduler.loaded()) == ["a", "b"]
        assert [model.leases for model in scheduler.loaded()] == [0, 0]


@pytest.mark.parametrize("seed", range(20))
async def test_clients_that_come_and_go_as_they_like(seed: int, autojump_clock: MockClock) -> None:
    choice = random.Random(seed)
    world = MadeUpWorld()
    limits = Limits(
        max_queue=choice.choice([2, 10, 100]),
        max_loaded=choice.choice([1, 2]),
        parallel=choice.choice([1, 3]),
        keep_alive=choice.choice([0, SECOND]),
    )
    ended = 0

    async def client(scheduler: Scheduler[MadeUpRunner]) -> None:
        nonlocal ended
        await trio.sleep(choice.uniform(0, 20))
        wanted = spec(choice.choice("abc"), num_ctx=choice.choice([4096, 2048]))
        with trio.move_on_after(choice.choice([0.3, 1.5, 1000])):
            await hold(scheduler, wanted, choice.choice([0, 0.2, 3]))
        ended += 1

    async def trouble(scheduler: Scheduler[MadeUpRunner]) -> None:
        for _ in range(20):
            await trio.sleep(choice.uniform(0, 2))
            if world.alive and choice.random() < 0.5:
                choice.choice(world.alive).exit()
            world.failure = choice.choice([None, None, None, LoadError("no")])
            scheduler.expire(choice.choice("abc"))

    async with running(world, limits) as scheduler:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble, scheduler)
            for _ in range(100):
                nursery.start_soon(client, scheduler)
        assert ended == 100
        await trio.sleep(5)
        assert world.alive == []
