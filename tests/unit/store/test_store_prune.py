"""Pruning when somebody asks for it, and what is told about room on the disk."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from pathlib import Path

import pytest
from store_processes import elsewhere
from store_samples import (
    CONFIG,
    HOUR_NS,
    WEIGHTS,
    add_model,
    blob_files,
    manifest_files,
    put,
    write_aged,
    write_raw_manifest,
)

from ollamad.gguf.derive.registry import VERSION
from ollamad.store.errors import StoreError
from ollamad.store.maintenance import Outcome
from ollamad.store.manifest import MEDIA_MODEL
from ollamad.store.names import Name
from ollamad.store.store import Store

# Far in the future, so that whatever the test has just written is old.
NOW = 4 * 10**18
OLD = 2 * HOUR_NS
YOUNG = HOUR_NS // 6
A, B, C = ("sha256-" + letter * 64 for letter in "abc")
DIGEST = A.replace("-", ":", 1)


def aged(store: Store, path: str, age_ns: int = OLD, content: bytes = b"old") -> Path:
    return write_aged(store.root / path, age_ns, now_ns=NOW, content=content)


def download(store: Store, blob: str, age_ns: int = OLD) -> Path:
    """An unfinished one: a data file with a hole, and notes."""
    data = aged(store, f"blobs/{blob}-partial", age_ns, b"data")
    os.truncate(data, 10_000_000)
    os.utime(data, ns=(NOW - age_ns, NOW - age_ns))
    for number in range(3):
        aged(store, f"blobs/{blob}-partial-{number}", age_ns)
    return data


def names(outcome: Outcome) -> list[str]:
    return [item.name for item in outcome.removed]


def reasons(outcome: Outcome) -> dict[str, str]:
    return dict(outcome.kept)


def fill(store: Store) -> None:
    """A model, and one of each that no model needs, old and young."""
    add_model(store, "m")
    for blob, age in ((A, OLD), (B, YOUNG)):
        aged(store, f"blobs/{blob}", age)
        aged(store, f"compat/{blob}.v{VERSION}.json", age)
        download(store, blob, age)
    aged(store, "blobs/sha256-123")
    aged(store, "blobs/split-gguf-1/part")
    aged(store, "ollama-safetensors7/sub/tensor")
    aged(store, "ollama-safetensors8/tensor", YOUNG)
    aged(store, "blobs/mine/file")
    aged(store, "mine")
    aged(store, f"compat/{C}.v{VERSION}.json")
    aged(store, f"compat/.{C}.v{VERSION}.json.1-2.tmp")
    aged(store, "manifests/.ollamad-1")
    (store.root / "manifests/empty/a").mkdir(parents=True)
    for path in ("blobs/split-gguf-1", "ollama-safetensors7", "ollama-safetensors7/sub"):
        os.utime(store.root / path, ns=(NOW - OLD, NOW - OLD))


REMOVED = [
    f"blobs/{A}",
    f"blobs/{A}-partial",
    "blobs/sha256-123",
    f"compat/.{C}.v{VERSION}.json.1-2.tmp",
    "manifests/.ollamad-1",
    "blobs/split-gguf-1",
    "ollama-safetensors7",
    f"compat/{C}.v{VERSION}.json",
]


def everything(store: Store) -> dict[str, int]:
    """Every file with its time, and every directory."""
    return {
        str(path.relative_to(store.root)): 0 if path.is_dir() else path.lstat().st_mtime_ns
        for path in store.root.rglob("*")
        if path.name not in (".lock", ".ollamad.lock")
    }


@pytest.mark.parametrize("prune", [True, False])
def test_what_goes(tmp_path: Path, prune: bool) -> None:
    """Also with OLLAMA_NOPRUNE: somebody asks for it."""
    store = Store(tmp_path / "models", prune=prune)
    fill(store)
    before = everything(store)
    outcome = store.prune_now(NOW)
    assert names(outcome) == REMOVED
    young = "younger than 1h"
    assert reasons(outcome) == {
        f"blobs/{B}": young,
        f"blobs/{B}-partial": young,
        "ollama-safetensors8": young,
    }
    gone = before.keys() - everything(store).keys()
    top = {path for path in gone if not any(path.startswith(f"{name}/") for name in REMOVED)}
    assert top == {
        *REMOVED,
        f"compat/{A}.v{VERSION}.json",
        *(f"blobs/{A}-partial-{number}" for number in range(3)),
        "manifests/empty",
        "manifests/empty/a",
    }
    assert [name.short for name, _ in store.manifests()] == ["m:latest"]


def test_a_dry_run_tells_the_same_and_does_nothing(store: Store) -> None:
    fill(store)
    before = everything(store)
    planned = store.prune_now(NOW, dry_run=True)
    assert everything(store) == before
    assert store.prune_now(NOW) == planned


def test_age_zero_takes_all_that_nobody_uses(store: Store) -> None:
    fill(store)
    outcome = store.prune_now(NOW, least_age_ns=0)
    assert outcome.kept == []
    assert len(outcome.removed) == len(REMOVED) + 3
    assert store.prune_now(NOW, least_age_ns=0) == Outcome([], [])


def test_a_longer_age_keeps_more(store: Store) -> None:
    fill(store)
    outcome = store.prune_now(NOW, least_age_ns=24 * HOUR_NS)
    assert outcome.removed == []
    assert len(outcome.kept) == len(REMOVED) + 3


def test_some_kinds_only(store: Store) -> None:
    fill(store)
    assert names(store.prune_now(NOW, kinds=["partial"])) == [f"blobs/{A}-partial"]
    assert names(store.prune_now(NOW, kinds=["blob"])) == [f"blobs/{A}"]
    assert names(store.prune_now(NOW)) == REMOVED[2:]


def test_what_is_freed_is_what_the_disk_gets_back(store: Store) -> None:
    store.ensure_directories()
    data = download(store, A)
    used = sum(path.stat().st_blocks * 512 for path in data.parent.iterdir())
    (item,) = store.prune_now(NOW).removed
    assert 0 < item.size == used < 1_000_000
    assert item.length == 10_000_000 + 3 * len(b"old")


# --- what is in use -------------------------------------------------------------------------------


def test_what_an_operation_counts_on_stays(store: Store) -> None:
    store.ensure_directories()
    aged(store, f"blobs/{A}")
    download(store, A)
    download(store, B)
    for dry_run in (True, False):
        with store.in_use([DIGEST]):
            outcome = store.prune_now(NOW, least_age_ns=0, dry_run=dry_run)
        assert names(outcome) == [f"blobs/{B}-partial"]
        text = "an operation uses it"
        assert reasons(outcome) == {f"blobs/{A}": text, f"blobs/{A}-partial": text}
    assert blob_files(store) == [A, *sorted(f"{A}-partial{s}" for s in ("", "-0", "-1", "-2"))]


def test_what_is_being_written_stays(store: Store) -> None:
    with store.new_blob() as blob:
        blob.write(WEIGHTS)
        outcome = store.prune_now(NOW, least_age_ns=0)
        assert reasons(outcome) == {f"blobs/{blob.path.name}": "an operation uses it"}
        digest = blob.commit().digest
    assert store.has_blob(digest)
    assert names(store.prune_now(NOW, least_age_ns=0)) == [f"blobs/{store.blob_path(digest).name}"]


def test_a_download_of_another_program_stays_whole(store: Store) -> None:
    store.ensure_directories()
    data = download(store, A)
    before = blob_files(store)
    with data.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = store.prune_now(NOW, least_age_ns=0)
        store.startup_maintenance(NOW)
        assert blob_files(store) == before
        assert reasons(outcome) == {f"blobs/{A}-partial": "another process downloads it"}
    assert names(store.prune_now(NOW)) == [f"blobs/{A}-partial"]
    assert blob_files(store) == []


def test_a_download_without_data_is_removed(store: Store) -> None:
    store.ensure_directories()
    download(store, A).unlink()
    assert names(store.prune_now(NOW)) == [f"blobs/{A}-partial"]
    assert blob_files(store) == []


def test_nothing_goes_while_another_process_counts_on_blobs(store: Store) -> None:
    fill(store)
    before = everything(store)
    with elsewhere(store.root, lambda other: other.in_use([DIGEST])):
        outcome = store.prune_now(NOW)
        assert outcome.removed == []
        assert everything(store) == before
    text = "another process uses the model directory"
    kept = reasons(outcome)
    assert [name for name, reason in kept.items() if reason == text] == REMOVED
    assert kept[f"blobs/{B}"] == "younger than 1h"
    assert names(store.prune_now(NOW)) == REMOVED


def test_what_is_being_made_for_llama_stays(store: Store) -> None:
    store.ensure_directories()
    aged(store, f"compat/{C}.v{VERSION}.text.gguf")
    with (store.root / "compat/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome = store.prune_now(NOW)
        assert reasons(outcome) == {f"compat/{C}.v{VERSION}.text.gguf": "a model is being prepared"}
    assert len(store.prune_now(NOW).removed) == 1


def test_what_somebody_without_locks_touches_meanwhile_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.ensure_directories()
    path = aged(store, f"blobs/{A}")
    aged(store, f"blobs/{B}")
    removing = store._blobs.removing

    def touched(filename: str, *, later: bool = False) -> object:
        if filename == A:
            os.utime(path)
        return removing(filename, later=later)

    monkeypatch.setattr(store._blobs, "removing", touched)
    outcome = store.prune_now(NOW)
    assert names(outcome) == [f"blobs/{B}"]
    assert reasons(outcome) == {f"blobs/{A}": "it has just changed"}
    assert path.exists()


def test_what_vanishes_meanwhile_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ensure_directories()
    path = aged(store, f"blobs/{A}")
    removing = store._blobs.removing

    def vanished(filename: str, *, later: bool = False) -> object:
        path.unlink(missing_ok=True)
        return removing(filename, later=later)

    monkeypatch.setattr(store._blobs, "removing", vanished)
    assert names(store.prune_now(NOW)) == [f"blobs/{A}"]


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("relative", "content", "problem"),
    [
        ("h/n/m/t", b"{bad", "invalid character"),
        ("h/n/m/.hidden", b"{}", "invalid model name"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_nothing_goes_while_a_manifest_cannot_be_read(
    store: Store, relative: str, content: bytes, problem: str, dry_run: bool
) -> None:
    fill(store)
    path = write_raw_manifest(store, relative, content)
    before = everything(store)
    with pytest.raises(StoreError) as caught:
        store.prune_now(NOW, kinds=["partial"], dry_run=dry_run)
    assert caught.value.status == 409
    text = caught.value.message
    assert text.startswith(f"nothing is pruned while a manifest cannot be read: {path}: ")
    assert text.count(str(path)) == 1
    assert problem in text
    assert text.endswith("; pull its model again, or remove this file")
    assert everything(store) == before


def test_a_dangling_link_is_named(store: Store) -> None:
    (store.root / "manifests/h/n/m").mkdir(parents=True)
    link = store.root / "manifests/h/n/m/t"
    link.symlink_to("/nonexistent")
    with pytest.raises(StoreError, match=f"cannot be read: open {link}: no such file or dir"):
        store.prune_now(NOW)


def test_a_removal_that_fails_is_told_and_the_rest_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.ensure_directories()
    stuck = aged(store, f"blobs/{A}")
    aged(store, f"blobs/{B}")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == stuck:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    outcome = store.prune_now(NOW)
    assert names(outcome) == [f"blobs/{B}"]
    assert reasons(outcome) == {f"blobs/{A}": f"remove {stuck}: permission denied"}
    assert "failed to remove" in caplog.text


def test_a_store_that_does_not_exist_yet_has_nothing(store: Store) -> None:
    assert store.prune_now(NOW) == Outcome([], [])
    assert store.usage()[0].models == ()
    assert not store.root.exists()


def test_links_are_removed_and_not_what_they_lead_to(store: Store, tmp_path: Path) -> None:
    store.ensure_directories()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (store.root / "blobs" / A).symlink_to(outside / "file")
    (store.root / "blobs" / f"{B}-partial").symlink_to(outside / "file")
    (store.root / "blobs/link").symlink_to(outside)
    aged(store, "ollama-safetensors1/file")
    (store.root / "ollama-safetensors1/link").symlink_to(outside)
    (store.root / "ollama-safetensors2").symlink_to(outside)
    assert len(store.prune_now(NOW).removed) == 4
    assert (outside / "file").read_text() == "mine"
    assert blob_files(store) == []
    assert not (store.root / "ollama-safetensors1").exists()
    assert (store.root / "ollama-safetensors2").is_symlink(), "no work directory"


# --- room -----------------------------------------------------------------------------------------


def test_usage(store: Store) -> None:
    one = add_model(store, "one", template="T")
    two = add_model(store, "x/two")
    extra = put(store, MEDIA_MODEL, b"nobody")
    download(store, A)
    usage, problems = store.usage()
    assert problems == []

    def on_disk(*digests: str) -> int:
        return sum(store.blob_path(digest).stat().st_blocks * 512 for digest in digests)

    manifests = [store.read_manifest(name) for name in (one, two)]
    sizes = [on_disk(*stored.manifest.references()) for stored in manifests]
    template = on_disk(manifests[0].manifest.layers[1].digest)
    assert [(m.name, m.digest, m.size, m.unique) for m in usage.models] == [
        ("one:latest", manifests[0].digest, sizes[0], template),
        ("x/two:latest", manifests[1].digest, sizes[1], 0),
    ]
    assert usage.unreferenced == (1, on_disk(extra.digest), len(b"nobody"))
    assert usage.blobs.number == 4
    assert usage.blobs.length == len(WEIGHTS) + len(CONFIG) + len(b"T") + len(b"nobody")
    assert usage.partials.number == 1
    assert usage.partials.size < usage.partials.length == 10_000_009


def test_usage_tells_what_cannot_be_read(store: Store) -> None:
    add_model(store, "m")
    path = write_raw_manifest(store, "h/n/m/t", b"{bad")
    usage, (problem,) = store.usage()
    assert [model.name for model in usage.models] == ["m:latest"]
    assert problem.startswith(f"{path}: invalid character")


# --- at a start -----------------------------------------------------------------------------------


def test_a_half_young_download_stays_whole_at_a_start(store: Store) -> None:
    """Parts that are complete are not written any more: the reference removes them and then
    truncates the data (3.6)."""
    store.ensure_directories()
    data = download(store, A)
    os.utime(data, ns=(NOW - YOUNG, NOW - YOUNG))
    download(store, B)
    aged(store, f"blobs/.{B}-partial-2")
    store.startup_maintenance(NOW)
    assert blob_files(store) == sorted(f"{A}-partial{s}" for s in ("", "-0", "-1", "-2"))
    store.startup_maintenance(NOW + HOUR_NS)
    assert blob_files(store) == []


def test_work_directories_stay_at_a_start(store: Store) -> None:
    store.ensure_directories()
    aged(store, "ollama-safetensors1/file")
    store.startup_maintenance(NOW)
    assert (store.root / "ollama-safetensors1/file").exists()


def test_a_start_says_what_cannot_be_read(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    path = write_raw_manifest(store, "h/n/m/t", b"{bad")
    with caplog.at_level(logging.WARNING):
        store.startup_maintenance(time.time_ns())
    assert f"path={path} error=" in caplog.text


def test_a_removal_that_fails_does_not_end_the_start(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store.ensure_directories()
    stuck = aged(store, f"blobs/{A}")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with caplog.at_level(logging.INFO):
        store.startup_maintenance(NOW)
    assert stuck.exists()
    assert f"error=remove {stuck}: permission denied" in caplog.text
    assert "total blobs: 1" in caplog.messages
    assert "total unused blobs removed: 0" in caplog.messages


def test_fifteen_models_of_one_name(store: Store) -> None:
    tags = ["latest", "q2_K", "q6_K", *(f"q{bits}_{n}" for bits in (4, 5) for n in (0, 1)), "q8_0"]
    tags += [f"q{bits}_K_{size}" for bits in (4, 5) for size in "SM"]
    tags += [f"q3_K_{size}" for size in "SML"]
    for tag in tags:
        write_raw_manifest(store, f"registry.ollama.ai/library/llama3/{tag}", b"{}")
    assert [name.short for name, _ in store.manifests()] == sorted(f"llama3:{t}" for t in tags)
    assert len(manifest_files(store)) == 15
    assert store.has_manifest(Name.parse("llama3"))
