"""The scheduler's decisions where there are devices: runners-and-scheduling 4.5, 4.6, 4.9, 8.7."""

from __future__ import annotations

import pytest
from scheduler_world import SECOND, World, card, spec

from ollamad.errors import LoadError, RunnerKeepsDying
from ollamad.scheduler.failures import DEATHS, DEATHS_WINDOW, FIRST_PAUSE, LONGEST_PAUSE
from ollamad.scheduler.options import Auto
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits
from ollamad.wire import FOREVER

MINUTE = 60 * SECOND
EXPLICIT = Auto()
#: With the output layer there are 32.
LAYERS = {"kv_heads": (0,) * 31}


def loaded(world: World) -> str:
    """The keys of the models that are ready, sorted."""
    return "".join(sorted(world.alive[runner][0].key for runner in world.ready))


def serve(world: World, key: str, keep_alive: int | None = None, **wanted: object) -> LaunchPlan:
    """One whole request for a model, a second after whatever came before. Returns its launch."""
    world.pass_time(SECOND)
    ticket = world.ask(spec(key, **wanted), keep_alive)  # type: ignore[arg-type]
    world.settle()
    launch = world.alive[world.leases[ticket]][1]
    world.release(ticket)
    world.settle()
    return launch


def places(launch: LaunchPlan) -> list[str]:
    return [device.name for device in launch.devices]


# --- room on devices -------------------------------------------------------------------------


def test_models_side_by_side_and_the_next_one_takes_an_idle_ones_place() -> None:
    world = World(cards=(card(0, 16),))
    serve(world, "a", gib=5)
    serve(world, "b", gib=5)
    assert loaded(world) == "ab"
    serve(world, "c", gib=6)
    # 6 are more than 80 % of the 6 that are left; a was used before b.
    assert loaded(world) == "bc"


def test_what_was_promised_counts_though_the_driver_calls_it_free() -> None:
    world = World(cards=(card(0, 16),))
    serve(world, "a", gib=10)
    world.taken[1] = {}
    serve(world, "b", gib=6)
    assert loaded(world) == "b"


def test_what_a_runner_says_it_takes_is_set_aside() -> None:
    world = World(cards=(card(0, 16),))
    ticket = world.ask(spec("a", gib=10))
    world.measured()
    world.load(world.loading[0], size=4 * GIB, devices={"CUDA0": 4 * GIB, "CUDA9": 8 * GIB})
    world.release(ticket)
    serve(world, "b", gib=8)
    assert loaded(world) == "ab"
    world.expire("a")
    world.settle()
    # The next time it is known: 4 fit into 80 % of the 8 that b leaves.
    assert serve(world, "a", gib=10).placed
    assert loaded(world) == "ab"


def test_other_programs_use_devices_too() -> None:
    world = World(cards=(card(0, 16), card(1, 16)))
    world.foreign["CUDA0"] = 12 * GIB
    assert places(serve(world, "a", gib=8)) == ["CUDA1"]


def test_only_as_many_go_as_are_needed() -> None:
    world = World(cards=(card(0, 24), card(0, 24, library="ROCm")))
    assert places(serve(world, "a", gib=2)) == ["CUDA0"]
    assert places(serve(world, "b", gib=12)) == ["ROCm0"]
    assert places(serve(world, "c", gib=6)) == ["CUDA0"]
    assert places(serve(world, "d", gib=19)) == ["ROCm0"]
    # a is the least useful, but its place does not help.
    assert loaded(world) == "acd"


def test_several_go_for_a_large_one() -> None:
    world = World(cards=(card(0, 24), card(1, 24)))
    for key in "abcd":
        serve(world, key, gib=8)
    assert places(serve(world, "e", gib=18)) == ["CUDA0", "CUDA1"]
    assert loaded(world) == "bcde"
    assert places(serve(world, "f", gib=30)) == ["CUDA0", "CUDA1"]
    assert loaded(world) == "df"


def test_a_model_on_the_cpu_does_not_go_for_room_on_a_device() -> None:
    world = World(cards=(card(0, 16),))
    serve(world, "a", gib=5, num_gpu=0)
    serve(world, "b", gib=10)
    serve(world, "c", gib=10)
    assert loaded(world) == "ac"


def test_a_model_on_a_device_does_not_go_for_room_in_main_memory() -> None:
    world = World(total=16 * GIB, cards=(card(0, 16),))
    serve(world, "a", gib=10)
    serve(world, "b", gib=8, num_gpu=0)
    serve(world, "c", gib=9, num_gpu=0)
    assert loaded(world) == "ac"


def test_a_model_on_a_device_does_not_go_for_one_that_needs_swap_all_the_same() -> None:
    world = World(total=16 * GIB, swap=8 * GIB, cards=(card(0, 16),))
    serve(world, "a", gib=10, completion=False)
    serve(world, "b", gib=4, num_gpu=0)
    serve(world, "c", gib=18, num_gpu=0)
    assert loaded(world) == "ac"


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(), "model requires more system memory"),
        # Not one of its two layers fits on the device.
        (Limits(require_gpu=True, memory_guard=False), "OLLAMAD_REQUIRE_GPU is set"),
    ],
)
def test_nobody_goes_for_a_model_that_is_refused(limits: Limits, why: str) -> None:
    world = World(limits, total=32 * GIB, cards=(card(0, 16),))
    serve(world, "a", gib=10)
    ticket = world.ask(spec("b", gib=60, shape={"kv_heads": (0,)}))
    world.settle()
    assert world.errors[ticket].message.startswith(why)
    assert loaded(world) == "a"


def test_a_number_of_layers_takes_nobodys_place() -> None:
    world = World(cards=(card(0, 16),))
    serve(world, "a", gib=12)
    serve(world, "b", gib=15, num_gpu=0)
    serve(world, "c", gib=15, num_gpu=1, shape=LAYERS)
    assert loaded(world) == "abc"
    # All of the layers are a whole model, whoever names their number.
    serve(world, "d", gib=12.5, num_gpu=99, shape=LAYERS)
    assert loaded(world) == "bd"


def test_a_busy_model_is_waited_for() -> None:
    world = World(cards=(card(0, 16),))
    a = world.ask(spec("a", gib=10))
    world.settle()
    b = world.ask(spec("b", gib=10))
    world.settle()
    assert b in world.waiting
    assert world.ask(spec("a", gib=10)) in world.waiting, "or it would never be idle"
    world.release(a)
    world.settle()
    assert list(world.leases) == [b]


def test_a_model_larger_than_the_device_takes_all_of_it_and_is_loaded_all_the_same() -> None:
    world = World(total=128 * GIB, cards=(card(0, 16),))
    serve(world, "a", gib=4)
    launch = serve(world, "b", gib=40, shape=LAYERS)
    assert loaded(world) == "b"
    assert (launch.placed, launch.layers) == (False, 12)


def test_a_model_in_parts_takes_places_that_are_worth_it() -> None:
    layers = {"kv_heads": (0,) * 99}
    world = World(total=128 * GIB, cards=(card(0, 32),))
    serve(world, "a", gib=0.5)
    serve(world, "b", gib=16)
    launch = serve(world, "c", gib=50, shape=layers)
    # b's place is worth a third of c, a's one layer.
    assert loaded(world) == "ac"
    assert 60 <= launch.layers <= 61


def test_more_models_may_be_loaded_with_more_devices() -> None:
    world = World(total=256 * GIB)
    for key in "abcd":
        serve(world, key, FOREVER)
    assert loaded(world) == "bcd"
    # The driver was late.
    world.cards = (card(0, 80), card(1, 80))
    for key in "efg":
        serve(world, key, FOREVER)
    # The first of them still took a place; after that there was room for six.
    assert loaded(world) == "cdefg"


def test_memory_that_is_on_its_way_back_is_waited_for() -> None:
    world = World(cards=(card(0, 16),))
    serve(world, "a", gib=10)
    world.expire("a")
    ticket = world.ask(spec("b", gib=10))
    assert world.stopping
    world.measured()
    assert not world.loading
    small = world.ask(spec("c", gib=1))
    world.stopped(world.stopping[0])
    world.settle(release=True)
    assert ticket in world.grants
    assert small in world.grants


def test_nothing_runs_on_the_cpu_when_a_gpu_is_required() -> None:
    world = World(Limits(require_gpu=True))
    refused = world.ask(spec("a"))
    world.settle()
    assert world.errors[refused].message == (
        "OLLAMAD_REQUIRE_GPU is set and the model would run on the CPU: no GPU was found"
    )
    asked_for = world.ask(spec("a", num_gpu=0))
    world.settle()
    assert asked_for in world.leases
    world = World(Limits(require_gpu=True), cards=(card(0, 16),))
    serve(world, "a", gib=10)
    # It has to wait for room rather than to be refused.
    assert serve(world, "b", gib=10).placed


# --- memory runs out all the same --------------------------------------------------------------


def fails(world: World) -> LaunchPlan:
    """The next load runs out of memory. Returns what was tried."""
    while not world.loading:
        if world.measuring:
            world.measured()
        else:
            world.stopped(world.stopping[0])
    launch = world.alive[world.loading[0]][1]
    world.fail(world.loading[0], LoadError(f"no {launch.reason}", out_of_memory=True))
    return launch


def test_each_try_takes_less() -> None:
    world = World(total=128 * GIB, cards=(card(0, 80),))
    serve(world, "a", FOREVER)
    ticket = world.ask(spec("b", gib=10, num_ctx=131072, shape=LAYERS))
    first = fails(world)
    assert (first.num_ctx, first.layers, loaded(world)) == (131072, 32, "a")
    second = fails(world)
    # Only now the other one goes.
    assert (second.num_ctx, second.num_gpu, loaded(world)) == (32768, -1, "")
    third = fails(world)
    assert (third.num_ctx, third.num_gpu) == (32768, -1)
    fourth = fails(world)
    assert (fourth.num_gpu, places(fourth), fourth.fit) == (16, ["CUDA0"], False)
    fifth = fails(world)
    assert (fifth.num_gpu, places(fifth)) == (0, [])
    assert world.errors[ticket].message == "no on the CPU: memory ran out with more"
    assert len(world.started) == 6


def test_the_last_try_may_succeed_and_is_kept() -> None:
    world = World(cards=(card(0, 80),))
    ticket = world.ask(spec("b", gib=10, shape=LAYERS))
    fails(world)
    fails(world)
    world.settle()
    launch = world.alive[world.leases[ticket]][1]
    assert launch.reason == "on the CPU: memory ran out with more"
    assert world.ask(spec("b", gib=10, shape=LAYERS), slot=False) in world.leases, "no reload"


@pytest.mark.parametrize(
    ("limits", "wanted", "tries"),
    [
        (Limits(require_gpu=True), {}, 2),
        (Limits(), {"num_gpu": 20}, 1),
        (Limits(), {"num_gpu": 99, "num_ctx": 8192}, 2),
        (Limits(), {"num_ctx": 8192, "auto": EXPLICIT}, 3),
    ],
)
def test_what_is_never_tried(limits: Limits, wanted: dict[str, object], tries: int) -> None:
    world = World(limits, cards=(card(0, 80),))
    ticket = world.ask(spec("b", gib=10, shape=LAYERS, **wanted))  # type: ignore[arg-type]
    for _ in range(tries):
        fails(world)
    assert ticket in world.errors
    assert len(world.started) == tries


# --- runners that keep dying -------------------------------------------------------------------


def die(world: World, key: str = "a", *, served: bool = False) -> None:
    """A runner is loaded for a request that it dies of."""
    ticket = world.ask(spec(key))
    world.settle()
    if served:
        world.release(ticket)
        world.pass_time(2 * SECOND)
        ticket = world.ask(spec(key))
    world.crash(world.leases[ticket])
    world.release(ticket, served=False)


def refused(world: World, key: str = "a") -> RunnerKeepsDying | None:
    """The error for a request; it is not served."""
    ticket = world.ask(spec(key))
    if ticket in world.waiting:
        world.cancel(ticket)
        world.settle()
        return None
    error = world.errors[ticket]
    assert isinstance(error, RunnerKeepsDying)
    return error


def test_a_model_whose_runners_die_is_left_alone_for_a_while() -> None:
    world = World()
    for _ in range(DEATHS):
        assert refused(world) is None
        die(world)
    error = refused(world)
    assert error is not None
    assert (error.status, error.retry_after) == (503, 10)
    assert error.message == (
        "the runner of model-a died 3 times in a row without an answer and is started again in "
        "10 seconds at the earliest: a crash"
    )
    assert refused(world, "b") is None
    world.pass_time(FIRST_PAUSE - 1)
    error = refused(world)
    assert error is not None
    assert error.retry_after == 1
    world.pass_time(1)
    assert refused(world) is None
    # Each further one doubles the pause.
    for pause in (20, 40, 60, 60):
        die(world)
        error = refused(world)
        assert error is not None
        assert error.retry_after == pause <= LONGEST_PAUSE // SECOND
        world.pass_time(pause * SECOND)


def test_who_unloads_the_model_may_try_it_at_once() -> None:
    world = World()
    for _ in range(DEATHS):
        die(world)
    assert refused(world) is not None
    world.expire("a")
    assert refused(world) is None


def test_those_who_wait_are_refused_with_it() -> None:
    world = World()
    for _ in range(DEATHS - 1):
        die(world)
    tickets = [world.ask(spec()) for _ in range(3)]
    other = world.ask(spec("b"))
    world.settle()
    world.die(world.leases[tickets[0]])
    assert sorted(world.errors) == tickets[1:]
    assert other in world.leases, "the others go on"
    assert world.stopping, "its memory is not back"
    world.release(tickets[0], served=False)
    world.settle(release=True)
    assert not world.waiting


def test_an_answer_starts_the_count_anew() -> None:
    world = World()
    for _ in range(3 * DEATHS):
        die(world, served=True)
        die(world)
    assert refused(world) is None
    die(world)
    assert refused(world) is not None


def test_the_request_that_a_runner_dies_of_is_no_answer() -> None:
    world = World()
    for _ in range(DEATHS):
        ticket = world.ask(spec())
        world.settle()
        runner = world.leases[ticket]
        world.pass_time(MINUTE)
        world.release(ticket)
        world.crash(runner)
    assert refused(world) is not None


def test_deaths_long_ago_do_not_count() -> None:
    world = World()
    for _ in range(DEATHS - 1):
        die(world)
    world.pass_time(DEATHS_WINDOW + 1)
    die(world)
    assert refused(world) is None


def test_a_runner_that_was_told_to_go_did_not_die() -> None:
    world = World()
    for _ in range(2 * DEATHS):
        ticket = world.ask(spec())
        world.settle()
        world.release(ticket, served=False)
        world.expire("a")
        world.settle()
    assert refused(world) is None
