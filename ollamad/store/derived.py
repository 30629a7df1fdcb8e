"""Files made from blobs that llama.cpp cannot load as they are: made once, kept beside the blobs.

``compat/sha256-<hex>.v<V>.text.gguf`` and ``….mmproj.gguf`` stand for the blob ``sha256-<hex>``; a
note, ``….json``, is written last and says that they are complete. They live as long as the blob
does. When the last load was, is the note's time of change. Contract: ``library-gguf-compat.md`` 5.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from ollamad.errors import LoadError, quoted
from ollamad.gguf.derive.plan import FilePlan, Plan
from ollamad.gguf.derive.registry import VERSION, find_plan, may_need_plan
from ollamad.gguf.facts import cached_facts
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.validate import validate
from ollamad.gguf.writer import Output
from ollamad.store.digests import is_digest
from ollamad.store.durable import make_directories, sync_directory, write_all
from ollamad.store.errors import os_error_text
from ollamad.units import human_bytes

logger = logging.getLogger(__name__)

_TEXT, _MMPROJ, _NOTE = "text.gguf", "mmproj.gguf", "json"
#: Of whoever makes files, in any process. Stays.
LOCK = ".lock"
_TEMPORARY = ".tmp"

#: Room for what else is written meanwhile, and what has to be left on the disk (5.4), in bytes.
_SPARE = 64 << 20
_LEAST_FREE = 1 << 30

#: Files of another version that nobody asked for go at a start when they are this old (5.5).
_OTHER_VERSION_NS = 7 * 24 * 3600 * 1_000_000_000
_TOUCH_NS = 3600 * 1_000_000_000

_PROGRESS_S = 5.0
_LOCK_POLL_S = 0.1


class Loadable(NamedTuple):
    """What llama.cpp gets for a file. ``mmproj`` None: nothing beside what the model has."""

    text: Path
    mmproj: Path | None = None


class _Note(msgspec.Struct, kw_only=True, omit_defaults=True):
    source: str
    source_size: int
    version: int
    kind: str
    #: Bytes of the files; None where the plan has none, or none was made yet.
    text: int | None = None
    mmproj: int | None = None
    #: Whether the plan has a projector at all.
    has_mmproj: bool = False


class _Identity(NamedTuple):
    """What a file is known by as long as nobody changes it."""

    path: Path
    size: int
    changed_ns: int


class Derived:
    """The directory of derived files. Blocks on the disk; safe to use from several threads."""

    def __init__(self, directory: Path, blobs: Path) -> None:
        self.directory = directory
        self._blobs = blobs
        self._guard = threading.Lock()
        #: Names of blobs whose derived files somebody is about to open.
        self._held: Counter[str] = Counter()
        #: Files that need nothing: their headers are not read again.
        self._fine: set[_Identity] = set()

    # --- for loads ----------------------------------------------------------------------------

    def find(self, source: Path, *, projector: bool = True) -> Loadable | None:
        """What to load for the blob at ``source``; None when ``make`` has to make it first.

        ``projector`` false: the model has another, or wants none. Raises FileNotFoundError and
        GGUFError for a source that cannot be read.
        """
        if not is_digest(source.name) or not may_need_plan(cached_facts(source).arch):
            return Loadable(source)
        identity = _identity(source)
        with self._guard:
            if identity in self._fine:
                return Loadable(source)
        note = self._note(source.name)
        if note is None or note.source_size != identity.size or not self._has_files(source, note):
            return None
        if note.text is None or (projector and note.has_mmproj and note.mmproj is None):
            return None
        self._touch(source.name)
        mmproj = self._path(source.name, _MMPROJ) if projector and note.has_mmproj else None
        return Loadable(self._path(source.name, _TEXT), mmproj)

    def make(
        self, source: Path, *, projector: bool = True, check: Callable[[], None] = lambda: None
    ) -> Loadable:
        """``find``, after making what is missing, which takes as long as copying the file.

        ``check`` is called every megabyte and may raise to give up: then nothing stays. Raises
        FileNotFoundError (also when the blob is deleted meanwhile), GGUFError, and LoadError when
        the disk has no room or fails.
        """
        try:
            make_directories(self.directory)
            with self._alone(check):
                found = self.find(source, projector=projector)
                return found or self._make(source, projector=projector, check=check)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LoadError(
                f"preparing the model for llama.cpp failed: {os_error_text('write', error)}"
            ) from error

    @contextmanager
    def held(self, *sources: Path | None) -> Iterator[None]:
        """While it lasts, no derived file of these has to make room for others."""
        names = [source.name for source in sources if source is not None]
        with self._guard:
            self._held.update(names)
        try:
            yield
        finally:
            with self._guard:
                self._held.subtract(names)

    # --- removal ------------------------------------------------------------------------------

    def collect(self) -> None:
        """Remove what was made of blobs that are gone. A removal that fails is logged."""
        for path in self._entries():
            blob = path.name.partition(".")[0]
            if is_digest(blob) and not (self._blobs / blob).exists():
                _remove(path)

    def clean(self, now_ns: int) -> None:
        """At a start: ``collect``, and remove what a crash or another version left.

        ``now_ns``: since the epoch. Leaves unfinished files alone while somebody makes some.
        """
        self.collect()
        entries = self._entries()
        if not entries:
            return
        try:
            self._clean(entries, now_ns)
        except OSError as error:  # a start must not fail for it
            logger.warning("failed to clean up error=%s", os_error_text("clean", error))

    @contextmanager
    def idle(self) -> Iterator[bool]:
        """Whether nobody, in any process, makes files; nobody does while it lasts."""
        with self._lock_file() as lock:
            yield _locked(lock)

    def _clean(self, entries: list[Path], now_ns: int) -> None:
        with self.idle() as idle:
            if not idle:
                return
            for path in entries:
                blob, _, rest = path.name.partition(".")
                if path.name.endswith(_TEMPORARY):
                    _remove(path)
                elif not is_digest(blob):
                    continue
                elif not rest.startswith(f"v{VERSION}."):
                    with suppress(FileNotFoundError):
                        if now_ns - path.stat().st_mtime_ns > _OTHER_VERSION_NS:
                            _remove(path)
                elif self._note(blob) is None:
                    _remove(path)

    # --- making -------------------------------------------------------------------------------

    def _make(self, source: Path, *, projector: bool, check: Callable[[], None]) -> Loadable:
        with open_gguf(source) as file:
            plan = find_plan(file)
            if plan is None:
                with self._guard:
                    self._fine.add(_identity(source))
                return Loadable(source)
            note = self._note(source.name)
            if note is None or note.source_size != file.size or not self._has_files(source, note):
                self._remove_all(source.name)
                note = _new_note(source, file.size, plan)
            wanted: list[tuple[str, FilePlan]] = []
            if note.text is None:
                wanted.append((_TEXT, plan.text))
            if projector and plan.mmproj is not None and note.mmproj is None:
                wanted.append((_MMPROJ, plan.mmproj))
            self._write(source, note, wanted, check)
        self._remove_other_versions(source.name)
        mmproj = self._path(source.name, _MMPROJ) if projector and note.has_mmproj else None
        return Loadable(self._path(source.name, _TEXT), mmproj)

    def _write(
        self,
        source: Path,
        note: _Note,
        wanted: list[tuple[str, FilePlan]],
        check: Callable[[], None],
    ) -> None:
        outputs = [(kind, plan.output()) for kind, plan in wanted]
        total = sum(output.size for _, output in outputs)
        self._make_room(source.name, total)
        logger.info("preparing %s for llama.cpp: %s", source.name, human_bytes(total))
        progress = _Progress(source.name, total, check)
        try:
            for kind, output in outputs:
                self._write_file(self._path(source.name, kind), output, progress)
        except BaseException:
            for kind, _ in outputs:  # without a note that tells of them, nobody would use them
                _remove(self._path(source.name, kind))
            raise
        sizes = {kind: output.size for kind, output in outputs}
        note.text = sizes.get(_TEXT, note.text)
        note.mmproj = sizes.get(_MMPROJ, note.mmproj)
        sync_directory(self.directory)
        target = self._path(source.name, _NOTE)
        with self._temporary(target) as (descriptor, temporary):
            write_all(descriptor, msgspec.json.encode(note))
            os.fsync(descriptor)
            temporary.replace(target)
        sync_directory(self.directory)
        if not source.exists():  # deleted meanwhile, and nobody else will remove what we made
            self.collect()
            raise FileNotFoundError(2, os.strerror(2), str(source))

    def _write_file(self, target: Path, output: Output, progress: _Progress) -> None:
        with self._temporary(target) as (descriptor, temporary):
            for chunk in output.chunks():
                write_all(descriptor, chunk)
                progress.advance(len(chunk))
            os.fsync(descriptor)
            _verify(temporary)
            temporary.replace(target)

    @contextmanager
    def _temporary(self, target: Path) -> Iterator[tuple[int, Path]]:
        """An open new file that is removed unless it was renamed."""
        path = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{_TEMPORARY}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            yield descriptor, path
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def _make_room(self, blob: str, needed: int) -> None:
        """Raises LoadError unless ``needed`` bytes fit, others' files removed if need be (5.4)."""
        if not self._missing(needed):
            return
        notes = [path for path in self._entries() if path.name.endswith(f".{_NOTE}")]
        for note in sorted(notes, key=_changed_ns):
            other = note.name.partition(".")[0]
            with self._guard:
                # Held until its files are open: what a runner has open stays readable.
                if other == blob or self._held[other] > 0:
                    continue
                logger.info("removing what was prepared of %s to make room", other)
                self._remove_all(other)
            if not self._missing(needed):
                return
        missing = self._missing(needed)
        if missing:
            raise LoadError(
                "not enough disk space to prepare the model for llama.cpp: "
                f"{human_bytes(needed)} are needed in {self.directory}, "
                f"{human_bytes(missing)} more than can be used"
            )

    def _missing(self, needed: int) -> int:
        """How many bytes too few there are on the disk, 0 if there are enough."""
        usage = shutil.disk_usage(self.directory)
        left = max(_LEAST_FREE, usage.total // 100)
        return max(0, needed + _SPARE + left - usage.free)

    # --- files --------------------------------------------------------------------------------

    def _path(self, blob: str, kind: str) -> Path:
        return self.directory / f"{blob}.v{VERSION}.{kind}"

    def _note(self, blob: str) -> _Note | None:
        """What the note says; None without one that can be read."""
        try:
            raw = self._path(blob, _NOTE).read_bytes()
            return msgspec.json.decode(raw, type=_Note)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            logger.warning("preparing %s again: %s", blob, error)
            return None

    def _has_files(self, source: Path, note: _Note) -> bool:
        """Whether every file that the note tells of is there, whole."""
        sizes = {_TEXT: note.text, _MMPROJ: note.mmproj}
        return all(
            size is None or _size(self._path(source.name, kind)) == size
            for kind, size in sizes.items()
        )

    def _touch(self, blob: str) -> None:
        path = self._path(blob, _NOTE)
        with suppress(OSError):  # it only orders who makes room first
            if time.time_ns() - path.stat().st_mtime_ns > _TOUCH_NS:
                os.utime(path)

    def _entries(self) -> list[Path]:
        try:
            return list(self.directory.iterdir())
        except FileNotFoundError:
            return []

    def _remove_other_versions(self, blob: str) -> None:
        for path in self._entries():
            if path.name.startswith(f"{blob}.") and not path.name.startswith(f"{blob}.v{VERSION}."):
                _remove(path)

    def _remove_all(self, blob: str) -> None:
        # The note first: without the files it would be a lie.
        for kind in (_NOTE, _TEXT, _MMPROJ):
            _remove(self._path(blob, kind))

    # --- one at a time ------------------------------------------------------------------------

    @contextmanager
    def _lock_file(self) -> Iterator[int]:
        descriptor = os.open(self.directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _alone(self, check: Callable[[], None]) -> Iterator[None]:
        """Nobody else, in any process, makes files for this directory."""
        with self._lock_file() as lock:
            while not _locked(lock):
                check()
                time.sleep(_LOCK_POLL_S)
            yield


class _Progress:
    """Tells the log every few seconds how far it is."""

    def __init__(self, blob: str, total: int, check: Callable[[], None]) -> None:
        self._blob = blob
        self._total = total
        self._check = check
        self._done = 0
        self._told = time.monotonic()

    def advance(self, count: int) -> None:
        self._check()
        self._done += count
        if time.monotonic() - self._told >= _PROGRESS_S:
            self._told = time.monotonic()
            percent = 100 * self._done // self._total
            logger.info("preparing %s for llama.cpp: %d %%", self._blob, percent)


def _new_note(source: Path, size: int, plan: Plan) -> _Note:
    return _Note(
        source=source.name.replace("-", ":", 1),
        source_size=size,
        version=VERSION,
        kind=plan.kind,
        has_mmproj=plan.mmproj is not None,
    )


def _verify(path: Path) -> None:
    """Raises GGUFError or LoadError for a file that is broken or would have to be changed again."""
    with open_gguf(path, strict=True) as file:
        validate(file)
        if find_plan(file) is not None:
            raise LoadError(f"what was made from the model is of kind {quoted(file.arch)} again")


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return _Identity(path, status.st_size, status.st_mtime_ns)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("failed to remove path=%s error=%s", path, os_error_text("remove", error))
