"""The scheduler's decisions, case by case: runners-and-scheduling 4 and 8.7, http-api 18."""

from __future__ import annotations

import pytest
from scheduler_world import SECOND, World, spec

from ollamad.errors import LoadError, ServerBusy, ShuttingDown
from ollamad.scheduler.actions import Grant, Measure
from ollamad.scheduler.options import Auto
from ollamad.scheduler.sizing import GIB, Limits, MemoryReading
from ollamad.wire import FOREVER

MINUTE = 60 * SECOND
EXPLICIT = Auto()
OUT_OF_MEMORY = LoadError("failed to allocate", out_of_memory=True)


def loaded(world: World) -> str:
    """The keys of the models that are ready, sorted."""
    return "".join(sorted(world.alive[runner][0].key for runner in world.ready))


def serve(
    world: World, key: str, keep_alive: int | None = None, gib: float = 1, ctx: int = 4096
) -> None:
    """One whole request for a model, a second after whatever came before."""
    world.pass_time(SECOND)
    ticket = world.ask(spec(key, gib=gib, num_ctx=ctx), keep_alive)
    world.settle()
    world.release(ticket)
    world.settle()


# --- leases and slots ------------------------------------------------------------------------


def test_a_request_loads_its_model_and_the_next_one_finds_it() -> None:
    world = World()
    first = world.ask(spec())
    assert not world.loading, "memory is read before anything is started"
    world.pass_time(SECOND)
    world.measured()
    world.pass_time(2 * SECOND)
    world.load(world.loading[0])
    assert world.grants[first].queued_ns == 3 * SECOND
    assert world.grants[first].loaded_ns == 2 * SECOND
    world.release(first)
    second = world.ask(spec())
    assert world.grants[second].runner_id == world.grants[first].runner_id
    assert (world.grants[second].queued_ns, world.grants[second].loaded_ns) == (0, 0)


def test_slots_are_given_in_order_and_loading_only_takes_none() -> None:
    world = World(Limits(parallel=2))
    tickets = [world.ask(spec()) for _ in range(4)]
    world.settle()
    assert sorted(world.leases) == tickets[:2]
    only_load = world.ask(spec(), slot=False)
    assert only_load in world.leases
    world.release(only_load)
    world.release(tickets[1])
    assert sorted(world.leases) == [tickets[0], tickets[2]]


def test_a_model_may_have_its_own_number_of_slots() -> None:
    world = World(Limits(parallel=1))
    tickets = [world.ask(spec(num_parallel=3)) for _ in range(4)]
    world.settle()
    assert sorted(world.leases) == tickets[:3]
    world.settle(release=True)
    loads = len(world.started)
    for same in (spec(num_parallel=3), spec()):
        assert world.ask(same) in world.leases
    other = world.ask(spec(num_parallel=2))
    world.settle(release=True)
    assert other in world.grants
    assert len(world.started) == loads + 1


def test_an_embedding_model_has_one_slot() -> None:
    world = World(Limits(parallel=4))
    tickets = [world.ask(spec(completion=False)) for _ in range(2)]
    world.settle()
    assert list(world.leases) == tickets[:1]


def test_a_loaded_model_never_waits_for_anothers_load() -> None:
    world = World()
    serve(world, "a")
    world.ask(spec("b"))
    world.measured()
    assert world.loading
    assert world.ask(spec("a")) in world.leases


def test_a_launch_knows_whether_it_is_alone() -> None:
    world = World()
    serve(world, "a")
    serve(world, "b")
    assert [plan.beside_others for _, plan in world.alive.values()] == [False, True]


# --- the queue -------------------------------------------------------------------------------


def test_the_queue_holds_so_many_besides_the_one_that_loads() -> None:
    world = World(Limits(max_queue=2))
    tickets = [world.ask(spec(key)) for key in "abcdef"]
    assert [t for t in tickets if t in world.errors] == tickets[3:]
    for ticket in tickets[3:]:
        error = world.errors[ticket]
        assert isinstance(error, ServerBusy)
        assert error.status == 503
        assert error.message == (
            "server busy, please try again.  maximum pending requests exceeded"
        )
    world.settle(release=True)
    assert sorted(world.grants) == tickets[:3]


def test_no_queue_at_all_still_serves_one_at_a_time() -> None:
    world = World(Limits(max_queue=0))
    serve(world, "a")
    serve(world, "b")
    first, second = world.ask(spec("a")), world.ask(spec("a"))
    assert first in world.leases
    assert second in world.errors, "who waits for a slot waits in the queue, too"


def test_a_full_queue_keeps_nobody_from_a_free_slot() -> None:
    world = World(Limits(max_queue=1, parallel=2))
    serve(world, "a")
    for key in "bc":
        world.ask(spec(key))
    assert world.ask(spec("a")) in world.leases
    assert world.ask(spec("d")) in world.errors


def test_retry_after_follows_from_how_long_slots_are_held() -> None:
    world = World(Limits(max_queue=3))
    for _ in range(60):
        ticket = world.ask(spec())
        world.settle()
        world.pass_time(8 * SECOND)
        world.release(ticket)
    tickets = [world.ask(spec()) for _ in range(5)]
    error = world.errors[tickets[-1]]
    assert isinstance(error, ServerBusy)
    assert 20 <= error.retry_after <= 24
    fresh = World(Limits(max_queue=0))
    fresh.ask(spec())
    error = fresh.errors[fresh.ask(spec())]
    assert isinstance(error, ServerBusy)
    assert error.retry_after == 1


# --- clients that leave ------------------------------------------------------------------------


def test_a_load_goes_on_for_the_others_who_wait_for_it() -> None:
    world = World()
    first, second = world.ask(spec()), world.ask(spec())
    world.measured()
    world.cancel(first)
    assert world.loading == world.started
    world.settle()
    assert list(world.leases) == [second]
    assert len(world.started) == 1


def test_a_load_that_nobody_waits_for_is_aborted() -> None:
    world = World()
    only = world.ask(spec())
    world.measured()
    world.cancel(only)
    assert world.aborted == world.started
    again = world.ask(spec())
    world.settle()
    assert list(world.leases) == [again]
    assert len(world.started) == 2


def test_a_load_that_succeeds_in_spite_of_its_abort_is_stopped() -> None:
    world = World()
    only = world.ask(spec())
    world.measured()
    world.cancel(only)
    world.load_after_all(world.aborted[0])
    assert not world.grants


def test_whoever_waited_before_a_model_was_condemned_is_still_served_by_it() -> None:
    world = World(Limits(max_loaded=1))
    first = world.ask(spec("a"))
    other = world.ask(spec("b"))
    third = world.ask(spec("a"))
    world.settle()
    assert list(world.leases) == [first]
    late = world.ask(spec("a"))
    world.release(first)
    assert list(world.leases) == [third], "else a and b would take turns, load by load"
    world.release(third)
    world.settle()
    assert list(world.leases) == [other]
    world.release(other)
    world.settle()
    assert list(world.leases) == [late]


def test_a_model_stays_when_the_request_that_needed_its_place_leaves() -> None:
    world = World(Limits(max_loaded=1))
    busy = world.ask(spec("a"))
    world.settle()
    other = world.ask(spec("b"))
    third = world.ask(spec("a"), slot=False)
    assert third in world.waiting
    world.cancel(other)
    assert third in world.leases
    for ticket in (busy, third):
        world.release(ticket)
    assert loaded(world) == "a"


# --- keep-alive --------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep_alive", "default"), [(None, 5), (7, 7)])
def test_a_model_goes_when_its_time_is_over(keep_alive: int | None, default: int) -> None:
    world = World(Limits(keep_alive=5 * SECOND))
    serve(world, "a", None if keep_alive is None else keep_alive * SECOND)
    world.pass_time(default * SECOND - 1)
    assert loaded(world) == "a"
    world.pass_time(1)
    assert world.stopping
    assert world.reasons == {1: "keep-alive ended"}


def test_keep_alive_sticks_to_the_model() -> None:
    world = World()
    serve(world, "a", SECOND * 2)
    serve(world, "a")
    world.pass_time(2 * SECOND)
    assert loaded(world) == ""


def test_keep_alive_zero_still_answers_and_forever_stays() -> None:
    world = World()
    serve(world, "b", FOREVER)
    serve(world, "a", 0)
    assert loaded(world) == "b"
    world.pass_time(10**9 * SECOND)
    assert loaded(world) == "b"
    assert world.core.deadline() is None


def test_time_counts_from_the_end_of_the_last_request() -> None:
    world = World(Limits(parallel=2, keep_alive=5 * SECOND))
    first, second = world.ask(spec()), world.ask(spec())
    world.settle()
    world.release(first)
    world.pass_time(60 * SECOND)
    assert loaded(world) == "a"
    world.release(second)
    world.pass_time(5 * SECOND - 1)
    assert loaded(world) == "a"
    (runner,) = world.core.runners()
    assert runner.expires_in(world.now) == 1


def test_when_it_expires() -> None:
    world = World(Limits(keep_alive=MINUTE))
    ticket = world.ask(spec())
    world.settle()
    (runner,) = world.core.runners()
    assert runner.expires_in(world.now) == MINUTE
    world.pass_time(MINUTE)
    assert runner.expires_in(world.now) == MINUTE, "a busy model is not about to go"
    world.expire("a")
    world.pass_time(SECOND)
    assert runner.expires_in(world.now) == -SECOND
    world.release(ticket)
    assert world.stopping


# --- unloading ---------------------------------------------------------------------------------


def test_unloading_serves_those_who_came_before_and_reloads_for_those_after() -> None:
    world = World()
    running, queued = world.ask(spec()), world.ask(spec())
    world.settle()
    world.expire("a")
    late = world.ask(spec())
    world.release(running)
    assert list(world.leases) == [queued]
    world.release(queued)
    assert world.stopping
    world.settle()
    assert list(world.leases) == [late]
    assert len(world.started) == 2


def test_unloading_what_is_being_loaded() -> None:
    world = World()
    ticket = world.ask(spec())
    world.measured()
    world.expire("a")
    world.load(world.loading[0])
    assert ticket in world.leases
    world.release(ticket)
    assert world.stopping


def test_unloading_what_is_not_loaded() -> None:
    World().expire("a")


def test_a_runner_that_ran_out_of_memory_unloads_everything() -> None:
    world = World()
    serve(world, "a", FOREVER)
    busy = world.ask(spec("b"))
    world.settle()
    world.expire_all()
    assert len(world.stopping) == 1
    world.release(busy)
    assert len(world.stopping) == 2


def test_a_runner_that_its_user_found_unfit_is_given_to_nobody_else() -> None:
    world = World(Limits(parallel=2))
    first = world.ask(spec())
    world.settle()
    world.condemn(first)
    second = world.ask(spec())
    assert second in world.waiting
    world.release(first)
    world.settle()
    assert world.grants[second].runner_id != world.grants[first].runner_id


# --- runners that end --------------------------------------------------------------------------


def test_a_runner_that_crashed_is_forgotten_at_once() -> None:
    world = World()
    first, queued = world.ask(spec()), world.ask(spec())
    world.settle()
    world.crash(world.ready[0])
    assert first in world.leases, "the request itself finds out from its connection"
    world.settle()
    assert world.grants[queued].runner_id == 2
    world.release(first)
    assert queued in world.leases


# --- reload ------------------------------------------------------------------------------------


def test_other_options_wait_until_the_model_is_idle_and_keep_later_requests_out() -> None:
    world = World()
    first = world.ask(spec())
    world.settle()
    other = world.ask(spec(num_ctx=512, auto=EXPLICIT))
    like_first = world.ask(spec())
    world.release(first)
    world.settle()
    assert list(world.leases) == [other]
    world.release(other)
    world.settle()
    assert list(world.leases) == [like_first]


def test_requests_that_fit_and_came_first_are_served_before_the_reload() -> None:
    world = World()
    first, second = world.ask(spec()), world.ask(spec())
    other = world.ask(spec(num_ctx=512, auto=EXPLICIT))
    world.settle()
    world.release(first)
    assert list(world.leases) == [second]
    world.release(second)
    world.settle()
    assert list(world.leases) == [other]


def test_a_smaller_context_after_memory_ran_out_is_kept_for_default_requests() -> None:
    world = World()
    first = world.ask(spec(num_ctx=8192, train=8192))
    world.measured()
    world.fail(world.loading[0], OUT_OF_MEMORY)
    world.settle()
    assert world.grants[first].num_ctx == 4096
    world.release(first)
    assert world.ask(spec(num_ctx=8192, train=8192)) in world.leases


def test_whoever_caused_a_load_can_use_it() -> None:
    # Careless callers may ask for more than the trained length: that must not reload for ever.
    world = World()
    ticket = world.ask(spec(num_ctx=9000, train=8192, auto=EXPLICIT))
    world.measured()
    # The observer would object to the grant, for it compares the options.
    actions = world.core.loaded(world.loading[0], 0, world.now)
    assert [type(action) for action in actions] == [Grant]
    assert world.core.leases == ticket == 1


# --- making room -------------------------------------------------------------------------------


def test_the_shortest_keep_alive_goes_first() -> None:
    world = World(Limits(max_loaded=2))
    serve(world, "a", 60 * MINUTE)
    serve(world, "b", 2 * MINUTE)
    serve(world, "c")
    assert loaded(world) == "ac"
    serve(world, "d")
    assert loaded(world) == "ad"


def test_among_equals_the_one_unused_for_longest_goes() -> None:
    world = World()
    for key in "abc":
        serve(world, key)
    serve(world, "a")
    serve(world, "d")
    assert loaded(world) == "acd"


def test_a_busy_model_is_not_chosen_while_another_is_idle() -> None:
    world = World(Limits(max_loaded=2))
    world.ask(spec("a"), 1)
    world.settle()
    serve(world, "b", 60 * MINUTE)
    world.ask(spec("c"))
    world.settle()
    assert loaded(world) == "ac"


def test_when_all_are_busy_one_is_emptied_and_takes_no_new_requests() -> None:
    world = World(Limits(max_loaded=2))
    a = world.ask(spec("a"), MINUTE)
    b = world.ask(spec("b"), 60 * MINUTE)
    world.settle()
    c = world.ask(spec("c"))
    another_a = world.ask(spec("a"), slot=False)
    another_b = world.ask(spec("b"), slot=False)
    assert another_a in world.waiting
    assert another_b in world.leases
    world.release(a)
    world.settle()
    assert c in world.leases
    world.release(b)
    world.release(another_b)
    world.settle()
    assert another_a in world.leases


def test_the_choice_of_a_busy_model_does_not_move_on() -> None:
    world = World(Limits(max_loaded=2))
    world.ask(spec("a"), 10)
    world.ask(spec("b"), 20)
    world.settle()
    world.ask(spec("c"))
    # Now b would be the better choice; a was told to empty and has to go all the same.
    world.ask(spec("b"), 5, slot=False)
    assert world.ask(spec("b"), slot=False) in world.leases
    assert world.ask(spec("a"), slot=False) in world.waiting


def test_another_model_that_becomes_idle_goes_instead_of_the_busy_one() -> None:
    world = World(Limits(max_loaded=2))
    world.ask(spec("a"), MINUTE)
    b = world.ask(spec("b"), 60 * MINUTE)
    world.settle()
    c = world.ask(spec("c"))
    another_a = world.ask(spec("a"), slot=False)
    world.release(b)
    assert another_a in world.leases, "a may stay after all"
    world.settle()
    assert c in world.leases


def test_one_model_goes_at_a_time() -> None:
    world = World(Limits(max_loaded=2))
    serve(world, "a", 60 * MINUTE)
    serve(world, "b", MINUTE)
    world.expire("a")
    world.ask(spec("c"))
    assert len(world.stopping) == 1, "what is stopping makes room enough"
    assert loaded(world) == "b"


# --- memory ------------------------------------------------------------------------------------


def test_idle_models_go_until_the_new_one_fits() -> None:
    world = World(total=8 * GIB)
    serve(world, "a", gib=2)
    serve(world, "b", gib=2)
    serve(world, "c", gib=4)
    assert loaded(world) == "bc"
    serve(world, "d", gib=6)
    assert loaded(world) == "d"


def test_only_those_go_whose_memory_is_needed() -> None:
    world = World(Limits(max_loaded=9), total=16 * GIB)
    serve(world, "a", gib=1)
    serve(world, "b", gib=6)
    serve(world, "c", gib=2)
    # One by one, a would go first: it is the least useful. But b has to go in any case.
    serve(world, "d", gib=9)
    assert loaded(world) == "acd"


def test_a_busy_model_that_must_go_takes_no_idle_one_along() -> None:
    world = World(Limits(max_loaded=9), total=16 * GIB)
    serve(world, "a", gib=1)
    b = world.ask(spec("b", gib=8))
    world.settle()
    c = world.ask(spec("c", gib=9))
    world.settle()
    assert (loaded(world), c in world.waiting) == ("ab", True)
    world.release(b)
    world.settle()
    assert loaded(world) == "ac"


def test_work_is_waited_for_only_until_swap_will_do() -> None:
    world = World(total=8 * GIB, swap=2 * GIB)
    a = world.ask(spec("a", gib=1, completion=False))
    world.settle()
    b = world.ask(spec("b", gib=4, completion=False))
    world.settle()
    c = world.ask(spec("c", gib=7.8, completion=False))
    world.settle()
    # Only b has to go: who comes for a is let in.
    another_a = world.ask(spec("a", gib=1, completion=False), slot=False)
    assert another_a in world.leases
    world.release(b)
    world.settle()
    assert sorted(world.leases) == [a, c, another_a]


def test_a_model_that_fits_nowhere_is_refused_and_nobody_goes_for_it() -> None:
    world = World(total=8 * GIB, swap=GIB)
    serve(world, "a", gib=2)
    ticket = world.ask(spec("b", gib=10))
    world.settle()
    # The prompt cache of "a" is promised, too.
    assert world.errors[ticket].message == (
        "model requires more system memory (10.0 GiB) than is available (6.4 GiB)"
    )
    assert loaded(world) == "a"


def test_nobody_else_is_refused_with_it() -> None:
    world = World(total=8 * GIB)
    tickets = [world.ask(spec(key, gib=gib)) for key, gib in [("a", 10), ("b", 2), ("c", 20)]]
    world.settle(release=True)
    assert [ticket in world.grants for ticket in tickets] == [False, True, False]


def test_busy_models_are_waited_for_when_there_is_no_room_without_them() -> None:
    world = World(total=8 * GIB)
    a = world.ask(spec("a", gib=5))
    world.settle()
    b = world.ask(spec("b", gib=5))
    world.settle()
    assert b in world.waiting
    world.release(a)
    world.settle()
    assert list(world.leases) == [b]


def test_a_busy_model_is_spared_when_room_comes_from_elsewhere() -> None:
    world = World(total=8 * GIB)
    world.ask(spec("a", gib=3), MINUTE)
    b = world.ask(spec("b", gib=3), 60 * MINUTE)
    world.settle()
    world.ask(spec("c", gib=4))
    world.measured()
    another_a = world.ask(spec("a", gib=3), slot=False)
    assert another_a in world.waiting
    world.crash(world.leases[b])
    world.measured()
    assert world.loading
    assert another_a in world.leases


def test_swap_is_used_rather_than_waiting_but_not_for_idle_models() -> None:
    world = World(total=8 * GIB, swap=4 * GIB)
    a = world.ask(spec("a", gib=5))
    world.settle()
    b = world.ask(spec("b", gib=5))
    world.settle()
    assert sorted(world.leases) == [a, b]
    for ticket in (a, b):
        world.release(ticket)
    serve(world, "c", gib=5)
    assert loaded(world) == "c"


def test_a_reading_from_before_a_change_is_not_used() -> None:
    world = World(total=8 * GIB)
    serve(world, "a", gib=5)
    world.ask(spec("b", gib=2))
    world.crash(world.ready[0])
    # The answer still shows the memory that the crashed runner held.
    actions = world.core.memory(MemoryReading(total=8 * GIB, free=3 * GIB), world.now)
    assert actions == [Measure()]
    world.measured()
    assert world.loading


def test_what_a_launch_was_seen_to_take_counts_the_next_time() -> None:
    world = World(total=8 * GIB)
    ticket = world.ask(spec("a", gib=3))
    world.measured()
    world.load(world.loading[0], size=6 * GIB)
    world.release(ticket)
    world.expire("a")
    world.settle()
    serve(world, "b", gib=3)
    busy = world.ask(spec("b", gib=3))
    again = world.ask(spec("a", gib=3))
    world.settle()
    assert list(world.leases) == [busy], "6 GiB do not fit beside 3"
    assert again in world.waiting


# --- loads that fail ---------------------------------------------------------------------------


def test_a_failed_load_fails_those_who_waited_for_it_and_nobody_else() -> None:
    world = World()
    first, second = world.ask(spec()), world.ask(spec())
    other_options = world.ask(spec(num_ctx=512, auto=EXPLICIT))
    other_model = world.ask(spec("b"))
    world.measured()
    world.fail(world.loading[0], LoadError("exit status 1"))
    assert {t: e.message for t, e in world.errors.items()} == dict.fromkeys(
        (first, second), "exit status 1"
    )
    world.settle(release=True)
    assert sorted(world.grants) == [other_options, other_model]
    assert len(world.started) == 3


def test_out_of_memory_alone_with_an_explicit_context_fails_at_once() -> None:
    for wanted in (spec(auto=EXPLICIT), spec(num_ctx=4096)):
        world = World()
        ticket = world.ask(wanted)
        world.measured()
        world.fail(world.loading[0], OUT_OF_MEMORY)
        assert ticket in world.errors
        assert len(world.started) == 1


def test_out_of_memory_beside_others_is_tried_again_alone() -> None:
    world = World()
    serve(world, "a", FOREVER)
    busy = world.ask(spec("b"))
    world.settle()
    ticket = world.ask(spec("c", num_ctx=8192, auto=EXPLICIT))
    world.measured()
    world.fail(world.loading[0], OUT_OF_MEMORY)
    assert len(world.stopping) == 1, "the idle one goes"
    world.settle()
    assert not world.loading, "the busy one is waited for"
    world.release(busy)
    world.settle()
    assert loaded(world) == "c"
    assert world.grants[ticket].num_ctx == 8192


def test_out_of_memory_twice_is_the_end() -> None:
    world = World()
    serve(world, "a", FOREVER)
    first = world.ask(spec("b", num_ctx=131072, train=131072))
    world.measured()
    assert world.alive[world.loading[0]][1].num_batch == 2048
    world.fail(world.loading[0], OUT_OF_MEMORY)
    joined = world.ask(spec("b", num_ctx=131072, train=131072))
    world.stopped(world.stopping[0])
    world.measured()
    _, plan = world.alive[world.loading[0]]
    assert (plan.num_ctx, plan.num_batch) == (32768, 1024)
    world.fail(world.loading[0], LoadError("the second text", out_of_memory=True))
    assert [world.errors[t].message for t in (first, joined)] == ["the second text"] * 2
    assert not world.alive


def test_another_failure_is_not_tried_again() -> None:
    world = World()
    serve(world, "a", FOREVER)
    ticket = world.ask(spec("b", num_ctx=131072))
    world.measured()
    world.fail(world.loading[0], LoadError("bad magic"))
    assert world.errors[ticket].message == "bad magic"
    assert loaded(world) == "a"


# --- the end -----------------------------------------------------------------------------------


def test_draining_lets_requests_end_and_takes_no_more() -> None:
    world = World()
    serve(world, "a", FOREVER)
    busy = world.ask(spec("b"))
    world.settle()
    queued = world.ask(spec("b"))
    loading = world.ask(spec("c"))
    world.measured()
    world.drain()
    late = world.ask(spec("a"))
    assert all(isinstance(world.errors[t], ShuttingDown) for t in (queued, loading, late))
    assert len(world.stopping) == 2
    assert list(world.leases) == [busy]
    world.settle(release=True)
    world.check_empty()


def test_a_name_for_an_error_of_the_caller() -> None:
    world = World()
    with pytest.raises(LookupError):
        world.core.gone(7, world.now)
    with pytest.raises(KeyError):
        world.core.release(7, world.now)
