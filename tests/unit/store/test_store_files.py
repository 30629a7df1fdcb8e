"""Manifests and blobs on a real disk (registry-and-store 2, 10.7; http-api 13)."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path

import pytest
from store_samples import (
    CONFIG,
    WEIGHTS,
    add_model,
    blob_files,
    manifest_files,
    put,
    small_manifest,
    write_raw_manifest,
)

from ollamad.errors import BadRequest
from ollamad.store import manifest_files as manifest_files_module
from ollamad.store.errors import ManifestError, StoreError, os_error_text
from ollamad.store.manifest import (
    MEDIA_CONFIG,
    MEDIA_MODEL,
    Layer,
    Manifest,
    encode_manifest,
)
from ollamad.store.names import Name
from ollamad.store.store import Store


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def listed(store: Store) -> list[str]:
    return [name.short for name, _ in store.manifests()]


@pytest.fixture(autouse=True)
def usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


# --- blobs ----------------------------------------------------------------------------------------


def test_blobs_are_stored_once(store: Store) -> None:
    digest = digest_of(WEIGHTS)
    assert not store.has_blob(digest)
    with store.new_blob() as blob:
        blob.write(WEIGHTS[:100])
        blob.write(memoryview(WEIGHTS)[100:])
        assert stat.S_IMODE(blob.path.stat().st_mode) == 0o600
        assert blob.path.parent == store.root / "blobs"
        first = blob.commit()
    assert (first.digest, first.size, first.created) == (digest, 250, True)
    assert first.status == f"creating new layer {digest}"
    path = store.blob_path(digest)
    assert path.read_bytes() == WEIGHTS
    assert stat.S_IMODE(path.stat().st_mode) == 0o644

    os.utime(path, ns=(0, 0))
    with store.new_blob() as blob:
        blob.write(WEIGHTS)
        second = blob.commit()
    assert not second.created
    assert second.status == f"using existing layer {digest}"
    assert path.stat().st_mtime_ns > 0, "an existing blob is touched"
    assert blob_files(store) == [path.name]


def test_the_mode_does_not_depend_on_the_umask(store: Store) -> None:
    os.umask(0o027)
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    assert stat.S_IMODE(store.blob_path(digest).stat().st_mode) == 0o644
    name = add_model(store, "m")
    assert stat.S_IMODE(store.manifest_path(name).stat().st_mode) == 0o640
    assert stat.S_IMODE((store.root / "blobs").stat().st_mode) == 0o750


def test_unfinished_blobs_leave_nothing(store: Store) -> None:
    with store.new_blob() as blob:
        blob.write(b"half")
    assert blob_files(store) == []
    blob = store.new_blob()
    blob.write(b"half")
    blob.abort()
    blob.abort()
    assert blob_files(store) == []


def test_digest_mismatch_keeps_the_content(store: Store) -> None:
    wanted = "sha256:" + "0" * 64
    blob = store.new_blob()
    blob.write(b"Say hi!")
    with pytest.raises(BadRequest) as caught:
        blob.commit(expected=wanted)
    actual = "sha256:f29e82a8284dbdf5910b1555580ff60b04238b8da9d5e51159ada67a4d0d5851"
    assert caught.value.message == f'digest mismatch, expected "{wanted}", got "{actual}"'
    assert store.has_blob(actual)
    assert not store.has_blob(wanted)


@pytest.mark.parametrize("form", ["dash", "upper"])
def test_expected_digests_are_compared_literally(store: Store, form: str) -> None:
    digest = digest_of(b"x")
    given = digest.replace(":", "-") if form == "dash" else "sha256:" + digest[7:].upper()
    blob = store.new_blob()
    blob.write(b"x")
    with pytest.raises(BadRequest, match="digest mismatch"):
        blob.commit(expected=given)


def test_both_separators_find_a_blob_and_case_counts(store: Store) -> None:
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    assert store.has_blob(digest.replace(":", "-"))
    assert not store.has_blob("sha256:" + digest[7:].upper())
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        store.has_blob("sha256:zz")
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        store.blob_path("sha256:../../etc/passwd")


def test_a_damaged_blob_is_replaced(store: Store) -> None:
    path = store.blob_path(put(store, MEDIA_MODEL, WEIGHTS).digest)
    path.write_bytes(WEIGHTS[:-1])
    with store.new_blob() as blob:
        blob.write(WEIGHTS)
        assert blob.commit().created
    assert path.read_bytes() == WEIGHTS


def test_touch(store: Store) -> None:
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    os.utime(store.blob_path(digest), ns=(0, 0))
    store.touch_blob(digest)
    assert store.blob_path(digest).stat().st_mtime_ns > 0
    with pytest.raises(FileNotFoundError) as caught:
        store.touch_blob(digest_of(b"absent"))
    text = os_error_text("stat", caught.value)
    assert text == f"stat {store.blob_path(digest_of(b'absent'))}: no such file or directory"


def test_a_failed_commit_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    blob = store.new_blob()
    blob.write(WEIGHTS)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        blob.commit()
    assert blob_files(store) == []


def test_a_finished_writer_touches_nothing_any_more(store: Store) -> None:
    with store.new_blob() as blob:
        blob.write(WEIGHTS)
        blob.commit()
        blob.path.write_text("another writer's, which got the same number")
    assert blob.path.exists()


# --- manifests ------------------------------------------------------------------------------------


def test_an_empty_store_lists_nothing(store: Store) -> None:
    assert store.manifests() == []
    assert not store.root.exists(), "reading creates nothing"


def test_write_and_read(store: Store) -> None:
    manifest = small_manifest(store, template="{{ .Prompt }}")
    name = Name.parse("127.0.0.1:5000/acme/tiny")
    written = store.write_manifest(name, manifest)
    path = store.root / "manifests/127.0.0.1:5000/acme/tiny/latest"
    assert path.read_bytes() == encode_manifest(manifest) == written.raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    read = store.read_manifest(name)
    assert read.manifest == manifest
    assert read.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.size == 250 + 13 + len(CONFIG)
    assert read.modified_at_ns == path.stat().st_mtime_ns
    assert manifest_files(store) == ["127.0.0.1:5000/acme/tiny/latest"], "nothing else is left"


def test_pulled_bytes_are_kept(store: Store) -> None:
    raw = b' { "layers": [], "unknown": 1 } '
    name = Name.parse("m")
    store.write_manifest(name, raw)
    assert store.manifest_path(name).read_bytes() == raw
    with pytest.raises(ManifestError):
        store.write_manifest(name, b"<html>")
    assert store.manifest_path(name).read_bytes() == raw


@pytest.mark.parametrize("text", ["../../x", "h/n/..:t", "a/b/c/d", "m@sha256:x", "", "m:\n"])
def test_no_path_from_an_invalid_name(store: Store, text: str) -> None:
    name = Name.parse(text)
    for action in (
        lambda: store.read_manifest(name),
        lambda: store.write_manifest(name, b"{}"),
        lambda: store.delete(name),
        lambda: store.copy(name, Name.parse("x")),
        lambda: store.copy(Name.parse("x"), name),
        lambda: store.manifest_path(name),
    ):
        with pytest.raises((BadRequest, FileNotFoundError)):
            action()
    assert not store.root.exists()


def test_missing_and_broken_manifests(store: Store) -> None:
    name = Name.parse("m")
    with pytest.raises(FileNotFoundError) as caught:
        store.read_manifest(name)
    path = store.root / "manifests/registry.ollama.ai/library/m/latest"
    assert os_error_text("open", caught.value) == f"open {path}: no such file or directory"
    write_raw_manifest(store, "registry.ollama.ai/library/m/latest", b"{bad")
    for action in (store.read_manifest, store.delete):
        with pytest.raises(ManifestError) as broken:
            action(name)
        assert broken.value.message == (
            "invalid character 'b' looking for beginning of object key string"
        )
    assert path.exists(), "a broken manifest cannot be deleted"
    # A file where a directory should be is no model either.
    write_raw_manifest(store, "registry.ollama.ai/file", b"")
    with pytest.raises(FileNotFoundError):
        store.read_manifest(Name.parse("file/m"))
    assert not store.has_manifest(Name.parse("file/m"))


def test_what_is_listed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for relative in [
        "host/namespace/model/tag",
        "host/namespace/model/.hidden",
        "host/namespace/deep/tag/one",
        "host/namespace/deep/tag/another/one",
        "HOST/namespace/model/tag",
        "host/NAMESPACE/model/tag",
        "host/namespace/MODEL/tag",
        "host/namespace/model/TAG",
        "host/na.me/model/tag",
        "host/shallow",
    ]:
        write_raw_manifest(store, relative, b"{}")
    write_raw_manifest(store, "host/namespace/model/broken", b"{bad")
    write_raw_manifest(store, "host/namespace/lenient/tag", b'{"layers":null} {"x":1} trailing\n')
    (store.root / "manifests/host/namespace/model/dangling").symlink_to("/nonexistent")
    (store.root / "manifests/host/namespace/model/loop").symlink_to("loop")
    os.mkfifo(store.root / "manifests/host/namespace/model/pipe")
    expected = [
        "HOST/namespace/model:tag",
        "host/NAMESPACE/model:tag",
        "host/namespace/MODEL:tag",
        "host/namespace/lenient:tag",
        "host/namespace/model:TAG",
        "host/namespace/model:tag",
    ]
    with caplog.at_level(logging.WARNING):
        assert listed(store) == expected
        logged = len(caplog.records)
        assert listed(store) == expected
    assert logged == 6, "hidden, na.me, broken, dangling, loop, pipe"
    assert len(caplog.records) == logged, "each is reported once"


def test_names_are_listed_as_created(store: Store) -> None:
    names = [
        "mistral:7b-instruct-q4_0",
        "apple/OpenELM:latest",
        "mynamespace/apeliotes:latest",
        "myhost/mynamespace/lips:code",
    ]
    for name in names:
        add_model(store, name)
    assert sorted(listed(store)) == sorted(names)


def test_linked_trees_are_followed(store: Store, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "model").mkdir(parents=True)
    (elsewhere / "model/tag").write_bytes(b"{}")
    (store.root / "manifests/host").mkdir(parents=True)
    (store.root / "manifests/host/ns").symlink_to(elsewhere)
    assert listed(store) == ["host/ns/model:tag"]


def test_changes_of_other_programs_show_at_once(store: Store) -> None:
    path = write_raw_manifest(store, "h/n/m/t", b'{"layers":[{"size":1}]}')
    os.utime(path, ns=(10**18, 10**18))
    name = Name.parse("h/n/m:t")
    assert store.read_manifest(name).size == 1
    path.write_bytes(b'{"layers":[{"size":2}]}')
    os.utime(path, ns=(10**18, 10**18))  # the same time and length as before
    assert store.read_manifest(name).size == 2
    assert [stored.size for _, stored in store.manifests()] == [2]
    os.utime(path, ns=(10**18, 2 * 10**18))
    assert store.read_manifest(name).modified_at_ns == 2 * 10**18
    path.unlink()
    assert store.manifests() == []


def test_a_clock_too_coarse_to_show_a_change(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that has just changed may change again within one tick: it is not remembered."""
    path = write_raw_manifest(store, "h/n/m/t", b'{"layers":[{"size":1}]}')
    name = Name.parse("h/n/m:t")
    frozen = path.stat()
    monkeypatch.setattr(os, "fstat", lambda descriptor: frozen)
    assert store.read_manifest(name).size == 1
    path.write_bytes(b'{"layers":[{"size":2}]}')
    assert store.read_manifest(name).size == 2


def test_a_write_that_fails_leaves_what_was_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = add_model(store, "m")
    before = store.read_manifest(name).raw
    manifest = small_manifest(store, template="new")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write_manifest(name, manifest)
    assert store.read_manifest(name).raw == before
    assert manifest_files(store) == ["registry.ollama.ai/library/m/latest"]


def test_settled_manifests_are_parsed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = add_model(store, "m")
    monkeypatch.setattr(manifest_files_module, "_SETTLED_NS", -(10**18))
    first = store.read_manifest(name)
    assert store.read_manifest(name) is first
    assert store.manifests()[0][1] is first
    store.write_manifest(name, first.manifest)
    assert store.read_manifest(name) is not first


def test_huge_manifests_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_files_module, "MAX_MANIFEST_BYTES", 100)
    write_raw_manifest(store, "h/n/m/t", b"{}" + b" " * 98)
    write_raw_manifest(store, "h/n/m/u", b"{}" + b" " * 99)
    assert listed(store) == ["h/n/m:t"]
    with pytest.raises(ManifestError, match="larger than 100 bytes"):
        store.read_manifest(Name.parse("h/n/m:u"))


def test_one_manifest_whatever_the_case(store: Store) -> None:
    add_model(store, "exAMple/nameSpace/Model:tAg")
    for spelling in ("example/namespace/model:tag", "EXAMPLE/Namespace/model:TAG"):
        name = store.resolve(Name.parse(spelling))
        assert name.full == "exAMple/nameSpace/Model:tAg"
        store.write_manifest(name, small_manifest(store))
    assert manifest_files(store) == ["exAMple/nameSpace/Model/tAg"]
    assert store.resolve(Name.parse("bad name")).model == "bad name"


def test_an_unusable_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Store(tmp_path / "file" / "models")
    with pytest.raises(StoreError) as caught:
        blocked.ensure_directories()
    assert caught.value.message == (
        f"mkdir {tmp_path / 'file'}: not a directory: ensure path elements are traversable"
    )
    with pytest.raises(StoreError):
        blocked.new_blob()


def test_an_unwritable_store_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(StoreError, match=r"model directory is not writable: .*/blobs"):
        store.ensure_directories()


def test_directories_come_back_after_removal(store: Store) -> None:
    add_model(store, "m")
    shutil.rmtree(store.root)
    assert store.manifests() == []
    add_model(store, "m")
    assert listed(store) == ["m:latest"]


def test_pruned_directories_are_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may prune a model's directory just before its manifest comes."""
    add_model(store, "other")
    target = store.manifest_path(Name.parse("h/n/m"))
    replace = os.replace
    pruned = []

    def prune_first(source: object, destination: object, **options: object) -> None:
        if not pruned:
            pruned.append(True)
            target.parent.rmdir()
        replace(source, destination)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", prune_first)
    add_model(store, "h/n/m")
    assert target.exists()


def test_a_manifest_on_another_file_system(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def within_a_directory(source: object, destination: object, **options: object) -> None:
        if Path(str(source)).parent != Path(str(destination)).parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        replace(source, destination)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", within_a_directory)
    add_model(store, "h/n/m")
    assert manifest_files(store) == ["h/n/m/latest"]


# --- copy and delete ------------------------------------------------------------------------------


def test_copy(store: Store) -> None:
    source = add_model(store, "m")
    blobs = blob_files(store)
    target = Name.parse("x/y")
    store.copy(source, target)
    assert store.read_manifest(target).raw == store.read_manifest(source).raw
    assert blob_files(store) == blobs
    other = add_model(store, "other", system="s")
    store.copy(other, target)
    assert store.read_manifest(target).digest == store.read_manifest(other).digest


def test_copy_onto_itself_does_nothing(store: Store) -> None:
    store.copy(Name.parse("absent"), Name.parse("absent"))
    assert not store.root.exists()


def test_copy_of_nothing_creates_nothing(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.copy(Name.parse("zz"), Name.parse("x/y"))
    assert not store.root.exists()


def test_copy_keeps_bytes_that_it_does_not_understand(store: Store) -> None:
    write_raw_manifest(store, "h/n/m/t", b"{bad")
    store.copy(Name.parse("h/n/m:t"), Name.parse("h/n/m:u"))
    assert store.manifest_path(Name.parse("h/n/m:u")).read_bytes() == b"{bad"


def test_delete_takes_what_only_this_model_used(store: Store) -> None:
    first = add_model(store, "test")
    second = add_model(store, "test2", template="{{ .Prompt }}")
    store.delete(first)
    assert listed(store) == ["test2:latest"]
    assert not store.manifest_path(first).parent.exists()
    assert len(blob_files(store)) == 3
    store.delete(second)
    assert manifest_files(store) == []
    assert not (store.root / "manifests").exists()
    assert blob_files(store) == []
    with pytest.raises(FileNotFoundError):
        store.delete(second)


def test_delete_is_not_subject_to_noprune(tmp_path: Path) -> None:
    store = Store(tmp_path, prune=False)
    store.delete(add_model(store, "m"))
    assert blob_files(store) == []


def test_delete_with_one_digest_twice_and_one_missing(store: Store) -> None:
    layer = put(store, MEDIA_CONFIG, b"{}\n")
    gone = Layer(media_type=MEDIA_MODEL, digest="sha256:" + "1" * 64, size=1)
    name = Name.parse("m")
    store.write_manifest(name, Manifest(config=layer, layers=(layer, layer, gone)))
    store.delete(name)
    assert blob_files(store) == []


def test_delete_with_a_digest_that_is_none(store: Store) -> None:
    victim = store.root / "victim"
    path = write_raw_manifest(store, "h/n/m/t", b'{"layers":[{"digest":"sha256:../../victim"}]}')
    victim.write_text("mine")
    with pytest.raises(ManifestError, match=r"^invalid digest format$") as caught:
        store.delete(Name.parse("h/n/m:t"))
    assert caught.value.status == 500
    assert not path.exists()
    assert victim.exists()


def test_delete_of_links_spares_what_they_lead_to(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    digest = digest_of(b"weights")
    (outside / "weights").write_bytes(b"weights")
    (outside / "tag").write_bytes(b'{"layers":[{"digest":"%s"}]}' % digest.encode())
    (store.root / "blobs").mkdir(parents=True)
    store.blob_path(digest).symlink_to(outside / "weights")
    assert store.has_blob(digest)
    (store.root / "manifests/h/n/m").mkdir(parents=True)
    (store.root / "manifests/h/n/m/t").symlink_to(outside / "tag")
    store.delete(Name.parse("h/n/m:t"))
    assert sorted(path.name for path in outside.iterdir()) == ["tag", "weights"]
    assert blob_files(store) == []


def test_delete_keeps_blobs_when_a_manifest_cannot_be_opened(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then what the other model needs."""
    name = add_model(store, "m")
    other = store.manifest_path(add_model(store, "other"))
    open_file = os.open

    def deny(path: object, *arguments: object, **options: object) -> int:
        if str(path) == str(other):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_file(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", deny)
    blobs = blob_files(store)
    with pytest.raises(PermissionError):
        store.delete(name)
    assert blob_files(store) == blobs


def test_replacing_removes_what_the_old_manifest_alone_used(store: Store) -> None:
    name = add_model(store, "test", template="A")
    old = store.read_manifest(name)
    store.write_manifest(name, small_manifest(store, template="B"))
    assert store.remove_superseded(old) == [digest_of(b"A")]
    assert len(blob_files(store)) == 3


def test_noprune_keeps_superseded_layers(tmp_path: Path) -> None:
    store = Store(tmp_path, prune=False)
    name = add_model(store, "test", template="A")
    old = store.read_manifest(name)
    store.write_manifest(name, small_manifest(store, template="B"))
    assert store.remove_superseded(old) == []
    assert store.has_blob(digest_of(b"A"))
    assert store.remove_unreferenced([digest_of(b"A"), digest_of(WEIGHTS), "junk"]) == [
        digest_of(b"A")
    ]


# --- what running operations count on -------------------------------------------------------------


def test_used_blobs_are_spared_until_nobody_counts_on_them(store: Store) -> None:
    name = add_model(store, "m")
    digest = digest_of(WEIGHTS)
    with store.in_use([digest]) as first:
        second = store.in_use()
        second.add(digest, digest)
        store.delete(name)
        assert store.has_blob(digest)
        assert not store.has_blob(digest_of(CONFIG))
        second.close()
        assert store.has_blob(digest)
        first.close()
        assert not store.has_blob(digest), "the delete is carried out"
    second.close()


def test_used_blobs_that_a_new_manifest_names_stay(store: Store) -> None:
    name = add_model(store, "m")
    digest = digest_of(WEIGHTS)
    with store.in_use([digest]):
        store.delete(name)
        add_model(store, "new")
    assert store.has_blob(digest)


def test_nobody_asked_to_remove_it_so_it_stays(store: Store) -> None:
    with store.in_use() as used, store.new_blob(used) as blob:
        blob.write(b"uploaded")
        digest = blob.commit().digest
        store.remove_unreferenced([digest])
        assert store.has_blob(digest), "protected from the commit on"
    assert not store.has_blob(digest)
    with store.in_use([digest]):
        put(store, MEDIA_MODEL, b"uploaded")
    assert store.has_blob(digest)


def test_in_use_refuses_what_is_no_digest(store: Store) -> None:
    digest = put(store, MEDIA_MODEL, WEIGHTS).digest
    with pytest.raises(BadRequest, match=r"^invalid digest format$"):
        store.in_use([digest, "zzz"])
    assert store.remove_unreferenced([digest]) == [digest], "nothing stays protected"
