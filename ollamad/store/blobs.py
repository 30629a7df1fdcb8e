"""Blobs: content-addressed files that appear whole or not at all (registry-and-store 2.2, 2.8).

What keeps deletions and running operations apart: an operation names the blobs that it counts on
(``InUse``) before it looks whether they exist; a deletion asks for each blob whether somebody
counts on it and marks it while it removes it. Both decisions are made under one short lock, which
is never held over a disk access. Between processes, ``StoreLock`` does the same for all blobs.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ollamad.errors import BadRequest, quoted
from ollamad.store.digests import blob_filename, digest_of_filename, from_hex
from ollamad.store.durable import make_directories, sync_directory, write_all
from ollamad.store.locks import StoreLock


@dataclass(frozen=True, slots=True)
class BlobResult:
    """A stored blob. ``created`` is false when the same content was already there."""

    digest: str
    size: int
    created: bool

    @property
    def status(self) -> str:
        """What create reports about the layer (2.8)."""
        verb = "creating new layer" if self.created else "using existing layer"
        return f"{verb} {self.digest}"


class Blobs:
    """The blobs directory. Safe to use from several threads.

    ``lock`` is shared while anybody counts on a blob or writes one. Who removes blobs must have it
    alone.
    """

    def __init__(self, directory: Path, lock: StoreLock) -> None:
        self.directory = directory
        self._lock = lock
        #: Called with digests that a deletion had to spare and that nobody counts on any more.
        self.on_spared: Callable[[list[str]], None] | None = None

        self._changed = threading.Condition()
        # All four hold file names and are touched only under ``_changed``.
        self._users: Counter[str] = Counter()
        self._being_written: set[str] = set()
        self._being_removed: set[str] = set()
        self._spared: set[str] = set()

    def path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises BadRequest ``invalid digest format``."""
        return self.directory / blob_filename(digest)

    def has(self, digest: str) -> bool:
        """Whether the blob exists as a file, links followed. Raises BadRequest."""
        return self.size(digest) is not None

    def size(self, digest: str) -> int | None:
        """Bytes of the blob, None when it does not exist as a file. Raises BadRequest."""
        return _regular_size(self.path(digest))

    def touch(self, digest: str) -> None:
        """Set the blob's times to now, which keeps it from being pruned for an hour.

        Raises BadRequest, or FileNotFoundError when the blob is missing.
        """
        path = self.path(digest)
        path.stat()  # whose error, unlike the next, names the file
        os.utime(path)

    def new(self, in_use: InUse | None = None) -> BlobWriter:
        """Start a blob; its digest joins ``in_use``, if given, before it becomes visible."""
        make_directories(self.directory)
        return BlobWriter(self, in_use)

    def in_use(self, digests: Iterable[str] = ()) -> InUse:
        """Keep blobs from being removed until the result is closed, existing or not.

        Raises BadRequest for text that is no digest.
        """
        holder = InUse(self)
        try:
            holder.add(*digests)
        except BaseException:
            holder.close()
            raise
        return holder

    def remove(self, digests: Iterable[str]) -> list[str]:
        """Remove the blobs that nobody counts on; missing ones are fine. Returns the removed.

        Raises BadRequest for text that is no digest, OSError when a removal fails.
        """
        removed = []
        for filename in dict.fromkeys(blob_filename(digest) for digest in digests):
            with self.removing(filename, later=True) as free:
                if not free:
                    continue
                try:
                    (self.directory / filename).unlink()
                    removed.append(filename)
                except FileNotFoundError:
                    pass
        return [digest for name in removed if (digest := digest_of_filename(name))]

    @contextmanager
    def removing(self, filename: str, *, later: bool = False) -> Iterator[bool]:
        """Whether nobody here counts on the blob, or writes the file, of that name.

        Then nobody can while the block lasts: who wants to waits. With ``later`` a blob in use is
        remembered as spared.
        """
        with self._changed:
            in_use = filename in self._users
            free = not in_use and filename not in self._being_written
            if free:
                self._being_removed.add(filename)
            elif in_use and later:
                self._spared.add(filename)
        try:
            yield free
        finally:
            if free:
                with self._changed:
                    self._being_removed.discard(filename)
                    self._changed.notify_all()

    def _acquire(self, filename: str) -> None:
        self._lock.share()
        with self._changed:
            while filename in self._being_removed:
                self._changed.wait()
            self._users[filename] += 1

    def _begin_writing(self) -> tuple[int, Path]:
        """A new temporary file, open, and its path; `_end_writing` follows."""
        self._lock.share()
        try:
            while True:
                # Too short to be a digest, on purpose: prune removes it, and nothing serves it.
                path = self.directory / f"sha256-{secrets.randbelow(10**12)}"
                descriptor = self._created(path)
                if descriptor is not None:
                    return descriptor, path
        except BaseException:
            self._lock.unshare()
            raise

    def _created(self, path: Path) -> int | None:
        """A descriptor of the new file, which from before it exists counts as being written."""
        with self._changed:
            if path.name in self._being_written:
                return None
            self._being_written.add(path.name)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            return os.open(path, flags, 0o600)
        except BaseException as error:
            with self._changed:
                self._being_written.discard(path.name)
            if isinstance(error, FileExistsError):
                return None
            raise

    def _end_writing(self, filename: str) -> None:
        with self._changed:
            self._being_written.discard(filename)
        self._lock.unshare()

    def _release(self, filenames: set[str]) -> list[str]:
        """Give up ``filenames``; the digests among them that were spared and are now free."""
        free = []
        with self._changed:
            for filename in filenames:
                self._users[filename] -= 1
                if not self._users[filename]:
                    del self._users[filename]
                    if filename in self._spared:
                        self._spared.discard(filename)
                        free.append(filename)
        for _ in filenames:
            self._lock.unshare()
        return [digest for name in free if (digest := digest_of_filename(name))]


class InUse:
    """Blobs that a running operation counts on. Close it when the manifest is written.

    Closing may remove what a deletion had to spare meanwhile: do it in a worker thread.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._filenames: set[str] = set()
        self._lock = threading.Lock()

    def add(self, *digests: str) -> None:
        """Count on these blobs too. Waits for a removal of one of them to end.

        Raises BadRequest for text that is no digest.
        """
        for filename in [blob_filename(digest) for digest in digests]:
            with self._lock:
                if filename not in self._filenames:
                    self._blobs._acquire(filename)
                    self._filenames.add(filename)

    def close(self) -> None:
        """Count on them no longer; more than once is fine."""
        with self._lock:
            filenames, self._filenames = self._filenames, set()
        free = self._blobs._release(filenames)
        if free and self._blobs.on_spared is not None:
            self._blobs.on_spared(free)

    def __enter__(self) -> InUse:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlobWriter:
    """A blob being written: a temporary file, hashed on the way, then renamed.

    A context manager that aborts unless committed. Used by one thread at a time.
    """

    def __init__(self, blobs: Blobs, in_use: InUse | None) -> None:
        self._blobs = blobs
        self._in_use = in_use
        self._hash = hashlib.sha256()
        self.size = 0
        self._descriptor, self.path = blobs._begin_writing()
        self._open = True
        self._finished = False  # renamed or removed: the path may by now be another's

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``. Raises OSError; the caller aborts."""
        write_all(self._descriptor, data)
        self._hash.update(data)
        self.size += len(data) if not isinstance(data, memoryview) else data.nbytes

    def commit(self, expected: str | None = None) -> BlobResult:
        """Make the blob visible under its digest, synced, or discard it if it is already stored.

        Raises BadRequest ``digest mismatch, …`` when the digest is not literally ``expected``; the
        content then stays stored under its own digest. Any other error removes the temporary file.
        """
        digest = from_hex(self._hash.hexdigest())
        with self._blobs.in_use() as holder:
            try:
                (self._in_use or holder).add(digest)
                created = self._settle(self._blobs.path(digest))
            except BaseException:
                self.abort()
                raise
        if expected is not None and digest != expected:
            raise BadRequest(f"digest mismatch, expected {quoted(expected)}, got {quoted(digest)}")
        return BlobResult(digest, self.size, created)

    def _settle(self, target: Path) -> bool:
        # Content of another length under this digest is damaged: ours takes its place.
        if _regular_size(target) == self.size and _touched(target):
            self.abort()
            return False
        os.fchmod(self._descriptor, 0o644)
        os.fsync(self._descriptor)
        self._close()
        os.utime(self.path)
        self.path.replace(target)
        self._finish()
        sync_directory(target.parent)
        return True

    def abort(self) -> None:
        """Remove what was written; nothing happens after a commit or another abort."""
        if not self._finished:
            try:
                self._close()
                self.path.unlink(missing_ok=True)
            finally:
                self._finish()

    def _finish(self) -> None:
        self._finished = True
        self._blobs._end_writing(self.path.name)

    def _close(self) -> None:
        if self._open:
            self._open = False
            os.close(self._descriptor)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


def _regular_size(path: Path) -> int | None:
    """The size in bytes of the file at ``path``; none when there is no regular file."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _touched(path: Path) -> bool:
    try:
        os.utime(path)
    except FileNotFoundError:  # another process has just removed it
        return False
    return True
