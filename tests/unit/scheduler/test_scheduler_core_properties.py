"""Whatever the order of events: no lease is lost, nobody starves, no limit is passed, none leaks.

Hypothesis makes up bytes; each test reads them as events for ``World``, which checks the rules
after every single one. ``scheduler_world`` lists them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scheduler_world import SECOND, World, card, spec

from ollamad.errors import LoadError, ServerBusy
from ollamad.hardware.device import Device
from ollamad.scheduler.options import Auto
from ollamad.scheduler.sizing import GIB, Limits
from ollamad.scheduler.spec import ModelSpec
from ollamad.wire import FOREVER

PROFILE = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

#: Four models; two sizes of context on the first two; one too large for the machine of 6 GiB; one
#: that only fits alone; an embedding model.
SPECS: list[ModelSpec] = [
    spec("a"),
    spec("a", num_ctx=8192, auto=Auto()),
    spec("b", gib=2),
    spec("b", gib=2, num_ctx=2048, auto=Auto()),
    spec("c", gib=3, completion=False),
    spec("d", gib=5),
    spec("e", gib=7),
    spec("f", gib=0.5, num_ctx=65536),
    spec("g", gib=3, num_gpu=2, shape={"kv_heads": (0,) * 7}),
    spec("h", gib=4, num_gpu=99, main_gpu=1, shape={"kv_heads": (0,) * 7}),
    spec("i", gib=2, num_gpu=0),
    spec("j", gib=9, shape={"kv_heads": (0,) * 31}),
]
#: The machines' devices; the main memory is 6 GiB, or what the test says.
MACHINES: dict[str, tuple[Device, ...]] = {
    "none": (),
    "one": (card(0, 8),),
    "unequal": (card(0, 4), card(1, 12)),
    "many": tuple(card(i, 6) for i in range(4)),
    "unified": (card(0, 6, library="Metal", integrated=True),),
    "mixed": (card(0, 6), card(0, 5, library="Vulkan", integrated=True), card(1, 5)),
}
KEEP_ALIVES = [None, None, 0, SECOND, 300 * SECOND, FOREVER]

limits = st.builds(
    Limits,
    max_queue=st.sampled_from([0, 1, 2, 5, 20]),
    max_loaded=st.sampled_from([0, 1, 2, 3]),
    parallel=st.sampled_from([1, 1, 2, 4]),
    keep_alive=st.sampled_from([0, 2 * SECOND, 300 * SECOND, FOREVER]),
    memory_guard=st.booleans(),
    spread=st.booleans(),
    gpu_overhead=st.sampled_from([0, GIB]),
    require_gpu=st.sampled_from([False, False, True]),
)
machines = st.sampled_from(list(MACHINES.values()))

#: Bytes that hypothesis can shrink, and long random ones for breadth.
scripts = st.binary(min_size=60, max_size=600) | st.builds(
    lambda seed, size: random.Random(seed).randbytes(size),
    st.integers(0, 2**32),
    st.integers(60, 1500),
)


def step(world: World, choose: Iterator[int]) -> None:
    """Read one event from ``choose`` and let it happen, if it can."""
    kind = next(choose) % 32
    pick = next(choose)
    if kind < 10:
        wanted = SPECS[pick % len(SPECS)]
        keep_alive = KEEP_ALIVES[next(choose) % len(KEEP_ALIVES)]
        world.ask(wanted, keep_alive, slot=pick % 5 != 0)
    elif kind < 16 and world.leases:
        world.release(list(world.leases)[pick % len(world.leases)], served=pick % 3 != 0)
    elif kind < 18 and world.waiting:
        world.cancel(world.waiting[pick % len(world.waiting)])
    elif kind < 21 and world.measuring:
        world.measured()
    elif kind < 24 and world.loading:
        loading = world.loading[0]
        _, launch = world.alive[loading]
        if pick % 3:
            # It takes more or less there than was thought.
            told = {name: size * (pick % 5 + 2) // 4 for name, size in launch.on_device.items()}
            world.load(loading, size=launch.predicted, devices=told)
        else:
            world.load(loading, size=(pick % 4) * GIB)
    elif kind == 24 and world.loading:
        world.fail(world.loading[0], LoadError("no", out_of_memory=pick % 2 == 0))
    elif kind == 25 and world.aborted:
        world.load_after_all(world.aborted[0])
    elif kind < 28 and world.stopping:
        world.stopped(world.stopping[pick % len(world.stopping)])
    elif kind == 28 and world.ready:
        runner = world.ready[pick // 2 % len(world.ready)]
        (world.crash if pick % 2 else world.die)(runner)
    elif kind == 29:
        world.expire(SPECS[pick % len(SPECS)].key)
    elif kind == 30 and world.leases and pick % 2:
        world.condemn(list(world.leases)[pick % len(world.leases)])
    elif kind == 30 and pick % 4 == 0:
        world.expire_all()
    elif kind == 31 and world.cards and pick % 2:
        other = world.cards[pick % len(world.cards)]
        world.foreign[other.name] = other.total_memory * (pick % 7) // 6
    else:
        world.pass_time(pick * SECOND // 16)


def play(world: World, script: bytes) -> None:
    choose = iter(script)
    try:
        while True:
            step(world, choose)
    except StopIteration:
        return


@PROFILE
@given(limits=limits, script=scripts, swap=st.sampled_from([0, 2]), cards=machines)
def test_all_rules_hold_and_everything_ends(
    limits: Limits, script: bytes, swap: int, cards: tuple[Device, ...]
) -> None:
    world = World(limits, total=6 * GIB, swap=swap * GIB, cards=cards)
    play(world, script)
    ends(world)


def ends(world: World) -> None:
    """All that is under way comes to its end, and nothing is left."""
    # With no more requests, everybody who waits is served or refused...
    world.settle(release=True)
    assert not world.waiting
    assert not world.leases
    # ...and every model goes when its time has come, or when the daemon ends.
    world.pass_time(10**6 * SECOND)
    world.settle()
    assert all(runner.keep_alive >= FOREVER for runner in world.core.runners())
    world.drain()
    world.settle(release=True)
    world.check_empty()


@PROFILE
@given(limits=limits, script=scripts, cards=machines)
def test_a_drain_at_any_moment_leaves_nothing(
    limits: Limits, script: bytes, cards: tuple[Device, ...]
) -> None:
    world = World(limits, total=6 * GIB, cards=cards)
    play(world, script)
    world.drain()
    assert not world.waiting
    late = world.ask(SPECS[0])
    assert late in world.refused_for_shutdown()
    world.settle(release=True)
    world.check_empty()


@settings(PROFILE, max_examples=100)
@given(limits=limits, script=scripts, seed=st.integers(0, 2**32), cards=machines)
def test_nobody_starves_in_a_flood(
    limits: Limits, script: bytes, seed: int, cards: tuple[Device, ...]
) -> None:
    """From any state: a request that waits is answered in a bounded number of outcomes.

    Meanwhile requests that what is loaded could serve at once never stop, with every keep-alive,
    so that no runner would ever be idle if they all were let in.
    """
    world = World(msgspec.structs.replace(limits, max_queue=80), total=6 * GIB, cards=cards)
    play(world, script)
    choice = random.Random(seed)
    mine = world.ask(choice.choice(SPECS))
    ahead = len(world.waiting) + len(world.leases) + len(world.alive)
    outcomes = 0
    while mine in world.waiting:
        for wanted, plan in list(world.alive.values()):
            for _ in range(plan.parallel):
                world.ask(wanted, choice.choice(KEEP_ALIVES), slot=choice.random() < 0.9)
        outcomes += 1
        # Each request ahead costs at most: unloading all, measuring each time, one load retried.
        assert outcomes < 60 + ahead * 30, "starved"
        if world.measuring:
            world.measured()
        elif world.stopping and choice.random() < 0.7:
            world.stopped(choice.choice(world.stopping))
        elif world.loading and choice.random() < 0.7:
            world.load(world.loading[0])
        elif world.leases:
            world.release(min(world.leases))


@PROFILE
@given(queue=st.integers(0, 40), clients=st.integers(1, 80), parallel=st.integers(1, 4))
@example(queue=32, clients=64, parallel=1)
def test_every_client_of_a_rush_gets_an_answer(queue: int, clients: int, parallel: int) -> None:
    world = World(Limits(max_queue=queue, parallel=parallel, max_loaded=2))
    tickets = [world.ask(spec("ab"[i % 2])) for i in range(clients)]
    world.settle(release=True)
    busy = [t for t in tickets if isinstance(world.errors.get(t), ServerBusy)]
    assert len(busy) == max(0, clients - queue - 1)
    assert len(busy) + len(world.grants) == clients


#: Together more than 200,000 events, whatever the scripts happen to hold.
EVENTS_A_MACHINE = 35_000


@pytest.mark.parametrize("machine", MACHINES)
def test_many_events(machine: str) -> None:
    """Long lives: what builds up slowly, what comes together once in ten thousand times."""
    choice = random.Random(machine)
    events = deaths = 0
    while events < EVENTS_A_MACHINE:
        limits = Limits(
            max_queue=choice.choice([2, 5, 20]),
            max_loaded=choice.choice([0, 1, 2, 5]),
            parallel=choice.choice([1, 2, 4]),
            keep_alive=choice.choice([0, 2 * SECOND, 300 * SECOND, FOREVER]),
            spread=choice.random() < 0.3,
            require_gpu=choice.random() < 0.2,
        )
        total = choice.choice([6, 16]) * GIB
        world = World(
            limits, total=total, swap=choice.choice([0, 2 * GIB]), cards=MACHINES[machine]
        )
        play(world, choice.randbytes(10_000))
        ends(world)
        events += world.events
        deaths += world.forgiven + sum(died.until > 0 for died in world.deaths.values())
    assert deaths, "no model was ever left alone"
