"""What may be left when all is over: nothing. Each check says in words what it found."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from support.daemon import Daemon
from support.stage import belongs_to

from chaos.daemon import BROKEN, LAST

#: Seconds in which everything must have come to rest.
REST = 40.0


class Baseline:
    """What a daemon has open before anything happens."""

    def __init__(self, daemon: Daemon) -> None:
        assert daemon.process is not None
        self.process = psutil.Process(daemon.process.pid)
        self.files = self.process.num_fds()


def after_the_clients(daemon: Daemon, baseline: Baseline) -> list[str]:
    """With the daemon alive and no client left."""
    found: list[str] = []

    def until(check: Callable[[], Any], limit: float = REST) -> Any:
        """The last value of ``check``, which is hoped to become empty."""
        end = time.monotonic() + limit
        while (value := check()) and time.monotonic() < end:
            time.sleep(0.1)
        return value

    def unload() -> list[str]:
        names = [model["name"] for model in daemon.get("/api/ps")["models"]]
        for name in names:
            daemon.request("POST", "/api/generate", {"model": name, "keep_alive": 0})
        return names

    if loaded := until(unload):
        found.append(f"still loaded: {loaded}")
    status = daemon.get("/api/status")
    if any(status.get("queue", {}).values()):
        found.append(f"still waiting or running: {status['queue']}")
    if family := until(daemon.family):
        found.append(f"still alive: {[_described(process) for process in family]}")
    zombies = [
        child.pid
        for child in baseline.process.children(recursive=True)
        if _status(child) == psutil.STATUS_ZOMBIE
    ]
    if zombies:
        found.append(f"zombies: {zombies}")
    found += [f"left in the run directory: {path}" for path in _run_files(daemon.home)]
    found += [f"left in the store: {path}" for path in _odd_blobs(daemon.models)]
    # A connection of the check itself may still be closing.
    if more := until(lambda: max(0, baseline.process.num_fds() - baseline.files - 2), 5):
        found.append(f"{more} more open files: {_open(baseline.process)}")
    return found


def after_the_end(daemon: Daemon, pid: int, status: int) -> list[str]:
    """With the daemon stopped; ``status`` is its exit status."""
    found: list[str] = []
    if status != 0:
        found.append(f"the daemon ended with status {status}")
    left = [p for p in psutil.process_iter() if p.pid != pid and belongs_to(p, daemon.home)]
    if left:
        found.append(f"processes: {[_described(process) for process in left]}")
    found += [f"left: {path}" for path in daemon.home.glob("ollamad-*")]
    known = {"models", ".ollama"}
    found += [
        f"left in the directory for temporary files: {path.name}"
        for path in daemon.home.iterdir()
        if path.name not in known and path.suffix != ".gguf"
    ]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", daemon.port))
        except OSError as error:
            found.append(f"its port is still taken: {error}")
    unix = Path("/proc/net/unix")
    if unix.exists() and str(daemon.home) in unix.read_text():
        found.append("a socket of a runner is still open")
    return found + in_the_log(daemon.log)


def in_the_log(log: str) -> list[str]:
    """Tracebacks, broken rules, and what the scheduler's core says that it holds."""
    found = [line for line in log.splitlines() if BROKEN in line]
    if "Traceback" in log:
        begin = log.index("Traceback")
        found.append(f"a traceback in the log: {log[max(0, begin - 300) : begin + 2500]}")
    last = [line for line in log.splitlines() if LAST in line]
    counts = dict(re.findall(r"(\w+)=(\d+)", last[0])) if len(last) == 1 else {}
    if not counts or counts["events"] == "0":
        found.append(f"the scheduler was not watched: {last}")
    elif {counts[name] for name in ("waiting", "leases", "runners")} != {"0"}:
        found.append(last[0])
    return found


def _run_files(home: Path) -> list[str]:
    return [
        str(path.relative_to(home))
        for directory in home.glob("ollamad-*")
        for path in directory.iterdir()
        if path.name != "lock"
    ]


def _odd_blobs(models: Path) -> list[str]:
    blobs = models / "blobs"
    return [path.name for path in blobs.iterdir() if not re.fullmatch(r"sha256-\w{64}", path.name)]


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.status()} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.Error:
        return ""


def _open(process: psutil.Process) -> list[str]:
    files = []
    for link in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            files.append(f"{link.name} {link.readlink()}")
        except OSError:
            continue
    return sorted(files)
