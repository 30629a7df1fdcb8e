"""Finding and reading manifest files, each parsed once while it stays the same (2.3, 2.7).

Other programs write here too, so every reading looks at the files themselves; only the parsing is
remembered, by the file's identity.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ollamad.store.errors import ManifestError, os_error_text
from ollamad.store.manifest import StoredManifest, stored_manifest
from ollamad.store.names import Name

logger = logging.getLogger(__name__)

#: Our own unfinished files; a crash may leave one. Never read as a manifest.
TEMPORARY_PREFIX = ".ollamad-"

MAX_MANIFEST_BYTES = 64 * 1024 * 1024

_DEPTH = 4

# A file that changed more recently may change again without a visible trace in its times.
_SETTLED_NS = 2_000_000_000

_Identity = tuple[int, int, int, int, int]
Problem = Callable[[str, ManifestError | OSError], None]


class ManifestFiles:
    """The manifests directory, reading side. Safe to use from several threads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._parsed: dict[str, tuple[_Identity, StoredManifest | ManifestError]] = {}
        self._logged: set[tuple[str, str]] = set()

    def path(self, name: Name) -> Path:
        """Where the manifest is or would be. Raises BadRequest for an invalid name."""
        return self.directory / name.relative_path

    def read(self, name: Name) -> StoredManifest:
        """The manifest of ``name`` in exactly this spelling.

        Raises BadRequest for an invalid name, FileNotFoundError, another OSError, or ManifestError.
        """
        return self._read(str(self.path(name)))

    def forget(self, name: Name) -> None:
        """The file was just rewritten: read it again whatever its times say."""
        self._parsed.pop(str(self.path(name)), None)

    def all(self) -> list[tuple[Name, StoredManifest]]:
        """All manifests that can be read, ordered by path; the others are logged once each."""
        return self._all(self._log)

    def all_and_problems(self) -> tuple[list[tuple[Name, StoredManifest]], list[tuple[str, str]]]:
        """All manifests that can be read, and of each other file its path and what is wrong."""
        problems: list[tuple[str, str]] = []

        def note(path: str, problem: ManifestError | OSError) -> None:
            text = os_error_text("open", problem) if isinstance(problem, OSError) else str(problem)
            problems.append((path, text))

        return self._all(note), problems

    def all_countable(self) -> list[tuple[Name, StoredManifest]]:
        """As ``all``, for finding what is unreferenced. Raises OSError where files are unreadable.

        A file that cannot be opened today may reference blobs tomorrow; broken JSON never will.
        """

        def judge(path: str, problem: ManifestError | OSError) -> None:
            if isinstance(problem, OSError) and not isinstance(problem, FileNotFoundError):
                raise problem
            self._log(path, problem)

        return self._all(judge)

    def _all(self, on_problem: Problem) -> list[tuple[Name, StoredManifest]]:
        found = []
        seen = set()
        for relative, path in self._candidates(on_problem):
            seen.add(path)
            name = Name.from_relative_path(relative)
            if name is None:
                on_problem(path, ManifestError(f"{path}: invalid model name"))
                continue
            try:
                found.append((name, self._read(path)))
            except FileNotFoundError as error:
                if Path(path).is_symlink():  # otherwise it was removed while we looked
                    on_problem(path, error)
            except (OSError, ManifestError) as error:
                on_problem(path, error)
        for path in [path for path in list(self._parsed) if path not in seen]:
            self._parsed.pop(path, None)
        return found

    def _candidates(self, on_problem: Problem) -> Iterator[tuple[str, str]]:
        """Everything but directories exactly four levels down: relative and full path, sorted."""
        pending = [("", str(self.directory), 1)]
        while pending:
            prefix, directory, depth = pending.pop()
            deeper = []
            try:
                with os.scandir(directory) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue  # removed while we looked
            except OSError as error:
                on_problem(directory, error)
                continue
            for entry in entries:
                try:
                    is_directory = entry.is_dir()
                except OSError as error:  # for example a link that leads to itself
                    on_problem(entry.path, error)
                    continue
                if depth < _DEPTH and is_directory:
                    deeper.append((f"{prefix}{entry.name}/", entry.path, depth + 1))
                elif (
                    depth == _DEPTH
                    and not is_directory
                    and not entry.name.startswith(TEMPORARY_PREFIX)
                ):
                    yield prefix + entry.name, entry.path
            pending.extend(reversed(deeper))

    def read_raw(self, name: Name) -> bytes:
        """The bytes of the manifest file, whatever they are. Raises as ``read``."""
        path = str(self.path(name))
        descriptor = _open(path)
        try:
            return _regular_bytes(descriptor, path)
        finally:
            os.close(descriptor)

    def _read(self, path: str) -> StoredManifest:
        descriptor = _open(path)
        try:
            status = os.fstat(descriptor)
            identity = (
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_size,
                status.st_ino,
                status.st_dev,
            )
            known = self._parsed.get(path)
            if known is None or known[0] != identity:
                known = identity, _parse(descriptor, path, status.st_mtime_ns)
                if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
                    self._parsed[path] = known
        finally:
            os.close(descriptor)
        if isinstance(known[1], ManifestError):
            raise ManifestError(known[1].message)
        return known[1]

    def _log(self, path: str, problem: ManifestError | OSError) -> None:
        text = os_error_text("open", problem) if isinstance(problem, OSError) else str(problem)
        if (path, text) not in self._logged:
            self._logged.add((path, text))
            logger.warning("bad manifest path=%s error=%s", path, text)


def _open(path: str) -> int:
    # Without O_NONBLOCK, opening a foreign pipe would hang.
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError as error:
        text = os.strerror(errno.ENOENT)
        raise FileNotFoundError(errno.ENOENT, text, error.filename) from error


def read_file(descriptor: int, limit: int) -> bytes | None:
    """All bytes of an open file, or none when there are more than ``limit``."""
    chunks = []
    left = limit + 1
    while left and (chunk := os.read(descriptor, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks) if left else None


def _regular_bytes(descriptor: int, path: str) -> bytes:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise ManifestError(f"{path}: not a regular file")
    raw = read_file(descriptor, MAX_MANIFEST_BYTES)
    if raw is None:
        raise ManifestError(f"{path}: manifest larger than {MAX_MANIFEST_BYTES} bytes")
    return raw


def _parse(descriptor: int, path: str, modified_at_ns: int) -> StoredManifest | ManifestError:
    try:
        return stored_manifest(_regular_bytes(descriptor, path), modified_at_ns)
    except ManifestError as error:
        return error
