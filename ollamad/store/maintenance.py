"""What is put right when the daemon starts: old names, leftovers, orphans (registry-and-store 2.9).

The order matters: blobs with old names would be deleted as invalid if pruning came first.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection
from pathlib import Path

from ollamad.store.digests import digest_of_filename
from ollamad.store.errors import StoreError, os_error_text
from ollamad.store.manifest_files import TEMPORARY_PREFIX

logger = logging.getLogger(__name__)

#: A younger file may belong to an operation, of any process, that has no manifest yet.
GRACE_NS = 3600 * 1_000_000_000


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


def prune_blobs(blobs: Path, referenced: Collection[str], now_ns: int) -> tuple[int, int]:
    """Remove entries of ``blobs`` older than an hour that are no blob or are not ``referenced``.

    ``referenced`` holds file names; ``now_ns`` is since the epoch. Returns how many blobs of that
    age there were and how many of them were removed. A removal that fails is logged.
    """
    total = removed = 0
    for path in sorted(blobs.iterdir()):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode) or now_ns - status.st_mtime_ns < GRACE_NS:
            continue
        is_blob = digest_of_filename(path.name) is not None
        total += is_blob
        if is_blob and path.name in referenced:
            continue
        removed += _removed(path) and is_blob
    return total, removed


def remove_leftovers(manifests: Path, now_ns: int) -> None:
    """Remove our own unfinished manifests older than an hour, wherever a crash left them."""
    for directory, _, files in os.walk(manifests):
        for filename in files:
            path = Path(directory, filename)
            if filename.startswith(TEMPORARY_PREFIX):
                try:
                    age_ns = now_ns - path.lstat().st_mtime_ns
                except FileNotFoundError:
                    continue
                if age_ns >= GRACE_NS:
                    _removed(path)


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


def _removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError as error:
        logger.warning("failed to remove path=%s error=%s", path, os_error_text("remove", error))
        return False
    return True


def _raise(error: OSError) -> None:
    raise error
