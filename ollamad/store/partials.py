"""The files of a blob that is still arriving (registry-and-store 3.5, 3.6).

``F-partial`` holds the data, ``F-partial-<N>`` notes of what is there; what the notes say is their
writer's business. A lock on the data file keeps two processes from writing one blob: it goes with
its holder, however that ends. All methods block; positioned reads and writes may run in several
threads at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from ollamad.store.durable import make_directories, sync_directory, write_all

#: More is in no note.
_MAX_NOTE_BYTES = 4096

#: So many pieces the system takes in one call, less a few.
_MOST_CHUNKS = 1000

#: Errors of file systems that know no locks: there, as in the reference, two may collide.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class Partial:
    """The unfinished blob whose final path is ``target``. Only ``acquire`` takes files."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + "-partial")
        self._descriptor = -1

    # --- whose it is ----------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Open or create the data file and keep everybody else from it; False if somebody has it.

        Raises StoreError, OSError.
        """
        make_directories(self.path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            descriptor = os.open(self.path, flags, 0o644)
            try:
                if not _lock(descriptor):
                    os.close(descriptor)
                    return False
                # Its holder may just have finished: then this is no longer the file of that name.
                if _is_at(descriptor, self.path):
                    self._descriptor = descriptor
                    return True
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def release(self) -> None:
        """Let others have it; more than once is fine. What holds nothing leaves no file."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if not os.fstat(descriptor).st_size and not self._note_paths():
                self._unlink_own(descriptor)
        finally:
            os.close(descriptor)

    def _unlink_own(self, descriptor: int) -> None:
        if _is_at(descriptor, self.path):
            self.path.unlink(missing_ok=True)

    # --- data -----------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the data file, holes included."""
        return os.fstat(self._descriptor).st_size

    def allocated(self) -> int:
        """Bytes that the data file takes on the disk; 0 without one. Needs no lock."""
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def resize(self, total: int) -> None:
        """Give the data file its final length; the new bytes take no room yet."""
        os.ftruncate(self._descriptor, total)

    def write(self, chunks: Sequence[bytes], offset: int) -> int:
        """Write ``chunks`` one after another from ``offset`` on; how many bytes.

        Raises OSError; then some of them may be written.
        """
        left = list(chunks) if len(chunks) <= _MOST_CHUNKS else [b"".join(chunks)]
        size = sum(map(len, left))
        while left:
            written = os.pwritev(self._descriptor, left, offset)
            offset += written
            # Usually all of it; a full disk may take a part.
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]
        return size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes there were, 0 at the end."""
        return os.preadv(self._descriptor, [buffer], offset)

    def sync(self) -> None:
        """Make what was written last: only then may a note tell of it."""
        os.fdatasync(self._descriptor) if hasattr(os, "fdatasync") else os.fsync(self._descriptor)

    # --- notes ----------------------------------------------------------------------------------

    def notes(self) -> list[bytes]:
        """The contents of all notes, in no order. Needs no lock."""
        found = []
        for path in self._note_paths():
            with contextlib.suppress(FileNotFoundError):
                found.append(_read_note(path))
        return found

    def note(self, number: int, content: bytes) -> None:
        """Replace the note ``number``: whatever happens, the old or the new one is there."""
        path = self.path.with_name(f"{self.path.name}-{number}")
        # With a dot in front neither we nor the reference take it for a note.
        temporary = path.with_name(f".{path.name}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o644)
        try:
            try:
                write_all(descriptor, content)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _note_paths(self, *, halves: bool = False) -> list[Path]:
        """``halves``: those too that a crash kept from being finished."""
        prefixes = (f"{self.path.name}-", f".{self.path.name}-")[: 1 + halves]
        try:
            with os.scandir(self.path.parent) as entries:
                return [Path(entry.path) for entry in entries if entry.name.startswith(prefixes)]
        except FileNotFoundError:
            return []

    def _remove_notes(self) -> None:
        # From the end: killed on the way, we leave the first ones, from which the reference starts
        # over. Of others it makes a blob that is too short, again and again.
        for path in sorted(self._note_paths(halves=True), key=_note_number, reverse=True):
            path.unlink(missing_ok=True)

    # --- ends -----------------------------------------------------------------------------------

    def touch(self) -> None:
        """Keep the data and all notes from being pruned for an hour."""
        for path in (self.path, *self._note_paths()):
            # Another user's note can be replaced but not touched.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                os.utime(path)

    def remove_leftovers(self) -> None:
        """Remove the notes that a crash left of a blob that is stored, if nobody fetches it anew.

        With data among them they may still be of use, and stay.
        """
        if self.acquire():
            try:
                self.remove_idle_notes()
            finally:
                self.release()

    def remove_idle_notes(self) -> None:
        """Remove the notes if there is no data. Only for a blob that is stored."""
        if not self.size():
            self._remove_notes()

    def clear(self) -> None:
        """Start over: nothing is there. The lock stays."""
        self._remove_notes()
        os.ftruncate(self._descriptor, 0)

    def discard(self) -> None:
        """Remove the data and the notes, and release."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            self._remove_notes()
            self._unlink_own(descriptor)
        finally:
            os.close(descriptor)

    def promote(self) -> None:
        """Make the data, which the caller has verified, the blob, and release.

        The rename comes before the notes go: after a crash between the two there is a whole blob
        and some notes that nobody believes, instead of data that nobody knows to be whole.
        """
        os.fsync(self._descriptor)
        os.utime(self._descriptor)
        self.path.replace(self.target)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)
        sync_directory(self.target.parent)
        self._remove_notes()


def _read_note(path: Path) -> bytes:
    """What it says; nothing if it is a pipe or the like, whose opening or reading may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        return os.read(descriptor, _MAX_NOTE_BYTES)
    finally:
        os.close(descriptor)


def _note_number(path: Path) -> int:
    """What is no note at all comes last."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() else sys.maxsize


def unfinished(directory: Path) -> set[str]:
    """The names of the blobs that have files of a `Partial` in ``directory``."""
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return set()
    return {name.partition("-partial")[0].lstrip(".") for name in names if "-partial" in name}


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False
