"""Which of the processes on one model directory may remove blobs now.

An operation that counts on blobs, a create or a pull, shares the directory with those of other
processes until its manifest is written. A removal needs it alone, and never waits for that: what
cannot be removed now stays for a later prune. Ollama itself knows nothing of this lock; what keeps
its operations safe is that young files are not pruned (registry-and-store 2.9, 2.13).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ollamad.store.durable import make_directories
from ollamad.store.errors import StoreError, os_error_text

logger = logging.getLogger(__name__)

#: In the models directory, where nobody looks for models.
FILENAME = ".ollamad.lock"

#: Seconds. Removals take moments; whoever takes longer is stuck.
_SHARE_LIMIT = 30.0
_SHARE_POLL = 0.02


class StoreLock:
    """The lock of one model directory in this process. Safe to use from several threads.

    There must be only one for a directory, hence `lock_of`: POSIX locks belong to the process, and
    closing any descriptor of the file gives them up. They end with the process, whatever kills it.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILENAME
        self._guard = threading.Lock()
        # All below only under ``_guard``.
        self._descriptor: list[int] = []  # one at most; a list that the finalizer can share
        self._held = fcntl.LOCK_UN
        self._sharing = 0
        self._removing = 0
        self._told = False
        weakref.finalize(self, _close, self._descriptor)

    def share(self) -> None:
        """Count on blobs from here to `unshare`; counted. Waits for a removal elsewhere to end.

        Raises StoreError when that does not end, or when the directory cannot be made.
        """
        deadline = time.monotonic() + _SHARE_LIMIT
        make_directories(self._path.parent)
        while True:
            with self._guard:
                if self._take(fcntl.LOCK_SH):
                    self._sharing += 1
                    return
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another process has been removing blobs for {_SHARE_LIMIT:.0f} seconds "
                    f"and still locks {self._path}"
                )
            time.sleep(_SHARE_POLL)

    def unshare(self) -> None:
        with self._guard:
            self._sharing -= 1
            self._settle()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """`share` and `unshare` around a block."""
        self.share()
        try:
            yield
        finally:
            self.unshare()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no operation of another process counts on blobs, and none can while it lasts.

        Does not wait. What this process itself counts on is up to ``Blobs``.
        """
        with self._guard:
            got = self._take(fcntl.LOCK_EX)
            self._removing += got
        try:
            yield got
        finally:
            with self._guard:
                self._removing -= got
                self._settle()

    def _take(self, kind: int) -> bool:
        if self._held in (kind, fcntl.LOCK_EX):
            return True
        try:
            descriptor = self._open()
        except FileNotFoundError:
            return True  # no directory: there is nothing to remove, and `share` made it
        except OSError as error:
            self._tell(os_error_text("open", error))
            return True
        try:
            fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            self._tell(os_error_text(f"lock {self._path}", error))
            return True
        self._held = kind
        return True

    def _settle(self) -> None:
        """Hold no more than is needed still."""
        wanted = fcntl.LOCK_SH if self._sharing else fcntl.LOCK_UN
        if self._removing or self._held in (wanted, fcntl.LOCK_UN):
            return
        try:
            # Never waits: less than before is always to be had.
            fcntl.lockf(self._descriptor[0], wanted)
            self._held = wanted
        except OSError as error:
            # Holding more than needed only delays others' removals.
            logger.warning("unlock error=%s", os_error_text(f"unlock {self._path}", error))

    def _open(self) -> int:
        """The lock file. Opened anew when the directory was removed and made again."""
        if self._descriptor and self._held == fcntl.LOCK_UN and not self._is_current():
            _close(self._descriptor)
        if not self._descriptor:
            self._descriptor.append(_open_lock_file(self._path))
        return self._descriptor[0]

    def _is_current(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        ours = os.fstat(self._descriptor[0])
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "the model directory cannot be locked; do not use it with two daemons at once "
                "error=%s",
                problem,
            )


def _open_lock_file(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    with suppress(FileNotFoundError):
        return os.open(path, flags)
    descriptor = os.open(path, flags | os.O_CREAT, 0o644)
    with suppress(OSError):
        # Whoever may remove blobs must be able to lock: who writes to the directory may write here.
        os.fchmod(descriptor, path.parent.stat().st_mode & 0o666)
    return descriptor


def _close(descriptor: list[int]) -> None:
    while descriptor:
        os.close(descriptor.pop())


_locks: weakref.WeakValueDictionary[str, StoreLock] = weakref.WeakValueDictionary()
_locks_guard = threading.Lock()


def lock_of(directory: Path) -> StoreLock:
    """The lock of the model directory, the same one for all who ask in this process."""
    key = os.path.realpath(directory)
    with _locks_guard:
        lock = _locks.get(key)
        if lock is None:
            lock = _locks[key] = StoreLock(Path(key))
        return lock
