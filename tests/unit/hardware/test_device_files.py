"""Who may open a device file, and what sysfs says."""

import os
from pathlib import Path

import pytest

from ollamad.hardware.files import (
    BusGpu,
    Denial,
    FileAccess,
    denial,
    gpus_on_bus,
    group_name,
    identity,
    look,
    number,
    read,
    read_if_possible,
    resolved,
)


@pytest.mark.parametrize(
    ("access", "uid", "groups", "expected"),
    [
        (FileAccess(False), 1000, [1000], "missing"),
        (FileAccess(True, True, 0o600, 0, 0), 1000, [1000], None),
        (FileAccess(True, False, 0o660, 0, 109), 1000, [1000], "group"),
        # A member all the same: the mode is not what forbids it.
        (FileAccess(True, False, 0o660, 0, 109), 1000, [1000, 109], "policy"),
        (FileAccess(True, False, 0o666, 0, 109), 1000, [1000], "policy"),
        (FileAccess(True, False, 0o600, 1000, 109), 1000, [1000], "policy"),
        # Reading alone is not enough, for the group either.
        (FileAccess(True, False, 0o664, 0, 109), 1000, [1000], "group"),
        (FileAccess(True, False, 0o640, 0, 109), 1000, [1000], "owner"),
        (FileAccess(True, False, 0o600, 0, 109), 1000, [1000], "owner"),
        # Root is stopped by no mode.
        (FileAccess(True, False, 0o600, 1000, 109), 0, [0], "policy"),
    ],
)
def test_why_a_file_may_not_be_opened(
    access: FileAccess, uid: int, groups: list[int], expected: Denial | None
) -> None:
    assert denial(access, uid, groups) == expected


def test_looking(tmp_path: Path) -> None:
    file = tmp_path / "kfd"
    assert look(file) == FileAccess(False)
    file.touch()
    file.chmod(0o640)
    found = look(file)
    assert found == FileAccess(True, True, 0o640, file.stat().st_uid, file.stat().st_gid)


def test_who_runs_this() -> None:
    uid, groups = identity()
    assert uid == os.geteuid()
    assert os.getegid() in groups


def test_groups_with_and_without_a_name() -> None:
    assert group_name(0).endswith(" (0)")
    assert group_name(54321) == "54321"


def test_files_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == read(tmp_path / "none/below") == ""
    with pytest.raises(IsADirectoryError):
        read(tmp_path)
    assert read_if_possible(tmp_path) == ""


def test_a_file_that_is_too_long_or_no_text(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"\xff" * (1 << 20))
    assert read(tmp_path / "long") == "�" * (1 << 16)


def test_links_in_circles(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=r"^loop leads in circles$"):
        resolved(tmp_path / "loop")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("42", 42), ("-1", None), ("0x10", None), ("", None), ("1 2", None), ("٣", None)],
)
def test_numbers(text: str, expected: int | None) -> None:
    assert number(text) == expected


def test_the_bus(tmp_path: Path) -> None:
    bus = tmp_path / "sys/bus/pci/devices"
    for name, vendor, kind in (
        ("0000:02:00.0", "0x10DE\n", "0x030200\n"),
        ("0000:01:00.0", "0x10de\n", "0x120000\n"),
        ("0000:03:00.0", "0x10de\n", "0x020000\n"),
        ("0000:04:00.0", "0x8086\n", "0x030000\n"),
        ("0000:05:00.0", "", ""),
    ):
        (bus / name).mkdir(parents=True)
        (bus / name / "vendor").write_text(vendor)
        (bus / name / "class").write_text(kind)
    (bus / "0000:02:00.0/driver").symlink_to("../../drivers/nvidia")
    assert gpus_on_bus(tmp_path, "0x10de") == [
        BusGpu("0000:01:00.0", ""),
        BusGpu("0000:02:00.0", "nvidia"),
    ]
    assert gpus_on_bus(tmp_path / "nowhere", "0x10de") == []
