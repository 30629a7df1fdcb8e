"""A process killed at any system call leaves the store as it was before or after, never between.

Each case runs in forked children: the n-th child kills itself with SIGKILL just before its n-th
call that changes the disk, for n = 1, 2, … until one comes through. After each death the parent
looks at the store as a new daemon would.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from store_samples import (
    HOUR_NS,
    WEIGHTS,
    add_model,
    blob_files,
    manifest_files,
    put,
    small_manifest,
)
from support.dying import dies

from ollamad.store.digests import blob_filename, from_hex
from ollamad.store.manifest import MEDIA_MODEL
from ollamad.store.names import Name
from ollamad.store.store import Store

NAME = Name.parse("acme/m")
OTHER = Name.parse("acme/other")

Operation = Callable[[Store], None]


def on_store(operation: Operation, root: Path) -> None:
    operation(Store(root))


def check_whole(store: Store) -> dict[str, str]:
    """Every file that a reader may see is complete; the models by name and digest."""
    for filename in blob_files(store):
        path = store.root / "blobs" / filename
        if blob_filename_of(path.read_bytes()) != filename:
            assert len(filename) < len("sha256-") + 64, f"{filename} is served but incomplete"
    top = store.root / "manifests"
    for relative in manifest_files(store):
        if relative.count("/") == 3:
            assert Name.from_relative_path(relative), "the reference would stop pruning"
            assert (top / relative).read_bytes().endswith(b"]}\n")
    for _, stored in store.manifests():
        for digest in stored.manifest.references():
            assert store.has_blob(digest), "a model lacks a blob"
    return {name.short: stored.digest for name, stored in store.manifests()}


def blob_filename_of(content: bytes) -> str:
    return blob_filename(from_hex(hashlib.sha256(content).hexdigest()))


def prepare_two_models(store: Store) -> None:
    add_model(store, NAME.short, template="A")
    add_model(store, OTHER.short, system="S")


def write_a_blob(store: Store) -> None:
    with store.new_blob() as blob:
        for _ in range(3):
            blob.write(b"y" * 1000)
        blob.commit()


def create_a_model(store: Store) -> None:
    add_model(store, NAME.short, template="A")


def replace_a_model(store: Store) -> None:
    old = store.read_manifest(NAME)
    with store.in_use():
        store.write_manifest(NAME, small_manifest(store, template="B"))
    store.remove_superseded(old)


def copy_over_a_model(store: Store) -> None:
    store.copy(OTHER, NAME)


def copy_to_a_new_name(store: Store) -> None:
    store.copy(OTHER, Name.parse("host/new/name"))


def delete_a_model(store: Store) -> None:
    store.delete(NAME)


def start(store: Store) -> None:
    store.startup_maintenance(time.time_ns() + 2 * HOUR_NS)


def nothing(store: Store) -> None:
    store.ensure_directories()


@pytest.mark.parametrize(
    ("prepare", "operation"),
    [
        (nothing, write_a_blob),
        (nothing, create_a_model),
        (prepare_two_models, replace_a_model),
        (prepare_two_models, copy_over_a_model),
        (prepare_two_models, copy_to_a_new_name),
        (prepare_two_models, delete_a_model),
        (prepare_two_models, start),
    ],
)
def test_killed_at_any_call(tmp_path: Path, prepare: Operation, operation: Operation) -> None:
    reference = Store(tmp_path / "reference")
    prepare(reference)
    before = check_whole(reference)
    operation(reference)
    after = check_whole(reference)

    seen = []
    for deadly in itertools.count(1):
        store = Store(tmp_path / str(deadly))
        prepare(store)
        died = dies(partial(on_store, operation, store.root), deadly)
        state = check_whole(Store(store.root))
        assert state in (before, after)
        if seen:
            assert not (seen[-1] == after and state == before and before != after)
        seen.append(state)
        if not died:
            break
        recovers(store.root, operation, after, repeat=operation is not delete_a_model)
    assert deadly > 5, "hardly anything was interrupted"
    assert seen[-1] == after
    if before != after:
        assert seen[0] == before


def test_a_download_whose_removal_is_killed_can_be_begun_anew(tmp_path: Path) -> None:
    """The reference trusts the parts that it finds: they must be the first ones, or none."""
    blob = "sha256-" + "a" * 64

    def prune(store: Store) -> None:
        store.prune_now(time.time_ns(), least_age_ns=0)

    lefts = []
    for deadly in itertools.count(1):
        store = Store(tmp_path / str(deadly))
        store.ensure_directories()
        for suffix in ("", "-0", "-1", "-10", "-2", *(f"-{n}" for n in range(3, 10))):
            (store.root / f"blobs/{blob}-partial{suffix}").write_text("x")
        died = dies(partial(on_store, prune, store.root), deadly)
        left = {name.removeprefix(f"{blob}-partial") for name in blob_files(store)}
        lefts.append(len(left))
        assert not left or left == {"", *(f"-{n}" for n in range(len(left) - 1))}
        if not died:
            break
    assert set(lefts) == set(range(13))


def recovers(root: Path, operation: Operation, after: dict[str, str], *, repeat: bool) -> None:
    """A new daemon cleans up what the crash left, and the same request works."""
    store = Store(root)
    store.startup_maintenance(time.time_ns() + 2 * HOUR_NS)
    check_whole(store)
    referenced = {
        blob_filename(digest)
        for _, stored in store.manifests()
        for digest in stored.manifest.references()
    }
    assert set(blob_files(store)) == referenced, "leftovers were not removed"
    assert all(relative.count("/") == 3 for relative in manifest_files(store))
    if repeat:
        operation(store)
        assert check_whole(store) == after


def test_everything_is_synced_before_it_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL keeps what the kernel holds; a power failure does not. So the order is checked."""
    calls: list[tuple[str, str]] = []
    fsync, replace, unlink = os.fsync, os.replace, os.unlink

    def path_of(descriptor: int) -> str:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())

    def recorded_fsync(descriptor: int) -> None:
        calls.append(("fsync", path_of(descriptor)))
        fsync(descriptor)

    def recorded_replace(source: Any, destination: Any) -> None:
        calls.append(("replace", f"{source} {destination}"))
        replace(source, destination)

    def recorded_unlink(path: Any) -> None:
        calls.append(("unlink", str(path)))
        unlink(path)

    store = Store(tmp_path)
    store.ensure_directories()
    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    monkeypatch.setattr(os, "unlink", recorded_unlink)

    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    (first, renamed, last) = calls
    temporary = first[1]
    assert first[0] == "fsync"
    assert renamed == ("replace", f"{temporary} {store.blob_path(digest)}")
    assert last == ("fsync", str(tmp_path / "blobs"))

    calls.clear()
    name = add_model(store, "h/n/m")
    target = store.manifest_path(name)
    visible = next(i for i, call in enumerate(calls) if call[1].endswith(str(target)))
    temporary = calls[visible][1].split()[0]
    assert calls[visible - 1] == ("fsync", temporary)
    assert calls[visible + 1] == ("fsync", str(target.parent))
    for directory in (target.parent.parent, target.parent.parent.parent, tmp_path / "manifests"):
        assert ("fsync", str(directory)) in calls[:visible], "a new directory may vanish"

    calls.clear()
    store.delete(name)
    assert calls[0] == ("unlink", str(target))
    assert calls[1] == ("fsync", str(target.parent)), "else blobs may go and the model stay"
    assert {call for call, _ in calls[2:]} == {"unlink"}
