"""What the system's own files tell about GPUs: what is on the bus, and what may be opened.

Everything is read below a ``root``, so that tests bring a tree of their own. Device files are never
opened: that can wake a driver, or hang with it.
"""

from __future__ import annotations

import grp
import os
import re
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from ollamad.hardware.vendor import pci_id

#: Files of sysfs are small; what is longer is not what it seems.
_LONGEST = 1 << 16
#: PCI classes of display controllers and of processing accelerators.
_GPU_CLASSES = ("0x03", "0x12")
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_CONTAINER_GROUPS = re.compile(r"/(docker|kubepods|lxc|podman|libpod|containerd|crio)\b")


class BusGpu(NamedTuple):
    """A GPU on the PCI bus; ``driver`` is empty when no driver has taken it."""

    pci_id: str
    driver: str


class FileAccess(NamedTuple):
    """What this process may do with a device file. Without the file all else means nothing."""

    exists: bool
    allowed: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0


#: Why a device file cannot be used: it is not there, its group may use it, nobody but its owner
#: may, or the file's mode allows it and something else (SELinux, a container's device rules) not.
Denial = Literal["missing", "group", "owner", "policy"]
Look = Callable[[Path], FileAccess]


def read(path: Path) -> str:
    """The text of a small file; empty when there is none. Raises `OSError` for other failures."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("utf-8", "replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def read_if_possible(path: Path) -> str:
    """As `read`; empty too when the file cannot be read: for facts that nothing depends on."""
    try:
        return read(path)
    except OSError:
        return ""


def number(text: str) -> int | None:
    """A decimal number as sysfs writes it; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,20}", text) else None


def entries(directory: Path) -> list[Path]:
    """What is in ``directory``, sorted by name; nothing when it is not there or not readable."""
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def link_name(path: Path) -> str:
    """The last part of a link's target, or the text of a plain file: both name a driver."""
    try:
        return path.readlink().name
    except OSError:
        return read_if_possible(path)


def resolved(path: Path) -> Path:
    """Where a path leads, links followed. Raises `OSError` when they lead in circles."""
    try:
        return path.resolve()
    except RuntimeError as error:
        raise OSError(f"{path.name} leads in circles") from error


def gpus_on_bus(root: Path, vendor: str) -> list[BusGpu]:
    """The GPUs of ``vendor`` (``0x1002``) on the PCI bus, by PCI id."""
    return [
        BusGpu(pci_id(device.name), link_name(device / "driver"))
        for device in entries(root / "sys/bus/pci/devices")
        if read_if_possible(device / "vendor").lower() == vendor
        and read_if_possible(device / "class").lower().startswith(_GPU_CLASSES)
    ]


def in_container(root: Path) -> bool:
    """Whether this is a container (Docker, Podman, Kubernetes, LXC), as far as files tell."""
    if any((root / name.lstrip("/")).exists() for name in _CONTAINER_FILES):
        return True
    return bool(_CONTAINER_GROUPS.search(read_if_possible(root / "proc/1/cgroup")))


def in_wsl(root: Path) -> bool:
    """Whether this is Linux inside Windows, where the GPU's driver is Windows' own."""
    return "microsoft" in read_if_possible(root / "proc/sys/kernel/osrelease").lower()


def look(path: Path) -> FileAccess:
    """What this process may do with a device file. Raises nothing."""
    try:
        found = path.stat()
    except OSError:
        return FileAccess(False)
    allowed = os.access(path, os.R_OK | os.W_OK)
    return FileAccess(True, allowed, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def denial(found: FileAccess, uid: int, groups: Iterable[int]) -> Denial | None:
    """Why a process of this user and these groups cannot use a file; None when it can."""
    if not found.exists:
        return "missing"
    if found.allowed:
        return None
    wanted = stat.S_IROTH | stat.S_IWOTH
    if uid == found.uid:
        mine = found.mode >> 6
    elif found.gid in set(groups):
        mine = found.mode >> 3
    else:
        mine = found.mode
    # Root passes by the mode: what stops it is no mode.
    if uid == 0 or mine & wanted == wanted:
        return "policy"
    return "group" if (found.mode >> 3) & wanted == wanted else "owner"


def identity() -> tuple[int, list[int]]:
    """Number and groups of the user that this process runs as."""
    return os.geteuid(), [os.getegid(), *os.getgroups()]


def group_name(gid: int) -> str:
    """``render (109)``, or only the number when this system has no name for it."""
    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)
