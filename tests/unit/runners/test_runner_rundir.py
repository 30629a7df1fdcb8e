"""The private directory and what a dead daemon leaves (2.5, 2.13)."""

import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ollamad.runners.rundir import RunDirectory, clean_leftovers, default_base, start_time


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True
    )
    yield process  # type: ignore[misc]
    process.kill()
    process.wait()


def abandon(directory: RunDirectory) -> None:
    """What SIGKILL does to the daemon: the lock goes, the files stay."""
    os.close(directory._lock)
    directory._lock = -1


def test_it_is_private_and_removed(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path)
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    first, second = directory.socket_path(), directory.socket_path()
    assert first != second
    assert first is not None
    assert Path(first).parent == directory.path
    directory.close()
    assert list(tmp_path.iterdir()) == []
    directory.close()


@pytest.mark.parametrize("moment", ["before the lock is made", "before it is taken"])
def test_two_daemons_that_start_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The other one finds a directory that is not locked yet and clears it away."""
    make, lock = tempfile.mkdtemp, fcntl.flock
    times = 0

    def other() -> None:
        nonlocal times
        times += 1
        if times == 1:
            clean_leftovers(tmp_path)

    def mkdtemp(**where: Any) -> str:
        path = make(**where)
        if moment == "before the lock is made":
            other()
        return path

    def flock(descriptor: int, how: int) -> None:
        if moment == "before it is taken":
            other()
        lock(descriptor, how)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    monkeypatch.setattr(fcntl, "flock", flock)
    directory = RunDirectory.create(tmp_path)
    assert times > 1
    assert list(tmp_path.iterdir()) == [directory.path]
    assert clean_leftovers(tmp_path) == []
    assert directory.path.exists()
    directory.close()


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    directory = RunDirectory.create(deep)
    assert directory.socket_path() is None


def test_leftovers_of_a_dead_daemon_are_cleaned(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    dead = RunDirectory.create(tmp_path)
    dead.record(sleeper.pid)
    alive = RunDirectory.create(tmp_path)
    abandon(dead)
    assert clean_leftovers(tmp_path) == [sleeper.pid]
    assert sleeper.wait(5) == -9
    assert not dead.path.exists()
    assert alive.path.exists()


def test_a_living_daemons_runners_are_left_alone(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]"
) -> None:
    directory = RunDirectory.create(tmp_path)
    directory.record(sleeper.pid)
    assert clean_leftovers(tmp_path) == []
    assert sleeper.poll() is None
    directory.close()


@pytest.mark.parametrize("started", [None, 1.0, "x"])
def test_a_process_that_only_has_the_number_is_left_alone(
    tmp_path: Path, sleeper: "subprocess.Popen[bytes]", started: object
) -> None:
    dead = RunDirectory.create(tmp_path)
    record = {"pid": sleeper.pid, "started": started}
    (dead.path / "runner-1.json").write_text(json.dumps(record))
    (dead.path / "runner-2.json").write_text("not json")
    abandon(dead)
    assert clean_leftovers(tmp_path) == []
    assert sleeper.poll() is None
    assert not dead.path.exists()


def test_directories_that_are_not_private_are_not_touched(tmp_path: Path) -> None:
    name = f"ollamad-{os.getuid()}-"
    (tmp_path / f"{name}open").mkdir(mode=0o755)
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (tmp_path / f"{name}link").symlink_to(victim)
    (tmp_path / f"{name}file").write_text("")
    clean_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert list(victim.iterdir()) == []


def test_start_times_tell_processes_apart(sleeper: "subprocess.Popen[bytes]") -> None:
    assert start_time(os.getpid()) == start_time(os.getpid()) is not None
    assert start_time(sleeper.pid) != start_time(os.getpid())
    assert start_time(2**22 + 1) is None


def test_the_runtime_directory_is_preferred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_base() == tmp_path
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nonexistent")
    assert default_base() != Path("/nonexistent")


# --- shards ---------------------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("sha256-b", "sha256-a", "sha256-c")]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_shards_get_the_names_that_llama_cpp_looks_for(tmp_path: Path, shards: list[Path]) -> None:
    directory = RunDirectory.create(tmp_path)
    before = sorted(directory.path.iterdir())
    with directory.linked(shards) as first, directory.linked(shards) as other:
        assert first.parent != other.parent  # two loads do not meet
        assert [(link.name, link.read_text()) for link in sorted(first.parent.iterdir())] == [
            ("model-00001-of-00003.gguf", "sha256-b"),
            ("model-00002-of-00003.gguf", "sha256-a"),
            ("model-00003-of-00003.gguf", "sha256-c"),
        ]
        assert first == first.parent / "model-00001-of-00003.gguf"
    assert sorted(directory.path.iterdir()) == before
    assert all(shard.is_file() for shard in shards)
    directory.close()


def test_shards_below_a_relative_path(
    tmp_path: Path, shards: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = RunDirectory.create(tmp_path)
    with directory.linked([Path(shard.name) for shard in shards]) as first:
        assert first.read_text() == "sha256-b"
    directory.close()


def test_links_go_with_a_load_that_fails(tmp_path: Path, shards: list[Path]) -> None:
    directory = RunDirectory.create(tmp_path)
    before = sorted(directory.path.iterdir())
    with pytest.raises(ZeroDivisionError), directory.linked(shards):
        raise ZeroDivisionError
    assert sorted(directory.path.iterdir()) == before
    directory.close()


def test_links_of_a_dead_daemon_go_and_what_they_lead_to_stays(
    tmp_path: Path, shards: list[Path]
) -> None:
    directory = RunDirectory.create(tmp_path)
    with directory.linked(shards):
        abandon(directory)
        clean_leftovers(tmp_path)
        assert not directory.path.exists()
    assert all(shard.is_file() for shard in shards)
