"""One run: a daemon, its clients, what goes wrong, and what is left."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import trio
from simulator.report import quantile, table
from support.daemon import Daemon
from support.fake import FakeDaemon
from support.gemma3 import loadable_text
from support.minilm import minilm
from support.models import smollm2

from chaos import remains
from chaos.clients import Result, ask
from chaos.faults import Faults, Memory
from chaos.scenes import BABBLER, FINDER, TALKER, Scene, scenes

#: Seconds in which every request must have ended.
DEADLINE = 120.0
#: Seconds in which a question that needs no model is answered.
PROMPT = 20.0
CLIENTS = 6
_TESTS = Path(__file__).resolve().parents[1]

ENV = {
    "OLLAMA_MAX_LOADED_MODELS": "2",
    "OLLAMA_NUM_PARALLEL": "2",
    "OLLAMA_MAX_QUEUE": "16",
    "OLLAMA_KEEP_ALIVE": "4s",
    "OLLAMA_CONTEXT_LENGTH": "2048",
    "OLLAMA_LOAD_TIMEOUT": "30s",
    "OLLAMAD_SHUTDOWN_GRACE": "10s",
}


class Watched:
    """Mixed into a daemon: ``chaos.daemon`` instead of ``ollamad``."""

    program = ("-m", "chaos.daemon", "serve")


class RealDaemon(Watched, Daemon):
    """With the embedded runner."""


class ScriptedDaemon(Watched, FakeDaemon):
    """With runners that play a part."""


@dataclass
class Run:
    """What happened. ``wrong`` is empty when all was well."""

    seed: int
    kind: str
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: Bytes of the daemon's memory at the beginning, and after each quarter.
    memory: list[int] = field(default_factory=list)
    log: str = ""

    def complaints(self) -> list[str]:
        return [
            f"{result.scene.kind} {result.scene.path} {result.scene.manner}: {result.complaint}"
            for result in self.results
            if result.complaint
        ] + self.wrong

    def text(self) -> str:
        rows = [("requests", "all", "answered", "error", "left", "wrong", "p50 (s)", "max (s)")]
        for kind in sorted({result.scene.kind for result in self.results}):
            some = [result for result in self.results if result.scene.kind == kind]
            outcomes = Counter(result.outcome for result in some)
            times = sorted(r.seconds for r in some if r.outcome in ("answered", "error"))
            rows.append(
                (
                    kind,
                    str(len(some)),
                    *(str(outcomes[name]) for name in ("answered", "error", "left")),
                    str(sum(bool(result.complaint) for result in some)),
                    f"{quantile(times, 0.5):.2f}",
                    f"{quantile(times, 1):.2f}",
                )
            )
        # One line for all that differ in numbers only, and none that is longer than a line.
        errors = Counter(
            re.sub(r"\d+(\.\d+)?", "N", result.error.splitlines()[0])
            for result in self.results
            if result.error.strip()
        )
        lines = [
            f"{self.kind} runners, seed {self.seed}, {self.seconds:.0f} s, "
            f"{len(self.results)} requests; the daemon's memory at the beginning and after each "
            f"quarter: {', '.join(f'{size / 1e6:.0f}' for size in self.memory)} MB",
            table(rows),
            "  faults: " + ", ".join(f"{n} × {what}" for what, n in self.faults.most_common()),
            *(f"  {count:5} × {text}" for text, count in errors.most_common(20)),
            *(f"  WRONG: {text}" for text in self.complaints()),
        ]
        return "\n".join(lines)


def run(*, seed: int, seconds: float, scripted: bool = False) -> Run:
    """Everything in a folder of its own. Skips the test when a model is missing."""
    found = Run(seed, "scripted" if scripted else "real")
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        memory = Memory(Path(folder) / "root")
        with _started(Path(folder), memory, scripted=scripted) as daemon:
            assert daemon.process is not None
            pid = daemon.process.pid
            try:
                _warm_up(daemon)
                baseline = remains.Baseline(daemon)
                trio.run(_play, daemon, memory, found, seconds)
                found.wrong += remains.after_the_clients(daemon, baseline)
                status = daemon.stop()
                found.wrong += remains.after_the_end(daemon, pid, status)
            except AssertionError as error:
                found.wrong.append(f"the run could not be finished: {error}"[:2000])
            finally:
                found.log = daemon.log
    return found


@contextmanager
def _started(folder: Path, memory: Memory, *, scripted: bool) -> Iterator[Daemon]:
    env = {
        **ENV,
        "CHAOS_ROOT": str(memory.root),
        "PYTHONPATH": os.pathsep.join((str(_TESTS), str(_TESTS.parent))),
    }
    home = folder / "home"
    daemon: Daemon
    daemon = ScriptedDaemon(home, env) if scripted else RealDaemon(home, env)
    daemon.start()
    try:
        if isinstance(daemon, FakeDaemon):
            daemon.add(TALKER)
            daemon.add(BABBLER)
            daemon.add(FINDER, "bert", bert__pooling_type=1)
        else:
            shutil.copy(smollm2(), folder / "talker.gguf")
            one_thread = {"parameters": {"num_thread": 1}}
            daemon.create(TALKER, folder / "talker.gguf", **one_thread)
            daemon.create(BABBLER, loadable_text(folder / "babbler.gguf"), **one_thread)
            daemon.create(FINDER, minilm(folder / "finder.gguf"), **one_thread)
        yield daemon
    finally:
        daemon.stop()


def _warm_up(daemon: Daemon) -> None:
    """Everything is imported and open that a load needs."""
    daemon.post("/api/embed", {"model": FINDER, "input": "warm", "keep_alive": 0})
    daemon.post("/api/generate", {"model": TALKER, "prompt": "hi", "stream": False, "keep_alive": 0,
                                  "options": {"num_predict": 1}})  # fmt: skip


async def _play(daemon: Daemon, memory: Memory, found: Run, seconds: float) -> None:
    begin = time.monotonic()
    faults = Faults(daemon, memory, found.seed)
    ends = trio.current_time() + seconds
    async with trio.open_nursery() as outer:
        outer.start_soon(faults.run)
        outer.start_soon(_weigh, daemon, found, seconds)
        async with trio.open_nursery() as clients:
            for number in range(CLIENTS):
                clients.start_soon(_client, daemon.port, found, number, ends)
            clients.start_soon(_crowds, daemon.port, found, ends)
            clients.start_soon(_visitor, daemon.port, found, ends)
        outer.cancel_scope.cancel()
    found.faults = faults.counts
    found.seconds = time.monotonic() - begin


async def _weigh(daemon: Daemon, found: Run, seconds: float) -> None:
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    for _ in range(5):
        found.memory.append(process.memory_info().rss)
        await trio.sleep(seconds / 4)


async def _client(port: int, found: Run, number: int, ends: float) -> None:
    for index, scene in enumerate(scenes(found.seed, number)):
        if trio.current_time() >= ends:
            return
        found.results.append(await ask(port, scene, PROMPT if scene.kind == "look" else DEADLINE))
        await trio.sleep((0.0, 0.02, 0.1, 0.4)[index % 4])


async def _crowds(port: int, found: Run, ends: float) -> None:
    """Now and then many come at once: more than the queue takes."""
    crowd = scenes(found.seed, -1)

    async def one(scene: Scene) -> None:
        found.results.append(await ask(port, scene, DEADLINE))

    while trio.current_time() + 7 < ends:
        await trio.sleep(7)
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(one, next(crowd))


async def _visitor(port: int, found: Run, ends: float) -> None:
    """Whatever happens, the daemon answers what it can answer by itself."""
    scene = Scene(kind="visit", method="GET", path="/api/version")
    while trio.current_time() < ends:
        found.results.append(await ask(port, scene, PROMPT))
        await trio.sleep(0.25)
