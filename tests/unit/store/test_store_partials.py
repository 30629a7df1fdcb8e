"""The files of an arriving blob: one writer at a time, and nothing half done at any moment."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from store_samples import blob_files

from ollamad.store.partials import Partial, unfinished
from ollamad.store.store import Store

DIGEST = "sha256:" + "ab" * 32
NAME = "sha256-" + "ab" * 32


@pytest.fixture
def partial(store: Store) -> Partial:
    partial = store.partial(DIGEST)
    assert partial.acquire()
    return partial


def read(partial: Partial, size: int, offset: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: partial.read_into(memoryview(buffer), offset)])


def test_pieces_land_where_they_belong(store: Store, partial: Partial) -> None:
    partial.resize(10)
    assert partial.write([b"fg", b"hij"], 5) == 5
    assert partial.write([b"abcde"], 0) == 5
    assert read(partial, 100, 0) == b"abcdefghij"
    assert read(partial, 100, 10) == b""
    partial.sync()
    partial.promote()
    assert blob_files(store) == [NAME]
    assert store.blob_path(DIGEST).read_bytes() == b"abcdefghij"
    assert store.blob_size(DIGEST) == 10


def test_a_write_that_takes_only_a_part_is_continued(
    partial: Partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwritev

    def a_little(descriptor: int, chunks: list[bytes], offset: int) -> int:
        return real(descriptor, [b"".join(chunks)[:3]], offset)

    monkeypatch.setattr(os, "pwritev", a_little)
    assert partial.write([b"ab", b"cdef", b"g", b"hi"], 1) == 9
    assert read(partial, 100, 0) == b"\0abcdefghi"


def test_many_small_pieces(partial: Partial) -> None:
    pieces = [bytes([n % 256]) for n in range(5000)]
    assert partial.write(pieces, 0) == 5000
    assert read(partial, 9999, 0) == b"".join(pieces)


def test_the_umask_decides_who_may_read_it(store: Store) -> None:
    before = os.umask(0o027)
    try:
        partial = store.partial(DIGEST)
        assert partial.acquire()
        partial.resize(1)
        partial.note(0, b"{}")
        assert (partial.path.with_name(NAME + "-partial-0").stat().st_mode & 0o777) == 0o640
        partial.promote()
    finally:
        os.umask(before)
    assert (store.blob_path(DIGEST).stat().st_mode & 0o777) == 0o640


def test_a_blob_that_was_long_under_way_is_not_pruned(store: Store, partial: Partial) -> None:
    partial.resize(3)
    os.utime(partial.path, (1, 1))
    partial.promote()
    assert store.blob_path(DIGEST).stat().st_mtime > 1


def test_promoting_takes_the_place_of_a_damaged_blob(store: Store, partial: Partial) -> None:
    store.blob_path(DIGEST).write_bytes(b"damaged")
    partial.write([b"whole"], 0)
    partial.promote()
    assert store.blob_path(DIGEST).read_bytes() == b"whole"


def test_notes_are_replaced_whole(store: Store, partial: Partial) -> None:
    partial.note(0, b"one\n")
    partial.note(10, b"ten\n")
    partial.note(0, b"two\n")
    assert sorted(partial.notes()) == [b"ten\n", b"two\n"]
    assert blob_files(store) == [
        NAME + "-partial",
        NAME + "-partial-0",
        NAME + "-partial-10",
    ]


def test_half_a_note_of_a_crash_is_no_note(store: Store, partial: Partial) -> None:
    partial.path.with_name(f".{NAME}-partial-3").write_bytes(b"{")
    assert partial.notes() == []
    partial.note(3, b"{}")
    assert partial.notes() == [b"{}"]


def test_what_is_no_file_is_no_note(store: Store, partial: Partial, tmp_path: Path) -> None:
    """Nobody writes into the pipe: who opened it would wait for ever."""
    os.mkfifo(partial.path.with_name(f"{NAME}-partial-0"))
    partial.path.with_name(f"{NAME}-partial-1").symlink_to("/dev/zero")
    partial.path.with_name(f"{NAME}-partial-2").mkdir()
    assert partial.notes() == [b"", b"", b""]
    partial.path.with_name(f"{NAME}-partial-2").rmdir()
    partial.clear()
    assert blob_files(store) == [f"{NAME}-partial"]


def test_a_note_is_written_to_its_end(partial: Partial, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    partial.note(0, b"whole note")
    assert partial.notes() == [b"whole note"]


@pytest.mark.parametrize("end", [Partial.clear, Partial.discard])
def test_notes_go_from_the_last_one_on(
    partial: Partial, monkeypatch: pytest.MonkeyPatch, end: Callable[[Partial], None]
) -> None:
    """Killed in between, the first ones are left: the reference trusts whatever it finds."""
    for number in (3, 10, 0, 2, 1, 9):
        partial.note(number, b"x")
    gone: list[str] = []
    real = os.unlink

    def recorded(path: Path) -> None:
        gone.append(Path(path).name.rpartition("-")[2])
        real(path)

    monkeypatch.setattr(os, "unlink", recorded)
    end(partial)
    assert gone[:6] == ["10", "9", "3", "2", "1", "0"]


@pytest.mark.parametrize("end", [Partial.discard, Partial.promote])
def test_half_a_note_goes_with_the_others(
    store: Store, partial: Partial, end: Callable[[Partial], None]
) -> None:
    partial.path.with_name(f".{NAME}-partial-3").write_bytes(b"{")
    assert unfinished(store.root / "blobs") == {NAME}
    end(partial)
    assert unfinished(store.root / "blobs") == set()


def test_a_note_that_cannot_be_written_leaves_the_old_one(
    partial: Partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial.note(0, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError):
            partial.note(0, b"new")
    assert partial.notes() == [b"old"]
    assert sorted(p.name for p in partial.path.parent.glob(".*")) == []


def test_only_one_has_it(store: Store, partial: Partial) -> None:
    other = store.partial(DIGEST)
    assert not other.acquire()
    partial.write([b"x"], 0)
    partial.release()
    assert other.acquire()
    assert read(other, 10, 0) == b"x"


def test_the_lock_is_on_the_file_that_has_the_name(
    store: Store, partial: Partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opened the file just before it became the blob must not write into the blob."""
    partial.write([b"whole"], 0)
    real = os.open

    def open_then_promote(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real(path, flags, mode)
        if partial._descriptor >= 0 and Path(path) == partial.path:
            monkeypatch.setattr(os, "open", real)
            partial.promote()
        return descriptor

    monkeypatch.setattr(os, "open", open_then_promote)
    other = store.partial(DIGEST)
    assert other.acquire()
    other.write([b"other"], 0)
    assert store.blob_path(DIGEST).read_bytes() == b"whole"


def test_what_holds_nothing_leaves_no_file(store: Store, partial: Partial) -> None:
    partial.release()
    partial.release()
    assert blob_files(store) == []


def test_what_holds_something_stays(store: Store, partial: Partial) -> None:
    partial.resize(1)
    partial.release()
    assert blob_files(store) == [NAME + "-partial"]


def test_notes_alone_stay_too(store: Store, partial: Partial) -> None:
    partial.note(0, b"{}")
    partial.release()
    assert blob_files(store) == [NAME + "-partial", NAME + "-partial-0"]


def test_starting_over_keeps_others_out(store: Store, partial: Partial) -> None:
    partial.write([b"old"], 0)
    partial.note(1, b"{}")
    partial.clear()
    assert (partial.size(), partial.notes()) == (0, [])
    assert not store.partial(DIGEST).acquire()


def test_discarding_leaves_nothing(store: Store, partial: Partial) -> None:
    partial.write([b"wrong"], 0)
    partial.note(0, b"{}")
    partial.discard()
    assert blob_files(store) == []
    assert store.partial(DIGEST).acquire()


def test_touching_reaches_all_files(partial: Partial) -> None:
    partial.note(0, b"{}")
    paths = [partial.path, partial.path.with_name(NAME + "-partial-0")]
    for path in paths:
        os.utime(path, (1, 1))
    partial.touch()
    assert all(path.stat().st_mtime > 1 for path in paths)


def test_room_on_the_disk_counts_what_is_really_there(store: Store, partial: Partial) -> None:
    partial.resize(100_000_000)
    assert partial.allocated() < 1_000_000
    partial.write([bytes(100_000)], 0)
    partial.sync()
    assert partial.allocated() >= 100_000
    assert store.partial("sha256:" + "0" * 64).allocated() == 0
    assert store.free_bytes() > 0


def test_a_link_in_its_place_is_not_followed(store: Store, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    partial = store.partial(DIGEST)
    partial.path.parent.mkdir(parents=True)
    partial.path.symlink_to(victim)
    with pytest.raises(OSError):
        partial.acquire()
    assert victim.read_bytes() == b"precious"


def test_a_disk_without_locks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """There two may collide, as with the reference; but no other error is taken for that."""
    number = errno.ENOLCK

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    partial = store.partial(DIGEST)
    assert partial.acquire()
    partial.write([b"abc"], 0)
    partial.promote()
    assert store.blob_size(DIGEST) == 3
    number = errno.EIO
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="Input/output"):
        partial.acquire()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_sizes_of_blobs(store: Store) -> None:
    assert store.blob_size(DIGEST) is None
    store.blob_path(DIGEST).mkdir(parents=True)
    assert store.blob_size(DIGEST) is None


def test_what_a_crash_left_of_a_stored_blob_goes(store: Store, partial: Partial) -> None:
    """It came between the renaming and the removal of the notes."""
    partial.write([b"whole"], 0)
    partial.promote()
    partial.path.with_name(NAME + "-partial-0").write_bytes(b"{}")
    assert unfinished(store.root / "blobs") == {NAME}
    store.partial(DIGEST).remove_leftovers()
    assert blob_files(store) == [NAME]
    assert unfinished(store.root / "blobs") == set()


def test_what_somebody_fetches_is_no_leftover(store: Store, partial: Partial) -> None:
    partial.note(0, b"{}")
    store.partial(DIGEST).remove_leftovers()
    assert partial.notes() == [b"{}"]
    partial.write([b"x"], 0)
    partial.release()
    store.partial(DIGEST).remove_leftovers()
    assert store.partial(DIGEST).notes() == [b"{}"]


def test_nothing_is_unfinished_where_there_is_nothing(tmp_path: Path) -> None:
    assert unfinished(tmp_path / "missing") == set()
