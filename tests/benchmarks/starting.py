"""Start-up: cold load of a model, the daemon itself, its memory, and the command line."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import trio
from support.models import smollm2

from benchmarks.figures import Figure, alternate, number, spread
from benchmarks.load import Target, exchange, streams
from benchmarks.rig import (
    CONTEXT,
    FIRST_CHAT_TOKEN,
    MODEL,
    Neighbours,
    Rig,
    cpu_during,
    loaded,
    runner_process,
    started,
    unload,
)
from ollamad.runners.command import Launch
from ollamad.runners.kinds import find
from ollamad.runners.process import LoadTimings, start_runner
from ollamad.runners.rundir import RunDirectory

_LISTENING = 0.8
_IDLE_MB = 80.0
_LIST = 0.15

_LOAD_NS = re.compile(rb'"load_duration":(\d+)')


def cold_load(quick: bool) -> list[Figure]:
    """From no process to the first token of a chat, its weights being in the page cache."""
    loads, firsts = [], []

    with loaded(smollm2()) as rig:
        argv, _ = runner_process(rig.daemon)
        to_runner, to_daemon = rig.chat("Why is the sky blue?", num_predict=2)

        def bare() -> float:
            unload_if_loaded(rig)
            return _bare_cold(argv, to_runner)

        def ours() -> float:
            unload_if_loaded(rig)
            answer = streams([(rig.target, to_daemon)], FIRST_CHAT_TOKEN)[0]
            found = _LOAD_NS.search(answer.data)
            load = int(found[1]) / 1e9 if found else 0.0
            loads.append(load)
            firsts.append(answer.to_first - load)
            return answer.to_first

        pairs = alternate(3 if quick else 5, bare, ours, disturbed=Neighbours())
        timings = [_split(Path(argv[argv.index("--model") + 1])) for _ in range(3)]
    spawn = statistics.median(timing.spawn_ns for timing in timings) / 1e9
    load = statistics.median(loads)
    return [
        Figure("cold load to first token: daemon", pairs.ours, "s"),
        Figure("  spawn", spawn, "s", detail="until the process is started"),
        Figure("  load", load - spawn, "s", detail="until the runner is ready"),
        Figure("  first token", statistics.median(firsts), "s"),
        Figure(
            "cold load to first token: daemon / runner",
            pairs.ratio,
            detail=pairs.describe("s"),
        ),
    ]


def unload_if_loaded(rig: Rig) -> None:
    if rig.daemon.family():
        unload(rig.daemon)


def _bare_cold(argv: list[str], request: bytes) -> float:
    """Seconds from the start of a runner with these flags to its first token."""
    flags = argv[argv.index("--model") :]
    program = argv[: argv.index("--model")]
    if "--embedded" in program:
        program = [sys.executable, "-m", "ollamad.runners.embedded"]
    else:
        program = program[-1:]
    with tempfile.TemporaryDirectory(prefix="ollamad-bench-") as folder:
        address = str(Path(folder) / "bare.sock")
        flags[flags.index("--host") + 1] = address
        key = re.search(rb"Bearer (\S+)", request)
        assert key is not None
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*program, *flags],
            env={**os.environ, "LLAMA_API_KEY": key[1].decode()},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            target = Target(address, ("Connection: close",))
            _wait_ready(process, target)
            answer = streams([(target, request)], FIRST_CHAT_TOKEN)[0]
            return answer.first - begin
        finally:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], target: Target) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError, RuntimeError):
            exchange(target, target.request("GET", "/health"))
            return
        time.sleep(0.002)
    raise RuntimeError(f"the bare runner ended with {process.returncode}")


def _split(model: Path) -> LoadTimings:
    """What ``start_runner`` says of its own time."""

    async def load() -> LoadTimings:
        rundir = RunDirectory.create()
        try:
            async with trio.open_nursery() as nursery:
                launch = Launch(model_path=str(model), num_ctx=CONTEXT)
                runner = await start_runner(
                    nursery,
                    find(os.environ.get("OLLAMAD_LLAMA_SERVER", "")).best(),
                    launch,
                    rundir=rundir,
                    load_timeout_ns=60 * 10**9,
                )
                await runner.stop(grace=0)
                nursery.cancel_scope.cancel()
            return runner.load_timings
        finally:
            rundir.close()

    return trio.run(load)


def daemon(quick: bool) -> list[Figure]:
    """From the start of the process to the first answer of ``/api/version``; memory when idle."""
    seconds, idle, private = [], [], []
    interpreter = []
    for _ in range(3 if quick else 7):
        interpreter.append(_run([sys.executable, "-c", "pass"], {}))
        begin = time.perf_counter()
        with started() as running:
            target = Target(("127.0.0.1", running.port))
            exchange(target, target.request("GET", "/api/version"))
            seconds.append(time.perf_counter() - begin)
            assert running.process is not None
            process = psutil.Process(running.process.pid)
            until_idle(process)
            idle.append(process.memory_info().rss / 1e6)
            private.append(process.memory_full_info().uss / 1e6)
    with loaded(smollm2()) as rig:
        request = rig.chat("Why?", num_predict=16)[1]
        for _ in range(20):
            streams([(rig.target, request)], FIRST_CHAT_TOKEN)
        unload(rig.daemon)
        used = rig.process.memory_info().rss / 1e6
    return [
        Figure(
            "start to listening and answering",
            statistics.median(seconds),
            "s",
            _LISTENING,
            detail=f"middle half {spread(seconds)}; python -c pass "
            f"{number(statistics.median(interpreter))} s",
        ),
        Figure(
            "idle RSS",
            statistics.median(idle),
            "MB",
            _IDLE_MB,
            detail=f"{number(statistics.median(private))} MB of it private",
        ),
        Figure("idle RSS after 20 chats and an unload", used, "MB", _IDLE_MB),
    ]


def until_idle(process: psutil.Process) -> None:
    """Wait until the process does nothing any more; memory is told of a daemon at rest."""
    for _ in range(50):
        if cpu_during(process, lambda: time.sleep(0.2))[0] < 0.005:
            return


def command_line(quick: bool) -> list[Figure]:
    """``ollama list`` from start to exit, with a daemon that has three models."""
    script = Path(sys.executable).with_name("ollama")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "ollamad"]
    with loaded(smollm2()) as rig:
        for name in ("first", "second"):
            rig.daemon.post("/api/copy", {"source": MODEL, "destination": name})
        env = {"OLLAMA_HOST": rig.daemon.url, "HOME": str(rig.daemon.home)}

        def run(argv: list[str]) -> Callable[[], float]:
            return lambda: _run(argv, env)

        run([*command, "list"])()
        pairs = alternate(
            5 if quick else 15, run([sys.executable, "-c", "pass"]), run([*command, "list"])
        )
    return [
        Figure(
            "ollama list",
            pairs.ours,
            "s",
            _LIST,
            detail=f"python -c pass {number(pairs.bare)} s, median of {len(pairs.rows)} runs",
        )
    ]


def _run(argv: list[str], env: dict[str, str]) -> float:
    begin = time.perf_counter()
    done = subprocess.run(argv, env={**os.environ, **env}, capture_output=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{argv}: exit status {done.returncode}: {done.stderr.decode()}")
    return seconds
