"""What is put right when the daemon starts, and what prune does: old names, leftovers, orphans
(registry-and-store 2.9).

At the start the order matters: blobs with old names would be deleted as invalid if pruning came
first. What there is to remove, `usage` decides.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ollamad.store.blobs import Blobs
from ollamad.store.derived import LOCK, Derived
from ollamad.store.errors import StoreError, os_error_text
from ollamad.store.manifest_files import TEMPORARY_PREFIX
from ollamad.store.usage import (
    GRACE_NS,
    Contents,
    Entry,
    Item,
    Kept,
    is_work_directory,
)

logger = logging.getLogger(__name__)

_IN_USE = "an operation uses it"
_DOWNLOADING = "another process downloads it"
_PREPARING = "a model is being prepared"
_CHANGED = "it has just changed"


def rename_old_blobs(blobs: Path) -> int:
    """Rename every ``sha256:<rest>`` below ``blobs`` to ``sha256-<rest>``; how many there were.

    Raises StoreError, which ends the start.
    """
    renamed = 0
    try:
        for directory, subdirectories, files in os.walk(blobs, topdown=False, onerror=_raise):
            for filename in (*files, *subdirectories):
                if filename.startswith("sha256:"):
                    old = Path(directory, filename)
                    old.rename(old.with_name("sha256-" + filename.removeprefix("sha256:")))
                    renamed += 1
    except OSError as error:
        raise StoreError(os_error_text("rename", error)) from error
    return renamed


def remove_leftovers(manifests: Path, now_ns: int) -> None:
    """Remove our own unfinished manifests older than an hour, wherever a crash left them."""
    for path in _leftovers(manifests):
        with suppress(FileNotFoundError):
            if now_ns - path.lstat().st_mtime_ns >= GRACE_NS:
                _removed(path)


def _leftovers(manifests: Path) -> Iterator[Path]:
    for directory, _, files in os.walk(manifests):
        for filename in files:
            if filename.startswith(TEMPORARY_PREFIX):
                yield Path(directory, filename)


def prune_directories(top: Path) -> None:
    """Remove empty directories below ``top``, bottom up, and ``top`` if it ends up empty.

    Links are neither followed nor removed. One that cannot be removed does no harm and stays.
    """
    for directory, _, _ in os.walk(top, topdown=False):
        # The kernel decides whether it is empty, so a file that just came keeps it.
        try:
            Path(directory).rmdir()
        except OSError as error:
            logger.debug("directory stays: %s", os_error_text("rmdir", error))


# --- looking --------------------------------------------------------------------------------------


def look(root: Path) -> Contents:
    """What is in the model directory ``root``. What vanishes meanwhile is left out.

    Raises OSError when a directory cannot be read.
    """
    blobs, in_blobs = _scan(root, "blobs")
    derived, _ = _scan(root, "compat")
    _, in_models = _scan(root, "")
    work = [name for name in in_models if is_work_directory(name, in_blobs=False)]
    work += [f"blobs/{name}" for name in in_blobs if is_work_directory(name, in_blobs=True)]
    leftovers = [str(path.relative_to(root)) for path in _leftovers(root / "manifests")]
    return Contents(
        blobs=blobs,
        directories=_present(_whole_directory(root, path) for path in work),
        derived=[entry for entry in derived if entry.name != LOCK],
        manifests=_present(_entry(root, path) for path in leftovers),
    )


def _scan(root: Path, below: str) -> tuple[list[Entry], list[str]]:
    """The files and the names of the directories right in a directory, which may be missing."""
    files, directories = [], []
    prefix = f"{below}/" if below else ""
    try:
        with os.scandir(root / below) as scan:
            for found in scan:
                if found.is_dir(follow_symlinks=False):
                    directories.append(found.name)
                elif below:
                    files.append(_entry(root, prefix + found.name))
    except FileNotFoundError:
        pass
    return _present(files), sorted(directories)


def _entry(root: Path, path: str) -> Entry | None:
    try:
        status = (root / path).lstat()
    except FileNotFoundError:
        return None
    return Entry(path, status.st_size, _on_disk(status), status.st_mtime_ns)


def _present(entries: Iterable[Entry | None]) -> list[Entry]:
    return sorted(entry for entry in entries if entry is not None)


def _whole_directory(root: Path, path: str) -> Entry | None:
    """The directory at ``path`` as one, as old as the newest of what is in it."""
    length = size = modified_ns = 0
    for directory, _, files in os.walk(root / path):
        for name in ("", *files):
            with suppress(FileNotFoundError):
                status = Path(directory, name).lstat()
                size += _on_disk(status)
                length += status.st_size if name else 0
                modified_ns = max(modified_ns, status.st_mtime_ns)
    return Entry(path, length, size, modified_ns, is_directory=True) if modified_ns else None


def _on_disk(status: os.stat_result) -> int:
    # Always in units of 512 bytes, whatever the block size.
    return status.st_blocks * 512


# --- removing -------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What was removed, or would have been, and what was to be removed but could not be."""

    removed: list[Item]
    kept: list[Kept]


class Remover:
    """Removes what `usage.decide` names. The caller has the directory alone among processes, and
    keeps manifests from changing.

    With ``dry_run`` it looks whether it could, and removes nothing.
    """

    def __init__(self, root: Path, blobs: Blobs, derived: Derived, *, dry_run: bool) -> None:
        self._root = root
        self._blobs = blobs
        self._derived = derived
        self._dry_run = dry_run

    def remove(self, items: Collection[Item]) -> Outcome:
        """Remove each item whole or not at all. Failures are logged and in the outcome."""
        outcome = Outcome([], [])
        for item in items:
            reason = self._remove(item)
            if reason:
                outcome.kept.append(Kept(item.name, reason))
            else:
                outcome.removed.append(item)
        return outcome

    def _remove(self, item: Item) -> str:
        """Why not; empty when it is done."""
        try:
            with ExitStack() as stack:
                # A file that is being written has no blob yet, but its own name.
                filename = item.blob or item.entries[0].name
                if not stack.enter_context(self._blobs.removing(filename)):
                    return _IN_USE
                if item.kind == "partial" and not stack.enter_context(self._untaken(item)):
                    return _DOWNLOADING
                if item.entries[0].path.startswith("compat/") and not stack.enter_context(
                    self._derived.idle()
                ):
                    return _PREPARING
                return self._remove_now(item)
        except OSError as error:
            reason = os_error_text("remove", error)
            logger.warning("failed to remove path=%s error=%s", self._root / item.name, reason)
            return reason

    def _remove_now(self, item: Item) -> str:
        if not item.entries[0].is_directory and any(map(self._has_changed, item.entries)):
            return _CHANGED
        for entry in () if self._dry_run else item.entries:
            path = self._root / entry.path
            if entry.is_directory:
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return ""

    def _has_changed(self, entry: Entry) -> bool:
        """Whether somebody who knows no locks has come since we looked."""
        now = _entry(self._root, entry.path)
        return now is not None and now.modified_ns != entry.modified_ns

    @contextmanager
    def _untaken(self, item: Item) -> Iterator[bool]:
        """Whether nobody writes to the data of a download, and nobody will while it lasts."""
        data = self._root / "blobs" / f"{item.blob}-partial"
        try:
            descriptor = os.open(data, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # Without data, or with something else in its place, nobody is downloading.
            yield True
            return
        try:
            yield _can_lock(descriptor)
        finally:
            os.close(descriptor)


def _can_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.debug("a download cannot be locked: %s", os_error_text("lock", error))
    return True


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError as error:
        logger.warning("failed to remove path=%s error=%s", path, os_error_text("remove", error))
        return False
    return True


def _raise(error: OSError) -> None:
    raise error
