"""Transfers outlive whoever began them, and end with whoever watches last."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ollamad.errors import OllamadError
from ollamad.registry.sharing import Shared, Transfer


class World:
    """Counts how often the work ran, and lets it end when told."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.shared: Shared[str] = Shared(nursery)
        self.begun = 0
        self.unwound = 0
        self.finish = trio.Event()
        self.unwind = trio.Event()
        self.unwind.set()
        self.error: Exception | None = None

    async def work(self, transfer: Transfer) -> None:
        self.begun += 1
        try:
            transfer.total = 100
            await self.finish.wait()
            transfer.completed = 100
            if self.error:
                raise self.error
        finally:
            with trio.CancelScope(shield=True):
                await self.unwind.wait()
            self.unwound += 1

    async def watch(self, scope: trio.CancelScope | None = None) -> str:
        with scope or trio.CancelScope():
            async with self.shared.join("a", self.work) as transfer:
                try:
                    await transfer.wait()
                    return f"done {transfer.completed}"
                except OllamadError as error:
                    return f"{error.status} {error.message}"
        return "left"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        yield World(nursery)
        nursery.cancel_scope.cancel()


async def _several(world: World, count: int, results: list[str]) -> None:
    async def one() -> None:
        results.append(await world.watch())

    for _ in range(count):
        world.nursery.start_soon(one)
    await wait_all_tasks_blocked()


async def test_watchers_share_one_transfer(world: World) -> None:
    results: list[str] = []
    await _several(world, 3, results)
    world.finish.set()
    await wait_all_tasks_blocked()
    assert results == ["done 100"] * 3
    assert world.begun == 1


async def test_all_watchers_get_the_error(world: World) -> None:
    world.error = OllamadError("bad", status=507)
    results: list[str] = []
    await _several(world, 2, results)
    world.finish.set()
    await wait_all_tasks_blocked()
    assert results == ["507 bad"] * 2


async def test_an_unexpected_error_ends_the_transfer_alone(world: World) -> None:
    world.error = ValueError("x")
    world.finish.set()
    assert await world.watch() == "500 internal error: ValueError"


async def test_after_an_end_the_next_begins_anew(world: World) -> None:
    world.error = OllamadError("bad")
    world.finish.set()
    await world.watch()
    world.error = None
    assert await world.watch() == "done 100"
    assert world.begun == 2


async def test_one_leaves_and_the_other_stays(world: World) -> None:
    first = trio.CancelScope()
    world.nursery.start_soon(world.watch, first)
    await wait_all_tasks_blocked()
    results: list[str] = []
    await _several(world, 1, results)
    first.cancel()
    await wait_all_tasks_blocked()
    assert world.unwound == 0
    world.finish.set()
    await wait_all_tasks_blocked()
    assert (results, world.begun) == (["done 100"], 1)


async def test_the_last_to_leave_waits_until_it_is_unwound(world: World) -> None:
    world.unwind = trio.Event()
    only = trio.CancelScope()
    left = trio.Event()

    async def leave() -> None:
        await world.watch(only)
        left.set()

    world.nursery.start_soon(leave)
    await wait_all_tasks_blocked()
    only.cancel()
    await wait_all_tasks_blocked()
    assert not left.is_set()
    world.unwind.set()
    await left.wait()
    assert world.unwound == 1


async def test_who_comes_while_it_winds_down_gets_a_new_one(world: World) -> None:
    world.unwind = trio.Event()
    only = trio.CancelScope()
    world.nursery.start_soon(world.watch, only)
    await wait_all_tasks_blocked()
    only.cancel()
    await wait_all_tasks_blocked()
    results: list[str] = []
    await _several(world, 2, results)
    assert world.begun == 1
    world.unwind.set()
    world.finish.set()
    await wait_all_tasks_blocked()
    assert results == ["done 100"] * 2
    assert world.begun == 2


async def test_other_keys_are_other_transfers(world: World) -> None:
    world.finish.set()
    async with (
        world.shared.join("a", world.work) as one,
        world.shared.join("b", world.work) as other,
    ):
        await one.wait()
        await other.wait()
    assert world.begun == 2


async def test_whoever_leaves_before_it_begins_leaves_nothing(world: World) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        async with world.shared.join("a", world.work):
            await trio.lowlevel.checkpoint()
    world.finish.set()
    assert await world.watch() == "done 100"


async def test_the_daemons_end_is_told() -> None:
    async with trio.open_nursery() as clients:
        results: list[str] = []
        async with trio.open_nursery() as server:
            world = World(server)

            async def one() -> None:
                results.append(await world.watch())

            clients.start_soon(one)
            await wait_all_tasks_blocked()
            server.cancel_scope.cancel()
    assert results == ["503 server is shutting down"]
