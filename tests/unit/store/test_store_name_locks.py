"""One lock a name (modelfile-and-create 4.15.3)."""

from __future__ import annotations

import trio
import trio.testing

from ollamad.store.name_locks import NameLocks
from ollamad.store.names import Name


async def test_one_name_in_turn_others_at_once() -> None:
    locks = NameLocks()
    order: list[str] = []
    release = trio.Event()

    async def operation(name: str, label: str) -> None:
        async with locks.hold(Name.parse(name)):
            order.append(label)
            await release.wait()

    async with trio.open_nursery() as nursery:
        for name, label in [("m", "first"), ("M:LATEST", "second"), ("other", "third")]:
            nursery.start_soon(operation, name, label)
            await trio.testing.wait_all_tasks_blocked()
        assert order == ["first", "third"]
        release.set()
    assert order == ["first", "third", "second"]
    assert not locks._entries, "nothing is remembered"


async def test_cancelled_waiters_leave_no_trace() -> None:
    locks = NameLocks()
    name = Name.parse("m")
    async with locks.hold(name):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with locks.hold(name):
                raise AssertionError("two at once")
        assert scope.cancelled_caught
    assert not locks._entries
    async with locks.hold(name):
        pass
