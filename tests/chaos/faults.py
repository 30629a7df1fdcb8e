"""What goes wrong: runners that die or freeze, memory that is short, limits that bite."""

from __future__ import annotations

import contextlib
import random
import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import trio
from support.daemon import Daemon
from support.fake import FakeDaemon

MIB = 1 << 20

#: What the machine pretends to have.
TOTAL, FREE = 8192 * MIB, 6144 * MIB


class Memory:
    """``/proc/meminfo`` as the daemon sees it: what is free, less what its runners hold."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.free = FREE
        (root / "proc").mkdir(parents=True)
        self.write(0)

    def write(self, held: int) -> None:
        """``held``: bytes of the runners."""
        free = max(MIB, self.free - held)
        lines = (("MemTotal", TOTAL), ("MemAvailable", free), ("SwapFree", 0))
        new = self.root / "proc/new"
        new.write_text("".join(f"{name}: {size // 1024} kB\n" for name, size in lines))
        new.replace(self.root / "proc/meminfo")


class Faults:
    """Things that go wrong, one after the other, decided by a seed; ``counts`` says how often."""

    def __init__(self, daemon: Daemon, memory: Memory, seed: int) -> None:
        self.daemon = daemon
        self.memory = memory
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(f"{seed} faults")
        #: Nobody but the daemon ends these.
        self._frozen: set[int] = set()

    async def run(self) -> None:
        """Until cancelled; then everything that still can be is as it was."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._keep_books)
                while True:
                    await trio.sleep(self._chance.uniform(0.2, 2.5))
                    # Now and then the world is in order for a while.
                    if self._chance.random() < 0.1:
                        await trio.sleep(self._chance.uniform(3, 8))
                    fault = self._chance.choices(*zip(*self._faults(), strict=True))[0]
                    with contextlib.suppress(psutil.Error, ProcessLookupError):
                        await fault(nursery)
        finally:
            self.memory.free = FREE
            self.memory.write(0)

    def _faults(self) -> list[tuple[Callable[[trio.Nursery], Any], int]]:
        if isinstance(self.daemon, FakeDaemon):
            return [(self._rewrite, 70), (self._kill, 10), (self._pause, 10), (self._squeeze, 10)]
        return [
            (self._kill, 20),
            (self._terminate, 6),
            (self._kill_young, 14),
            (self._kill_shim, 5),
            (self._pause, 18),
            (self._freeze, 8),
            (self._squeeze, 18),
            (self._limit, 8),
        ]

    async def _keep_books(self) -> None:
        while True:
            held = 0
            for runner in runners(self.daemon):
                with contextlib.suppress(psutil.Error):
                    held += runner.memory_info().rss
            self.memory.write(held)
            await trio.sleep(0.3)

    def _one(self) -> psutil.Process | None:
        found = [runner for runner in runners(self.daemon) if runner.pid not in self._frozen]
        return self._chance.choice(sorted(found, key=lambda r: r.pid)) if found else None

    def _send(self, what: str, number: int) -> psutil.Process | None:
        if (runner := self._one()) is not None:
            runner.send_signal(number)
            self.counts[what] += 1
        return runner

    async def _kill(self, _: trio.Nursery) -> None:
        self._send("killed", signal.SIGKILL)

    async def _terminate(self, _: trio.Nursery) -> None:
        self._send("terminated", signal.SIGTERM)

    async def _kill_young(self, _: trio.Nursery) -> None:
        """A runner that has only just been started."""
        known = {process.pid for process in runners(self.daemon)}
        with trio.move_on_after(3):
            while True:
                for runner in runners(self.daemon):
                    if runner.pid not in known:
                        await trio.sleep(self._chance.uniform(0, 0.3))
                        runner.kill()
                        self.counts["killed young"] += 1
                        return
                await trio.sleep(0.02)

    async def _kill_shim(self, _: trio.Nursery) -> None:
        if (runner := self._one()) is not None and (shim := runner.parent()) is not None:
            assert self.daemon.process is not None
            if shim.ppid() == self.daemon.process.pid:
                shim.kill()
                self.counts["lost their shim"] += 1

    async def _pause(self, nursery: trio.Nursery) -> None:
        runner = self._send("paused", signal.SIGSTOP)
        if runner is not None:
            nursery.start_soon(self._go_on, runner, self._chance.choice((0.1, 1.0, 4.0, 13.0)))

    async def _go_on(self, runner: psutil.Process, after: float) -> None:
        await trio.sleep(after)
        with contextlib.suppress(psutil.Error):
            runner.send_signal(signal.SIGCONT)

    async def _freeze(self, _: trio.Nursery) -> None:
        """Nobody wakes it up again: only the daemon can end it."""
        if (runner := self._send("frozen", signal.SIGSTOP)) is not None:
            self._frozen.add(runner.pid)

    async def _squeeze(self, nursery: trio.Nursery) -> None:
        """Another program fills the machine for a while."""
        self.memory.free = self._chance.choice((150, 300, 450, 700)) * MIB
        self.counts["memory squeezed"] += 1

        async def relax(after: float) -> None:
            await trio.sleep(after)
            self.memory.free = FREE

        nursery.start_soon(relax, self._chance.uniform(0.5, 4))

    async def _limit(self, _: trio.Nursery) -> None:
        """The next allocations of a runner fail."""
        if (runner := self._one()) is not None:
            room = runner.memory_info().vms + self._chance.choice((0, 8, 64)) * MIB
            runner.rlimit(resource.RLIMIT_AS, (room, room))
            self.counts["limited"] += 1

    async def _rewrite(self, _: trio.Nursery) -> None:
        """Runners that play a part play another one."""
        assert isinstance(self.daemon, FakeDaemon)
        name, script = self._chance.choice(SCRIPTS)
        self.daemon.will(**script)
        self.counts[name] += 1


_BUSY = {"status": 503, "body": {"status": "no slot available"}}
_ILL = {"status": 500, "body": {"error": {"message": "out of sorts"}}}
_MEMORY = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9999"

#: Parts that runners play until the next one; well behaved ones between the others.
SCRIPTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("good", {"interval_us": 2000}),
    ("slow", {"interval_us": 30_000, "first_ms": 300}),
    ("good again", {"interval_us": 500, "batch": 3}),
    ("ends at the start", {"exit": 1, "log": ["error: cannot go on"]}),
    ("dies at the start", {"signal": 9}),
    ("without memory at the start", {"exit": 1, "log": [_MEMORY]}),
    ("late to listen", {"listen_ms": 1500}),
    ("ill", {"health": [_ILL]}),
    ("busy", {"health": [{**_BUSY, "times": 5}, {"body": {"status": "ok"}}]}),
    ("crashes", {"after_tokens": 3, "after": "crash", "interval_us": 2000}),
    ("crashes for memory", {"after_tokens": 3, "after": "crash", "crash_log": _MEMORY}),
    ("closes", {"after_tokens": 3, "after": "close"}),
    ("resets", {"after_tokens": 2, "after": "reset"}),
    ("crashes before an answer", {"crash_on": "/completion"}),
    ("refuses", {"answers": {"/completion": [500, {"error": {"message": "no, not today"}}]}}),
    ("does not obey", {"ignore_term": True, "interval_us": 2000}),
)


def runners(daemon: Daemon) -> Iterator[psutil.Process]:
    """The runners themselves: each is the child of a shim, a child of the daemon."""
    assert daemon.process is not None
    for process in daemon.family():
        with contextlib.suppress(psutil.Error):
            if process.ppid() != daemon.process.pid:
                yield process
