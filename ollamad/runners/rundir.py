"""The daemon's private directory for its runners' sockets, and what dead daemons left behind.

One directory a daemon, mode 0700, locked for as long as the daemon lives: whoever can take the lock
knows that its owner is dead. Spec: runners-and-scheduling 2.5 and 2.13.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

#: The kernel's limit for the path of a UNIX socket, less its closing zero (macOS: 104).
_LONGEST_SOCKET_PATH = 103

_PREFIX = "ollamad-"
_LOCK = "lock"


class RunDirectory:
    """Made by ``create``; ``close`` removes it with all that is in it."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, base: Path | None = None) -> RunDirectory:
        """Makes the directory below ``base``: the user's runtime directory, or that for temporary
        files. Raises ``OSError``."""
        parent = base if base is not None else default_base()
        while True:
            path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getuid()}-", dir=parent))
            if (lock := _locked(path)) is not None:
                return cls(path, lock)

    def socket_path(self) -> str | None:
        """A path for one runner's socket; None when it would be too long for the system."""
        path = str(self.path / f"{secrets.token_hex(6)}.sock")
        return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else None

    def record(self, pid: int) -> Path:
        """Notes a running runner, so that a later daemon can end it if this one cannot."""
        path = self.path / f"runner-{pid}.json"
        path.write_text(json.dumps({"pid": pid, "started": start_time(pid)}))
        return path

    @contextlib.contextmanager
    def linked(self, shards: Sequence[Path]) -> Iterator[Path]:
        """The path of the first of these files, with links to all as llama.cpp looks for them.

        It takes the names of a split model's other files from that of the first. The links go with
        the ``with`` block: a runner that is ready has opened the files. Here, not beside the
        blobs, no other process sees them and every file system will do. Raises ``OSError``.
        """
        directory = Path(tempfile.mkdtemp(prefix="shards-", dir=self.path))
        try:
            links = [
                directory / f"model-{number:05}-of-{len(shards):05}.gguf"
                for number in range(1, len(shards) + 1)
            ]
            for link, shard in zip(links, shards, strict=True):
                link.symlink_to(shard.absolute())
            yield links[0]
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _locked(path: Path) -> int | None:
    """The open lock of a new directory; None when another daemon, which starts in this moment and
    finds it without a lock, takes it for one of a dead daemon and removes it."""
    try:
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path / _LOCK)):  # noqa: PTH116
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def default_base() -> Path:
    """``$XDG_RUNTIME_DIR`` where it is usable, else the directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime)
    return Path(tempfile.gettempdir())


def clean_leftovers(base: Path | None = None) -> list[int]:
    """Removes the directories of dead daemons of this user and kills runners that they left.

    Returns the process ids that were killed. A directory that is not ours, not private or a link
    is not touched: the parent may be writable for everybody.
    """
    parent = base if base is not None else default_base()
    killed: list[int] = []
    for path in parent.glob(f"{_PREFIX}{os.getuid()}-*"):
        with contextlib.suppress(OSError):
            if _is_private(path):
                killed += _clean(path)
    return killed


def _clean(path: Path) -> list[int]:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    killed = []
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []  # its daemon is alive
        for record in path.glob("runner-*.json"):
            pid = _matching_pid(record)
            if pid is not None:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
                    killed.append(pid)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
    return killed


def _matching_pid(record: Path) -> int | None:
    """The process id of a record, if that process still is the one that was recorded."""
    try:
        content = json.loads(record.read_bytes())
        pid, started = int(content["pid"]), content["started"]
    except (ValueError, KeyError, TypeError, OSError):
        return None
    if pid <= 1 or started is None or start_time(pid) != started:
        return None
    return pid


def _is_private(path: Path) -> bool:
    found = path.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and stat.S_IMODE(found.st_mode) & 0o077 == 0
    )


def start_time(pid: int) -> float | None:
    """When the process started, in the system's own unit; with the id it names one process."""
    try:
        # The second field is the program's name in parentheses and may hold blanks.
        text = Path(f"/proc/{pid}/stat").read_text()
        return float(text.rpartition(")")[2].split()[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    import psutil  # noqa: PLC0415 - only where there is no such file

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
