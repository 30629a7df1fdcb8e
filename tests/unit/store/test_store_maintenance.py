"""What is put right at the start (registry-and-store 2.9, 10.7)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from store_samples import (
    HOUR_NS,
    WEIGHTS,
    add_model,
    blob_files,
    manifest_files,
    put,
    write_aged,
    write_raw_manifest,
)

from ollamad.store.errors import StoreError
from ollamad.store.manifest import MEDIA_MODEL, Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store

# Far in the future, so that whatever the test has just written is old.
NOW_NS = 4 * 10**18
OLD = 2 * HOUR_NS
YOUNG = HOUR_NS // 6
A = "sha256-" + "a" * 64
B = "sha256-" + "b" * 64
UPPER = "sha256-" + "C" * 64


def aged(store: Store, filename: str, age_ns: int = OLD) -> Path:
    return write_aged(store.root / "blobs" / filename, age_ns, now_ns=NOW_NS)


def test_old_blob_names(store: Store) -> None:
    blobs = store.root / "blobs"
    for relative in ["sha256:1234", "sha256-77", "sha259:5678", "x/y/sha256:abcd", "x:y/sha256:ef"]:
        write_aged(blobs / relative, 0, now_ns=NOW_NS)
    (blobs / "sha256:dd").mkdir()
    (blobs / "sha256:dd" / "sha256:ee").write_text("")
    store.startup_maintenance(NOW_NS)
    found = sorted(str(path.relative_to(blobs)) for path in blobs.rglob("*"))
    assert found == [
        *["sha256-1234", "sha256-77", "sha256-dd", "sha256-dd/sha256-ee", "sha259:5678"],
        *["x", "x/y", "x/y/sha256-abcd", "x:y", "x:y/sha256-ef"],
    ]


def test_old_names_are_renamed_before_pruning(store: Store) -> None:
    add_model(store, "m")
    path = store.blob_path(store.manifests()[0][1].manifest.layers[0].digest)
    path.rename(path.with_name(path.name.replace("-", ":", 1)))
    store.startup_maintenance(NOW_NS)
    assert path.read_bytes() == WEIGHTS


def test_a_rename_that_fails_ends_the_start(store: Store) -> None:
    aged(store, "sha256:dir/keep")
    aged(store, "sha256-dir/keep")
    with pytest.raises(
        StoreError, match=r"^rename .*sha256:dir .*sha256-dir: directory not empty$"
    ):
        store.startup_maintenance(NOW_NS)


def test_orphans_older_than_an_hour_go(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    add_model(store, "m")
    kept = blob_files(store)
    aged(store, A)
    aged(store, B, age_ns=0)
    aged(store, UPPER)
    with caplog.at_level(logging.INFO):
        store.startup_maintenance(NOW_NS)
    assert blob_files(store) == sorted([*kept, B])
    assert "total blobs: 4" in caplog.messages
    assert "total unused blobs removed: 2" in caplog.messages


def test_only_blobs_are_counted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    layer = Layer(media_type=MEDIA_MODEL, digest=A.replace("-", ":"), size=3)
    store.write_manifest(Name.parse("m"), Manifest(layers=(layer,)))
    for filename in (A, B, UPPER, "junk", "x.tmp", "sha256-123456"):
        aged(store, filename)
    with caplog.at_level(logging.INFO):
        store.startup_maintenance(NOW_NS)
    assert blob_files(store) == [A]
    assert "total blobs: 3" in caplog.messages
    assert "total unused blobs removed: 2" in caplog.messages


def test_the_hour_of_grace(store: Store) -> None:
    names = [f"{A}-partial", f"{A}-partial-0", "sha256-123456", "junk"]
    for filename in names:
        aged(store, filename, age_ns=YOUNG)
    aged(store, "exactly", age_ns=HOUR_NS)
    aged(store, "later", age_ns=-HOUR_NS)
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == sorted([*names, "later"])
    store.startup_maintenance(NOW_NS + HOUR_NS)
    assert blob_files(store) == ["later"]


def test_directories_and_what_links_lead_to_stay(store: Store, tmp_path: Path) -> None:
    aged(store, "split-gguf-1/part")
    target = write_aged(tmp_path / "outside", OLD, now_ns=NOW_NS)
    (store.root / "blobs" / A).symlink_to(target)
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == ["split-gguf-1"]
    assert target.exists()


@pytest.mark.parametrize(
    ("relative", "content"),
    [
        ("h/n/m/t", b"{bad"),
        ("h/n/m/t", b""),
        ("h/n/m/.hidden", b"{}"),
        ("h/n.n/m/t", b"{}"),
    ],
)
def test_no_pruning_beside_what_cannot_be_read(
    store: Store, relative: str, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write_raw_manifest(store, relative, content)
    (store.root / "manifests/empty/a").mkdir(parents=True)
    aged(store, A)
    aged(store, "junk")
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == ["junk", A]
    assert (store.root / "manifests/empty/a").exists()
    assert any(
        "corrupt manifests detected, skipping prune operation.  Re-pull or delete to clear"
        in message
        for message in caplog.messages
    )


def test_a_dangling_link_prevents_pruning(store: Store) -> None:
    (store.root / "manifests/h/n/m").mkdir(parents=True)
    (store.root / "manifests/h/n/m/t").symlink_to("/nonexistent")
    aged(store, A)
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == [A]


def test_noprune(tmp_path: Path) -> None:
    store = Store(tmp_path / "models", prune=False)
    aged(store, A)
    aged(store, "sha256:77")
    (store.root / "manifests/empty").mkdir(parents=True)
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == ["sha256-77", A]
    assert (store.root / "manifests/empty").exists()


def test_empty_directories_go_and_links_stay(store: Store, tmp_path: Path) -> None:
    add_model(store, "h/n/m")
    manifests = store.root / "manifests"
    (manifests / "empty/a/b").mkdir(parents=True)
    (manifests / "h/n/m2").mkdir()
    (tmp_path / "target").mkdir()
    (manifests / "h/link").symlink_to(tmp_path / "target")
    store.startup_maintenance(NOW_NS)
    assert sorted(path.name for path in manifests.iterdir()) == ["h"]
    assert sorted(path.name for path in (manifests / "h").iterdir()) == ["link", "n"]
    assert sorted(path.name for path in (manifests / "h/n").iterdir()) == ["m"]
    assert (tmp_path / "target").exists()


def test_a_new_store(store: Store) -> None:
    store.startup_maintenance(NOW_NS)
    assert (store.root / "blobs").is_dir()
    add_model(store, "m")
    assert [name.short for name, _ in store.manifests()] == ["m:latest"]


def test_our_leftovers_neither_count_nor_stay(store: Store) -> None:
    """A crash left unfinished manifests; they must not stop pruning, ours or the reference's."""
    add_model(store, "h/n/m")
    manifests = store.root / "manifests"
    for directory in (manifests, manifests / "h/n/m"):
        write_aged(directory / ".ollamad-old", OLD, now_ns=NOW_NS)
        write_aged(directory / ".ollamad-young", YOUNG, now_ns=NOW_NS)
    aged(store, A)
    store.startup_maintenance(NOW_NS)
    assert A not in blob_files(store)
    assert manifest_files(store) == [
        ".ollamad-young",
        "h/n/m/.ollamad-young",
        "h/n/m/latest",
    ]
    assert [name.short for name, _ in store.manifests()] == ["h/n/m:latest"]


def test_used_by_an_upper_case_reference(store: Store) -> None:
    layer = Layer(media_type=MEDIA_MODEL, digest=UPPER.replace("-", ":"), size=3)
    store.write_manifest(Name.parse("m"), Manifest(layers=(layer,)))
    put(store, MEDIA_MODEL, WEIGHTS)
    aged(store, UPPER)
    store.startup_maintenance(NOW_NS)
    assert blob_files(store) == [UPPER]
