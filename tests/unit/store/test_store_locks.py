"""Two daemons on one model directory (registry-and-store 2.9, 2.10, 2.11)."""

from __future__ import annotations

import errno
import fcntl
import gc
import logging
import os
import shutil
import stat
import threading
import time
from pathlib import Path

import pytest
from store_processes import elsewhere, in_another_process
from store_samples import (
    HOUR_NS,
    WEIGHTS,
    add_model,
    blob_files,
    manifest_files,
    put,
    small_manifest,
    write_aged,
)

from ollamad.store import locks
from ollamad.store.errors import StoreError
from ollamad.store.locks import FILENAME, StoreLock, lock_of
from ollamad.store.manifest import MEDIA_MODEL
from ollamad.store.names import Name
from ollamad.store.store import Store

NAME = Name.parse("m")
OTHER = "sha256:" + "1" * 64


def delete(store: Store) -> None:
    store.delete(NAME)


def attempt(store: Store) -> bool:
    """Whether blobs could be removed now."""
    with store._lock.alone() as alone:
        return alone


def can_remove(root: Path) -> bool:
    return in_another_process(root, attempt) == "True"


def test_a_delete_leaves_the_blobs_to_a_later_prune(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """The other process may just have found that it has one of them."""
    add_model(store, "m")
    blobs = blob_files(store)
    with elsewhere(store.root, lambda other: other.in_use([OTHER])):
        with caplog.at_level(logging.INFO):
            store.delete(NAME)
        assert manifest_files(store) == []
        assert blob_files(store) == blobs
    assert [record.message for record in caplog.records] == [
        "blobs that are not needed stay until they are pruned: "
        "another process uses the model directory"
    ]
    store.startup_maintenance(time.time_ns() + 2 * HOUR_NS)
    assert blob_files(store) == []


def test_what_a_replaced_model_used_stays_too(store: Store) -> None:
    add_model(store, "m", template="A")
    old = store.read_manifest(NAME)
    store.write_manifest(NAME, small_manifest(store, template="B"))
    with elsewhere(store.root, lambda other: other.in_use([OTHER])):
        assert store.remove_superseded(old) == []
    assert len(store.remove_superseded(old)) == 1


def test_nothing_is_pruned_at_the_start_of_a_second_daemon(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    orphan = "sha256-" + "a" * 64
    now = time.time_ns()
    write_aged(store.root / "blobs" / orphan, 2 * HOUR_NS, now_ns=now)
    with elsewhere(store.root, lambda other: other.new_blob()):
        with caplog.at_level(logging.INFO):
            store.startup_maintenance(now)
        assert orphan in blob_files(store)
    assert caplog.messages == ["skipping prune operation: another process uses the model directory"]
    store.startup_maintenance(now)
    assert blob_files(store) == []


def test_our_own_operations_hinder_only_the_removal_of_their_blobs(store: Store) -> None:
    add_model(store, "m")
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    with store.in_use([digest]), store.new_blob():
        store.delete(NAME)
        assert len(blob_files(store)) == 2, "the weights and the new one"


@pytest.mark.parametrize("commits", [True, False])
def test_a_blob_that_is_written_counts(store: Store, commits: bool) -> None:
    store.ensure_directories()
    with store.new_blob() as blob:
        blob.write(b"x")
        assert not can_remove(store.root)
        if commits:
            blob.commit()
            assert can_remove(store.root)
    assert can_remove(store.root)
    assert not store._blobs._being_written


def test_it_counts_until_the_last_operation_is_over(store: Store) -> None:
    first, second = store.in_use([OTHER]), store.in_use()
    second.add(OTHER, "sha256:" + "2" * 64)
    first.close()
    first.close()
    assert not can_remove(store.root)
    store.remove_unreferenced([OTHER])
    assert not can_remove(store.root), "a removal of ours does not end it"
    second.close()
    assert can_remove(store.root)


def test_nobody_counts_on_blobs_after_a_refused_digest(store: Store) -> None:
    store.ensure_directories()
    with pytest.raises(Exception, match="invalid digest format"):
        store.in_use([OTHER, "zzz"])
    assert can_remove(store.root)


def test_a_blob_that_cannot_be_begun_counts_no_longer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ensure_directories()
    open_file = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if "sha256-" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return open_file(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="No space"):
        store.new_blob()
    monkeypatch.undo()
    assert can_remove(store.root)


def test_who_wants_to_count_on_blobs_waits_for_a_removal(store: Store) -> None:
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    order: list[str] = []

    def use() -> None:
        with store.in_use([digest]):
            order.append("used")

    user = threading.Thread(target=use)
    with elsewhere(store.root, lambda other: other._lock.alone()):
        user.start()
        user.join(0.1)
        order.append("removed")
    user.join(10)
    assert order == ["removed", "used"]


def test_but_not_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_SHARE_LIMIT", 0.0)
    store.ensure_directories()
    text = r"another process .* still locks .*\.ollamad\.lock$"
    with (
        elsewhere(store.root, lambda other: other._lock.alone()),
        pytest.raises(StoreError, match=text),
    ):
        store.in_use([OTHER])
    with store.in_use([OTHER]):
        pass
    assert can_remove(store.root)


def test_only_one_process_removes_at_a_time(store: Store) -> None:
    add_model(store, "m")
    with elsewhere(store.root, lambda other: other._lock.alone()):
        store.delete(NAME)
        assert len(blob_files(store)) == 2


def test_a_removal_stays_alone_whoever_comes_and_goes_here(store: Store) -> None:
    store.ensure_directories()

    def share(other: Store) -> bool:
        other._lock.share()
        return True

    with store._lock.alone(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "_SHARE_LIMIT", 0.0)
        with store.in_use([OTHER]), store._lock.alone() as also:
            assert also
        assert "still locks" in in_another_process(store.root, share)
    assert in_another_process(store.root, share) == "True"


def test_a_killed_process_counts_on_nothing(store: Store) -> None:
    add_model(store, "m")
    with elsewhere(store.root, lambda other: other.in_use([OTHER]), killed=True):
        store.delete(NAME)
        assert blob_files(store) == []


def test_a_copy_keeps_what_is_deleted_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read the manifest; before it writes the second one, the first one goes."""
    add_model(store, "m")
    install = store._install

    def late(name: Name, raw: bytes, mode: int) -> None:
        assert in_another_process(store.root, delete) == "None"
        install(name, raw, mode)

    monkeypatch.setattr(store, "_install", late)
    store.copy(NAME, Name.parse("copy"))
    assert manifest_files(store) == ["registry.ollama.ai/library/copy/latest"]
    assert len(blob_files(store)) == 2


def test_a_model_deleted_elsewhere_meanwhile(store: Store) -> None:
    add_model(store, "m")
    assert in_another_process(store.root, delete) == "None"
    with pytest.raises(FileNotFoundError):
        store.delete(NAME)
    with pytest.raises(FileNotFoundError):
        store.copy(NAME, Name.parse("copy"))


def test_a_create_that_reuses_what_is_deleted_elsewhere(store: Store) -> None:
    add_model(store, "m")
    with store.in_use() as used:
        weights = store.read_manifest(NAME).manifest.layers[0].digest
        used.add(weights)
        assert store.has_blob(weights)
        assert in_another_process(store.root, delete) == "None"
        store.write_manifest(Name.parse("new"), small_manifest(store))
    (stored,) = store.manifests()
    assert all(store.has_blob(digest) for digest in stored[1].manifest.references())


# --- the file -------------------------------------------------------------------------------------


def test_all_stores_of_a_process_have_one_lock(store: Store, tmp_path: Path) -> None:
    """Closing any descriptor of the file would give the lock of the whole process up."""
    store.ensure_directories()
    link = tmp_path / "link"
    link.symlink_to(store.root)
    with store.in_use([OTHER]):
        for path in (store.root, link):
            second = Store(path)
            assert second._lock is store._lock
            with second.in_use([OTHER]):
                pass
            del second
            gc.collect()
        assert not can_remove(store.root)


def test_a_store_that_is_gone_leaves_no_open_file(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path)
    with lock.shared():
        (descriptor,) = lock._descriptor
    os.fstat(descriptor)
    del lock
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_directory_made_again_has_a_new_lock(store: Store) -> None:
    with store.in_use([OTHER]):
        pass
    shutil.rmtree(store.root)
    with store.in_use([OTHER]):
        assert not can_remove(store.root)
    shutil.rmtree(store.root)
    assert store.remove_unreferenced([OTHER]) == []
    assert not store.root.exists(), "there was nothing to remove"


def test_no_program_takes_it_for_a_model(store: Store) -> None:
    add_model(store, "m")
    assert sorted(path.name for path in store.root.iterdir()) == [FILENAME, "blobs", "manifests"]
    assert len(store.manifests()) == 1


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o644), (0o775, 0o664), (0o700, 0o600)])
def test_who_may_write_to_the_directory_may_lock_it(
    tmp_path: Path, directory: int, file: int
) -> None:
    tmp_path.chmod(directory)
    before = os.umask(0o077)
    try:
        with lock_of(tmp_path).shared():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FILENAME).stat().st_mode) == file


def test_a_link_in_its_place_is_not_followed(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.ensure_directories()
    (store.root / FILENAME).symlink_to(tmp_path / "elsewhere")
    with store.in_use([OTHER]):
        pass
    assert not (tmp_path / "elsewhere").exists()
    assert "the model directory cannot be locked" in caplog.text


# --- where there are no locks ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_everything_goes_on(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    add_model(store, "m")
    with store.in_use([OTHER]):
        store.delete(NAME)
    assert blob_files(store) == []
    (record,) = caplog.records
    assert "the model directory cannot be locked; do not use it with two daemons" in record.message


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_without_a_lock_file_everything_goes_on(
    store: Store, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    open_file = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith(FILENAME):
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    add_model(store, "m")
    store.delete(NAME)
    assert blob_files(store) == []
    assert len(caplog.records) == 1


def test_a_lock_that_is_refused_in_the_other_words_is_held(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX allows two errors for that."""
    add_model(store, "m")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert not attempt(store)
