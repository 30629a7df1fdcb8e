"""The model directory: one object through which everything else reads and changes it.

All methods are synchronous and may block on the disk: call them in worker threads. Manifests change
one at a time, under one lock; blobs follow the rules of ``blobs``, between processes of ``locks``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Collection, Iterable
from pathlib import Path

from ollamad.gguf.derive.registry import VERSION
from ollamad.store.blobs import Blobs, BlobWriter, InUse
from ollamad.store.derived import Derived
from ollamad.store.digests import blob_filename, is_digest
from ollamad.store.durable import make_directories, sync_directory, write_all
from ollamad.store.errors import StoreError, os_error_text
from ollamad.store.locks import lock_of
from ollamad.store.maintenance import (
    Outcome,
    Remover,
    look,
    prune_directories,
    remove_leftovers,
    rename_old_blobs,
)
from ollamad.store.manifest import (
    Manifest,
    StoredManifest,
    check_digests,
    encode_manifest,
    parse_manifest,
)
from ollamad.store.manifest_files import TEMPORARY_PREFIX, ManifestFiles
from ollamad.store.names import Name, existing_spelling
from ollamad.store.partials import Partial
from ollamad.store.usage import (
    GRACE_NS,
    KINDS,
    Contents,
    Item,
    Kept,
    Kind,
    ModelFiles,
    Usage,
    decide,
    files_of,
    measure,
    unneeded,
)

logger = logging.getLogger(__name__)

_DERIVED_VERSION = f"v{VERSION}"
_ANOTHER = "another process uses the model directory"


class Store:
    """A model directory (registry-and-store 2). Safe to use from several threads.

    ``root`` is the models directory; ``prune`` is false when ``OLLAMA_NOPRUNE`` is set and then
    nothing is removed but by ``delete`` and ``prune_now``.
    """

    def __init__(self, root: Path, *, prune: bool = True) -> None:
        self.root = root
        self.prune = prune
        self._lock = lock_of(root)
        self._blobs = Blobs(root / "blobs", self._lock)
        self._blobs.on_spared = self._remove_spared
        self._manifests = ManifestFiles(root / "manifests")
        #: What was made from blobs for llama.cpp. It goes with them.
        self.derived = Derived(root / "compat", self._blobs.directory)
        self._changing = threading.RLock()
        #: How many times this process has changed a manifest.
        self.changes = 0

    # --- manifests ----------------------------------------------------------------------------

    def resolve(self, name: Name) -> Name:
        """``name`` in the spelling under which it, or parts of it, are stored (1.4)."""
        if not name.is_valid or self.has_manifest(name):
            return name
        return existing_spelling(name, [stored for stored, _ in self.manifests()])

    def has_manifest(self, name: Name) -> bool:
        """Whether there is a manifest file, readable or not, in exactly this spelling."""
        try:
            return stat.S_ISREG(self._manifests.path(name).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def manifest_path(self, name: Name) -> Path:
        """Where the manifest is or would be. Raises BadRequest for an invalid name."""
        return self._manifests.path(name)

    def read_manifest(self, name: Name) -> StoredManifest:
        """The manifest of ``name`` in exactly this spelling; the same object while unchanged.

        Raises BadRequest for an invalid name, FileNotFoundError when it is not stored, and
        ManifestError (500, the reference's JSON error text) when it cannot be read.
        """
        return self._manifests.read(name)

    def manifests(self) -> list[tuple[Name, StoredManifest]]:
        """All readable models ordered by path; unreadable ones are logged once and left out."""
        return self._manifests.all()

    def write_manifest(self, name: Name, manifest: Manifest | bytes) -> StoredManifest:
        """Make ``manifest`` the model ``name``, replacing what was there, and make it last.

        Bytes, from a registry, are stored as they are. The blobs that it names must already be
        stored and held ``in_use`` by the caller. Raises BadRequest for an invalid name,
        ManifestError for bytes that are no manifest, StoreError or OSError from the disk.
        """
        if isinstance(manifest, Manifest):
            raw, mode = encode_manifest(manifest), 0o666
        else:
            raw, mode = manifest, 0o644
            parse_manifest(raw)
        with self._changing:
            self._install(name, raw, mode)
            return self._manifests.read(name)

    def copy(self, source: Name, destination: Name) -> None:
        """Give the model ``source`` a second name; blobs are shared (2.11).

        Both names resolved. The same name twice is fine even if it is not stored. Raises
        FileNotFoundError when ``source`` is not stored, before anything is created.
        """
        if self._manifests.path(source) == self._manifests.path(destination):
            return
        self._manifests.read_raw(source)  # whose error comes before anything is created
        # Until the second name is there, no other process may take the first one's blobs away.
        with self._lock.shared(), self._changing:
            self._install(destination, self._manifests.read_raw(source), 0o666)

    def delete(self, name: Name) -> None:
        """Remove the model, the directories it leaves empty and the blobs only it used (2.10).

        ``name`` is resolved. Raises FileNotFoundError when it is not stored, ManifestError when its
        manifest cannot be read, and ``invalid digest format`` (500) after removing a manifest with
        a bad digest.
        """
        with self._changing:
            manifest = self.read_manifest(name).manifest
            path = self._manifests.path(name)
            path.unlink()
            self._forget(name)
            # The model must be gone for good before its blobs go.
            with contextlib.suppress(FileNotFoundError):  # another process pruned the directory
                sync_directory(path.parent)
            prune_directories(self._manifests.directory)
            check_digests(manifest)
            self.remove_unreferenced(manifest.references())

    def _install(self, name: Name, raw: bytes, mode: int) -> None:
        target = self._manifests.path(name)
        top = self._manifests.directory
        # At the top no reader, ours or the reference's, can mistake the unfinished file for a
        # manifest, not even after a crash.
        temporary = top / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        make_directories(target.parent)
        try:
            _write_new(temporary, raw, mode)
            try:
                self._rename(temporary, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                # A directory on the way leads to another file system.
                temporary.unlink()
                temporary = target.parent / temporary.name
                _write_new(temporary, raw, mode)
                self._rename(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._forget(name)
        sync_directory(target.parent)

    def _forget(self, name: Name) -> None:
        self._manifests.forget(name)
        self.changes += 1

    def _rename(self, temporary: Path, target: Path) -> None:
        for _ in range(8):
            try:
                temporary.replace(target)
                return
            except FileNotFoundError:
                # Another process pruned the still empty directory.
                make_directories(target.parent)
        temporary.replace(target)

    # --- blobs --------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> Path:
        """Where the blob is or would be. Raises BadRequest ``invalid digest format``."""
        return self._blobs.path(digest)

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is stored. Raises BadRequest ``invalid digest format``."""
        return self._blobs.has(digest)

    def blob_size(self, digest: str) -> int | None:
        """Bytes of the stored blob, None when it is not stored. Raises BadRequest."""
        return self._blobs.size(digest)

    def partial(self, digest: str) -> Partial:
        """The files of the blob while it is arriving. Raises BadRequest."""
        return Partial(self._blobs.path(digest))

    def free_bytes(self) -> int:
        """Room for blobs on the disk, as far as it is ours to use. Raises StoreError, OSError."""
        make_directories(self._blobs.directory)
        return shutil.disk_usage(self._blobs.directory).free

    def touch_blob(self, digest: str) -> None:
        """Protect the blob from pruning for an hour. Raises BadRequest, FileNotFoundError."""
        self._blobs.touch(digest)

    def new_blob(self, in_use: InUse | None = None) -> BlobWriter:
        """A blob to write, then ``commit``; with ``in_use`` it is protected from the start."""
        return self._blobs.new(in_use)

    def in_use(self, digests: Iterable[str] = ()) -> InUse:
        """Keep these blobs from removal while an operation counts on them.

        A context manager, active at once; take it before looking whether a blob exists. Raises
        BadRequest ``invalid digest format``.
        """
        return self._blobs.in_use(digests)

    def remove_unreferenced(self, digests: Iterable[str]) -> list[str]:
        """Remove those of ``digests`` that no manifest names and no operation uses; returns them.

        Missing blobs and invalid digests are passed over. None is removed while an operation of
        another process counts on blobs: a later prune removes them. Raises OSError when a removal
        fails, or when a manifest could not be opened and so nobody knows what it needs.
        """
        with self._changing, self._lock.alone() as alone:
            if not alone:
                logger.warning("blobs that are not needed stay until they are pruned: %s", _ANOTHER)
                return []
            referenced = self._referenced(self._manifests.all_countable())
            removed = self._blobs.remove(
                digest
                for digest in digests
                if is_digest(digest) and blob_filename(digest) not in referenced
            )
        self.derived.collect()
        return removed

    def remove_superseded(self, old: StoredManifest) -> list[str]:
        """Remove what only the replaced manifest ``old`` used, unless pruning is off (2.12)."""
        return self.remove_unreferenced(old.manifest.references()) if self.prune else []

    def _remove_spared(self, digests: list[str]) -> None:
        try:
            self.remove_unreferenced(digests)
        except OSError as error:
            # The operation that ends here is not to blame; the next start prunes them.
            logger.warning("failed to remove blobs error=%s", os_error_text("remove", error))

    @staticmethod
    def _referenced(manifests: list[tuple[Name, StoredManifest]]) -> frozenset[str]:
        return files_of(
            digest for _, stored in manifests for digest in stored.manifest.references()
        )

    # --- start --------------------------------------------------------------------------------

    def ensure_directories(self) -> None:
        """Create what is missing. Raises StoreError when the store cannot be made or written."""
        for directory in (self._blobs.directory, self._manifests.directory):
            make_directories(directory)
            if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
                raise StoreError(f"model directory is not writable: {directory}")

    def startup_maintenance(self, now_ns: int) -> None:
        """Rename old blobs, then prune unless that is off (2.9). ``now_ns``: since the epoch.

        Raises StoreError when the directory cannot be used; a store whose manifests cannot all be
        read is not pruned.
        """
        with self._changing:
            self.ensure_directories()
            rename_old_blobs(self._blobs.directory)
            if self.prune:
                self._prune(now_ns)
        self.derived.clean(now_ns)

    def _prune(self, now_ns: int) -> None:
        remove_leftovers(self._manifests.directory, now_ns)
        with self._lock.alone() as alone:
            if not alone:
                logger.warning("skipping prune operation: %s", _ANOTHER)
                return
            manifests, problems = self._manifests.all_and_problems()
            if problems:
                logger.warning(
                    "corrupt manifests detected, skipping prune operation.  "
                    "Re-pull or delete to clear path=%s error=%s",
                    *problems[0],
                )
                return
            contents = look(self.root)
            items = self._unneeded(contents, manifests)
            kinds: tuple[Kind, ...] = ("blob", "partial", "temporary")
            old, _ = decide(items, kinds=kinds, now_ns=now_ns, least_age_ns=GRACE_NS)
            removed = self._remover(dry_run=False).remove(old).removed
        total = sum(
            is_digest(entry.name) and now_ns - entry.modified_ns >= GRACE_NS
            for entry in contents.blobs
        )
        logger.info("total blobs: %d", total)
        logger.info("total unused blobs removed: %d", sum(item.kind == "blob" for item in removed))
        prune_directories(self._manifests.directory)

    # --- care ---------------------------------------------------------------------------------

    def prune_now(
        self,
        now_ns: int,
        *,
        kinds: Collection[Kind] = KINDS,
        least_age_ns: int = GRACE_NS,
        dry_run: bool = False,
    ) -> Outcome:
        """Remove what no model needs and nobody uses, even where pruning is off.

        ``now_ns``: since the epoch. Of ``kinds`` (``usage``) what has not changed for
        ``least_age_ns``; younger files may belong to Ollama, which knows none of our locks. With
        ``dry_run`` nothing is removed. Raises StoreError (409) while a manifest cannot be read:
        nobody knows what it needs; OSError when a directory cannot be read.
        """
        with self._changing, self._lock.alone() as alone:
            manifests, problems = self._manifests.all_and_problems()
            if problems:
                path, problem = problems[0]
                raise StoreError(
                    f"nothing is pruned while a manifest cannot be read: {_about(path, problem)}; "
                    "pull its model again, or remove this file",
                    status=409,
                )
            items = self._unneeded(look(self.root), manifests)
            old, kept = decide(items, kinds=kinds, now_ns=now_ns, least_age_ns=least_age_ns)
            if not alone:
                return Outcome([], [*kept, *(Kept(item.name, _ANOTHER) for item in old)])
            removed, failed = self._remover(dry_run=dry_run).remove(old)
            if not dry_run:
                prune_directories(self._manifests.directory)
        return Outcome(removed, [*kept, *failed])

    def usage(self) -> tuple[Usage, list[str]]:
        """What takes how much room, and which manifests cannot be read, each with its problem.

        Raises OSError when a directory cannot be read.
        """
        manifests, problems = self._manifests.all_and_problems()
        models = [
            ModelFiles(name.short, stored.digest, files_of(stored.manifest.references()))
            for name, stored in manifests
        ]
        usage = measure(look(self.root), models, version=_DERIVED_VERSION)
        return usage, [_about(path, problem) for path, problem in problems]

    def _unneeded(
        self, contents: Contents, manifests: list[tuple[Name, StoredManifest]]
    ) -> list[Item]:
        return unneeded(contents, self._referenced(manifests), version=_DERIVED_VERSION)

    def _remover(self, *, dry_run: bool) -> Remover:
        return Remover(self.root, self._blobs, self.derived, dry_run=dry_run)


def _about(path: str, problem: str) -> str:
    """``problem`` with the path that it is about, once."""
    return problem if path in problem else f"{path}: {problem}"


def _write_new(path: Path, raw: bytes, mode: int) -> None:
    """A new synced file at ``path``; ``mode`` is less the umask."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        write_all(descriptor, raw)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
