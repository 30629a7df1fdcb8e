"""What is measured: a daemon with one loaded model, and the same runner without the daemon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from support.daemon import Daemon, eventually

from benchmarks.load import Target, exchange
from ollamad.gguf.writer import Tensor, write_gguf
from ollamad.prompting.requests import chat_body, completion_body
from ollamad.scheduler.options import Options
from ollamad.wire import Message

MODEL = "bench"
_HERE = Path(__file__).parent
FAKE_RUNNER = _HERE.parent / "fake_runner.py"

#: Tokens of context of one slot.
CONTEXT = 1024

#: What the first token brings, in the daemon's stream and in the runner's; the runner's first
#: event has the content ``null``.
FIRST_CHAT_TOKEN = b'"content":"'
FIRST_FAKE_TOKEN = b'"content": "'


@dataclass(frozen=True, slots=True)
class Rig:
    """A running daemon with a loaded model; ``bare`` is the runner that the daemon itself uses.

    Both sides of a comparison so have the same process with the same flags.
    """

    daemon: Daemon
    bare: Target

    @property
    def target(self) -> Target:
        return Target(("127.0.0.1", self.daemon.port))

    @property
    def process(self) -> psutil.Process:
        assert self.daemon.process is not None
        return psutil.Process(self.daemon.process.pid)

    def chat(self, prompt: str, **options: Any) -> tuple[bytes, bytes]:
        """One chat as a request to the bare runner and as one to the daemon.

        The runner's body is the one that the daemon sends: ``check_bodies`` holds us to it.
        """
        chosen = {"num_ctx": CONTEXT, "temperature": 0.0, "seed": 1, **options}
        to_runner = chat_body(
            [Message(role="user", content=prompt)], Options(**chosen), num_ctx=CONTEXT, think=None
        )
        to_daemon = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "options": chosen,
        }
        return (
            self.bare.request("POST", "/v1/chat/completions", to_runner),
            self.target.request("POST", "/api/chat", json.dumps(to_daemon).encode()),
        )

    def raw(self, prompt: str, *, stream: bool = True, **options: Any) -> tuple[bytes, bytes]:
        """The same for a raw prompt: ``/completion`` and ``/api/generate``."""
        chosen = {"num_ctx": CONTEXT, "temperature": 0.0, "seed": 1, **options}
        to_runner = completion_body(prompt, Options(**chosen), num_ctx=CONTEXT, fmt=None)
        to_daemon = {
            "model": MODEL,
            "prompt": prompt,
            "raw": True,
            "stream": stream,
            "options": chosen,
        }
        return (
            self.bare.request("POST", "/completion", to_runner),
            self.target.request("POST", "/api/generate", json.dumps(to_daemon).encode()),
        )

    def check_bodies(self) -> None:
        """With the fake runner: raises RuntimeError unless it got the same from both sides."""
        for make, path in ((self.chat, "/v1/chat/completions"), (self.raw, "/completion")):
            for target, request in zip((self.bare, self.target), make("same?"), strict=True):
                exchange(target, request)
            _, answer = exchange(self.bare, self.bare.request("GET", "/fake/requests"))
            bodies = [entry["body"] for entry in json.loads(answer) if entry["path"] == path]
            if bodies[-1] != bodies[-2]:
                raise RuntimeError(f"not the same bodies: {bodies[-2]} {bodies[-1]}")


@contextmanager
def loaded(
    gguf: Path, *, parallel: int = 1, env: Mapping[str, str] | None = None, embed: bool = False
) -> Iterator[Rig]:
    """A daemon whose only model is ``gguf``, loaded with ``parallel`` slots."""
    # The chat template of the weights: then both sides get the same bodies.
    own = {"OLLAMA_NUM_PARALLEL": str(parallel), "OLLAMA_GO_TEMPLATE": "0"}
    with started({**own, **(env or {})}) as daemon:
        daemon.create(MODEL, gguf)
        load = {"model": MODEL, "keep_alive": -1}
        if embed:
            daemon.post("/api/embed", {**load, "input": "load"})
        else:
            daemon.post("/api/generate", {**load, "options": {"num_ctx": CONTEXT}})
        yield Rig(daemon, runner_of(daemon))


@contextmanager
def started(env: Mapping[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon with a home of its own, without models."""
    with tempfile.TemporaryDirectory(prefix="ollamad-bench-") as home:
        daemon = Daemon(Path(home), dict(env or {}))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()


@contextmanager
def fake(script: Mapping[str, Any], *, parallel: int) -> Iterator[Rig]:
    """A daemon whose runner is the fake one; ``script`` is told in ``fake_runner.py``."""
    with tempfile.TemporaryDirectory(prefix="ollamad-bench-") as folder:
        env = {"OLLAMAD_LLAMA_SERVER": str(FAKE_RUNNER), "FAKE_RUNNER": json.dumps(script)}
        with loaded(tiny_gguf(Path(folder) / "tiny.gguf"), parallel=parallel, env=env) as rig:
            yield rig


def runner_of(daemon: Daemon) -> Target:
    """The daemon's only runner: its address from its flags, its key from its environment."""
    flags, key = runner_process(daemon)
    host = flags[flags.index("--host") + 1]
    address: str | tuple[str, int] = host
    if not host.endswith(".sock"):
        address = (host, int(flags[flags.index("--port") + 1]))
    return Target(address, (f"Authorization: Bearer {key}", "Connection: close"))


def runner_process(daemon: Daemon) -> tuple[list[str], str]:
    """Command line and API key of the daemon's only runner."""
    for process in daemon.family():
        argv = process.cmdline()
        if "--model" in argv:
            return argv, process.environ()["LLAMA_API_KEY"]
    raise RuntimeError(f"the daemon has no runner:\n{daemon.log}")


def unload(daemon: Daemon) -> None:
    """Unload the model and wait until its process is gone."""
    daemon.post("/api/generate", {"model": MODEL, "keep_alive": 0, "stream": False})
    eventually(lambda: not daemon.family(), what="the runner is gone")


@contextmanager
def relay(bare: Target) -> Iterator[tuple[psutil.Process, Target]]:
    """The bare trio relay before the runner; clients speak to it as to the runner."""
    where = bare.address if isinstance(bare.address, str) else str(bare.address[1])
    process = subprocess.Popen(
        [sys.executable, str(_HERE / "relay.py"), where], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield psutil.Process(process.pid), Target(("127.0.0.1", port), bare.headers)
    finally:
        process.terminate()
        process.wait()


def cpu_during(process: psutil.Process, work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds that ``process`` (without its children) spends during ``work``."""
    before = cpu_seconds(process)
    result = work()
    return cpu_seconds(process) - before, result


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of all threads of ``process`` since it began."""
    if sys.platform == "linux":
        # The process's own clock (clock_getcpuclockid(3)) counts nanoseconds, /proc hundredths.
        return time.clock_gettime(~process.pid << 3 | 2)
    times = process.cpu_times()
    return times.user + times.system


class Neighbours:
    """Whether programs that are none of ours took processor time since the last call.

    To be called after measurements of a second or so: the kernel counts in hundredths.
    """

    #: Processors' worth of foreign work that is still called quiet.
    ALLOWED = 0.15

    def __init__(self, read: Callable[[], tuple[float, float]] | None = None) -> None:
        self._read = read or foreign_work
        self._at, self._foreign = self._read()

    def __call__(self) -> bool:
        at, foreign = self._at, self._foreign
        self._at, self._foreign = self._read()
        return self._foreign - foreign > self.ALLOWED * (self._at - at)


def foreign_work() -> tuple[float, float]:
    """A clock, and the processor seconds of all processes but this one and its descendants."""
    machine = psutil.cpu_times()
    # On Linux ``user`` holds the guests' time, too.
    busy = sum(getattr(machine, kind, 0.0) for kind in ("user", "nice", "system", "softirq"))
    us = psutil.Process()
    own = _with_reaped(us)
    for child in us.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            own += _with_reaped(child)
    return time.perf_counter(), busy - own


def _with_reaped(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def tiny_gguf(path: Path) -> Path:
    """A model without weights worth the name: enough for the daemon, and the fake runner's."""
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "llama.context_length": 8192,
        "llama.embedding_length": 64,
        "llama.block_count": 1,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "c", "d"],
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    tensor = Tensor("token_embd.weight", 1, (64, 4), bytes(2 * 64 * 4))
    write_gguf(path, metadata, [tensor])
    return path


def cpu_count() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
