"""Files made from blobs: library-gguf-compat.md 5, and the store's part of 7."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support import gemma3

from ollamad.errors import LoadError
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.writer import write_gguf
from ollamad.store import derived as module
from ollamad.store.derived import Derived, Loadable
from ollamad.store.manifest import MEDIA_MODEL, Layer, Manifest
from ollamad.store.names import Name
from ollamad.store.store import Store

NOW_NS = 4 * 10**18


class GivenUp(Exception):
    pass


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gemma3.library_file(tmp_path_factory.mktemp("published") / "m.gguf").read_bytes()


@pytest.fixture
def files(tmp_path: Path) -> Derived:
    (tmp_path / "blobs").mkdir()
    return Derived(tmp_path / "compat", tmp_path / "blobs")


def blob(files: Derived, data: bytes) -> Path:
    path = files.directory.parent / "blobs" / f"sha256-{hashlib.sha256(data).hexdigest()}"
    path.write_bytes(data)
    return path


def left(files: Derived) -> list[str]:
    return sorted(path.name for path in files.directory.iterdir() if path.name != ".lock")


def names(source: Path, *kinds: str) -> list[str]:
    return sorted(f"{source.name}.v{module.VERSION}.{kind}" for kind in kinds)


def test_a_blob_is_made_into_two_files_once(
    files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blob(files, published)
    assert files.find(source) is None
    made = files.make(source)
    assert left(files) == names(source, "text.gguf", "mmproj.gguf", "json")
    assert made.mmproj is not None
    with open_gguf(made.text) as text, open_gguf(made.mmproj) as mmproj:
        assert (text.arch, mmproj.arch) == ("gemma3", "clip")
    assert source.read_bytes() == published

    monkeypatch.setattr(module, "open_gguf", None)  # a second load reads no header
    again = Derived(files.directory, source.parent)
    assert again.find(source) == made
    assert again.make(source) == made


def test_a_model_with_a_projector_of_its_own_gets_the_text_alone(
    files: Derived, published: bytes
) -> None:
    source = blob(files, published)
    assert files.make(source, projector=False).mmproj is None
    assert left(files) == names(source, "text.gguf", "json")
    assert files.find(source, projector=False) is not None
    # Another model of the same weights has none.
    assert files.find(source) is None
    text = files.directory / names(source, "text.gguf")[0]
    before = text.stat().st_ino
    assert files.make(source).mmproj is not None
    assert text.stat().st_ino == before


def test_a_blob_that_needs_nothing(files: Derived, tmp_path: Path, published: bytes) -> None:
    native = blob(files, gemma3.loadable_text(tmp_path / "m").read_bytes())
    assert files.find(native) is None
    assert files.make(native) == Loadable(native)
    assert files.find(native) == Loadable(native)
    assert left(files) == []
    other = tmp_path / "blobs" / "other"
    other.write_bytes(published)
    assert files.find(other) == Loadable(other)
    write_gguf(tmp_path / "l", {"general.architecture": "llama"})
    llama = blob(files, (tmp_path / "l").read_bytes())
    assert files.find(llama) == Loadable(llama)


def test_what_cannot_be_read(files: Derived, published: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        files.find(files.directory.parent / "blobs" / ("sha256-" + "0" * 64))
    cut = blob(files, published[:-1])
    with pytest.raises(GGUFError):
        files.make(cut)
    assert not files.directory.exists() or left(files) == []


@pytest.mark.parametrize("kind", ["text.gguf", "mmproj.gguf", "json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "no UTF-8"])
def test_damaged_files_are_made_again(
    files: Derived, published: bytes, kind: str, damage: str
) -> None:
    source = blob(files, published)
    made = files.make(source)
    path = files.directory / names(source, kind)[0]
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if damage == "cut" else b'{"kind":"\xff"}')
    assert files.find(source) is None
    assert files.make(source) == made
    assert path.read_bytes() == whole


@pytest.mark.parametrize("moment", ["text.gguf", ".lock"])
def test_giving_up_leaves_nothing(files: Derived, published: bytes, moment: str) -> None:
    """Before anything is complete, and between the two files."""
    source = blob(files, published)

    def check() -> None:
        if any(path.name.endswith(moment) for path in files.directory.iterdir()):
            raise GivenUp

    with pytest.raises(GivenUp):
        files.make(source, check=check)
    assert left(files) == []
    assert files.find(source) is None
    assert files.make(source).mmproj is not None


def test_giving_up_on_the_projector_leaves_what_was_there(files: Derived, published: bytes) -> None:
    source = blob(files, published)
    text = files.make(source, projector=False)

    def check() -> None:
        raise GivenUp

    with pytest.raises(GivenUp):
        files.make(source, check=check)
    assert files.find(source, projector=False) == text


def test_a_full_disk(files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = blob(files, published)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_all", full)
        with pytest.raises(LoadError, match="no space left on device"):
            files.make(source)
    assert left(files) == []
    assert files.make(source).mmproj is not None


def disk(monkeypatch: pytest.MonkeyPatch, files: Derived, room: int) -> None:
    """A disk on which ``room`` bytes can be written when nothing is there."""

    def usage(_: Path) -> Any:
        used = sum(path.stat().st_size for path in files.directory.iterdir())
        free = room + module._SPARE + module._LEAST_FREE - used
        return module.shutil._ntuple_diskusage(10 << 30, 0, free)  # type: ignore[attr-defined]

    monkeypatch.setattr(module.shutil, "disk_usage", usage)


def test_no_room_is_told_before_anything_is_written(
    files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blob(files, published)
    disk(monkeypatch, files, len(published) // 2)
    with pytest.raises(LoadError, match=r"not enough disk space to prepare .* are needed in"):
        files.make(source)
    assert left(files) == []


def test_files_that_were_used_least_make_room(
    files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [blob(files, published + bytes(n)) for n in range(4)]
    disk(monkeypatch, files, len(published) * 7 // 2)
    for age, source in enumerate(sources[:3]):
        files.make(source)
        note = files.directory / names(source, "json")[0]
        os.utime(note, ns=(0, (age + 1) * 10**9))
    files.find(sources[0])  # now the last used
    with files.held(sources[1]):
        files.make(sources[3])
    assert files.find(sources[0]) is not None
    assert files.find(sources[1]) is not None
    assert files.find(sources[2]) is None


def test_two_at_once_make_it_once(
    files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    source = blob(files, published)
    monkeypatch.setattr(module, "_LOCK_POLL_S", 0.001)
    caplog.set_level(logging.INFO)
    others = [Derived(files.directory, source.parent) for _ in range(3)]
    made: list[Loadable] = []
    threads = [threading.Thread(target=lambda o=o: made.append(o.make(source))) for o in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made[0] == made[1] == made[2]
    assert caplog.text.count("preparing sha256-") == 1


def test_a_waiting_one_can_give_up(files: Derived, published: bytes) -> None:
    source = blob(files, published)
    files.make(source)

    def check() -> None:
        raise GivenUp

    with files._alone(check), pytest.raises(GivenUp):
        Derived(files.directory, source.parent).make(source, check=check)


def test_a_blob_that_is_deleted_meanwhile(files: Derived, published: bytes) -> None:
    source = blob(files, published)
    with pytest.raises(FileNotFoundError):
        files.make(source, check=lambda: source.unlink(missing_ok=True))
    assert left(files) == []


def test_what_a_start_removes(files: Derived, published: bytes) -> None:
    source = blob(files, published)
    files.make(source)
    kept = left(files)
    unfinished = ".sha256-x.v1.text.gguf.1-ab.tmp"
    without_note = f"sha256-{'a' * 64}.v{module.VERSION}.text.gguf"
    older = f"{source.name}.v0.text.gguf"
    young = f"{source.name}.v999.text.gguf"
    gone = f"sha256-{'b' * 64}.v{module.VERSION}.json"
    (source.parent / f"sha256-{'a' * 64}").write_bytes(b"")
    for name in (unfinished, without_note, older, young, gone):
        (files.directory / name).write_bytes(b"x")
        os.utime(files.directory / name, ns=(0, NOW_NS - (name == older) * 8 * 24 * 3600 * 10**9))
    with files._alone(lambda: None):
        files.clean(NOW_NS)  # somebody is making files: nothing unfinished goes
    assert left(files) == sorted([*kept, unfinished, without_note, older, young])
    files.clean(NOW_NS)
    assert left(files) == sorted([*kept, young])


def test_a_new_version_replaces_the_old(
    files: Derived, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = blob(files, published)
    files.make(source)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert files.find(source) is None
    files.make(source)
    assert left(files) == names(source, "text.gguf", "mmproj.gguf", "json")


@pytest.mark.parametrize("prune", [True, False])
def test_they_go_with_the_last_model_that_has_the_blob(
    tmp_path: Path, published: bytes, prune: bool
) -> None:
    store = Store(tmp_path / "models", prune=prune)
    store.ensure_directories()
    with store.new_blob() as writer:
        writer.write(published)
        digest = writer.commit().digest
    layer = Layer(media_type=MEDIA_MODEL, digest=digest, size=len(published))
    config = Layer(media_type="application/json", digest="", size=0)
    for model in ("one", "two"):
        store.write_manifest(Name.parse(model), Manifest(config=config, layers=(layer,)))
    store.derived.make(store.blob_path(digest))
    store.startup_maintenance(NOW_NS)
    store.delete(Name.parse("one"))
    assert len(left(store.derived)) == 3
    store.delete(Name.parse("two"))
    assert left(store.derived) == []
