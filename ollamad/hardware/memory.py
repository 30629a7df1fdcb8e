"""System memory: how much there is, and how much a new model may take.

``runners-and-scheduling.md`` 1.11. On Linux the limits of the process's own control group (and of
those above it, version 1 or 2) count as well, so that the daemon in a container does not plan with
the host's memory. Pages that only cache files count as free in a control group too, as they do in
the host's ``MemAvailable``: otherwise the file of a model that was loaded once would seem to fill
the group for good.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_PAGE_CACHE = ("inactive_file", "active_file")


@dataclass(frozen=True, slots=True)
class SystemMemory:
    """Bytes. ``free`` can be had without swapping; 0 everywhere when the system does not tell."""

    total: int = 0
    free: int = 0
    swap_free: int = 0


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """One control group's limit and use, bytes; None without a limit or without the file."""

    limit: int | None = None
    current: int | None = None
    page_cache: int = 0
    swap_limit: int | None = None
    swap_current: int = 0


@dataclass(frozen=True, slots=True)
class GroupDirectory:
    """A directory that may hold a control group's memory files."""

    path: PurePosixPath
    version: int


def system_memory(root: Path = Path("/")) -> SystemMemory:
    """The machine's memory now. ``root`` is where ``proc`` and ``sys`` are. Raises nothing."""
    if sys.platform == "darwin":
        return _macos_memory()
    if sys.platform == "win32":
        return _other_memory()
    host = parse_meminfo(_text(root / "proc/meminfo"))
    directories = group_directories(
        _text(root / "proc/self/cgroup"), _text(root / "proc/self/mountinfo")
    )
    return within_groups(host, (read_group(root, directory) for directory in directories))


def parse_meminfo(text: str) -> SystemMemory:
    """The content of ``/proc/meminfo``, whose values are in KiB."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, _, rest = line.partition(":")
        number = rest.split(maxsplit=1)[:1]
        if number and number[0].isdecimal():
            values[key] = int(number[0]) * 1024
    free = values.get("MemAvailable")
    if free is None:
        free = sum(values.get(key, 0) for key in ("MemFree", "Buffers", "Cached"))
    return SystemMemory(values.get("MemTotal", 0), free, values.get("SwapFree", 0))


def within_groups(host: SystemMemory, groups: Iterable[GroupMemory]) -> SystemMemory:
    """What is left of ``host`` under the limits of all ``groups``; nothing is below 0."""
    total, free, swap_free = host.total, host.free, host.swap_free
    for group in groups:
        if group.limit is not None:
            # Only a limit makes the use count: without one a group may take all that is free.
            total = min(total, group.limit) if total else group.limit
            if group.current is not None:
                held = max(0, group.current - group.page_cache)
                free = max(0, min(free, group.limit - held))
            else:
                free = min(free, group.limit)
        if group.swap_limit is not None:
            swap_free = max(0, min(swap_free, group.swap_limit - group.swap_current))
    return SystemMemory(total, free, swap_free)


def group_directories(cgroup: str, mountinfo: str) -> list[GroupDirectory]:
    """Directories of the process's memory control group and of those above it, innermost first.

    ``cgroup`` and ``mountinfo`` are the contents of the files in ``/proc/self``. A group that the
    process's view of the file system does not reach is replaced by the mount itself.
    """
    own: dict[int, PurePosixPath] = {}
    for line in cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            own[2] = PurePosixPath(path)
        elif "memory" in controllers.split(","):
            own[1] = PurePosixPath(path)
    found: list[GroupDirectory] = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(), after.split()
        if len(left) < 5 or len(right) < 3:
            continue
        if right[0] == "cgroup2":
            version = 2
        elif right[0] == "cgroup" and "memory" in right[2].split(","):
            version = 1
        else:
            continue
        if version not in own:
            continue
        mount_root, mount = PurePosixPath(left[3]), PurePosixPath(left[4])
        inside = PurePosixPath()
        if own[version].is_relative_to(mount_root) and ".." not in own[version].parts:
            inside = own[version].relative_to(mount_root)
        found += (GroupDirectory(mount / part, version) for part in (inside, *inside.parents))
    return list(dict.fromkeys(found))


def read_group(root: Path, directory: GroupDirectory) -> GroupMemory:
    """The memory files of one control group; those that are missing count as no limit."""
    path = root / directory.path.relative_to("/")
    if directory.version == 1:
        stat = parse_stat(_text(path / "memory.stat"))
        return GroupMemory(
            _number(path / "memory.limit_in_bytes"),
            _number(path / "memory.usage_in_bytes"),
            # The totals include the groups below, as the use does.
            sum(stat.get(f"total_{key}", 0) for key in _PAGE_CACHE),
        )
    stat = parse_stat(_text(path / "memory.stat"))
    return GroupMemory(
        _number(path / "memory.max"),
        _number(path / "memory.current"),
        sum(stat.get(key, 0) for key in _PAGE_CACHE),
        _number(path / "memory.swap.max"),
        _number(path / "memory.swap.current") or 0,
    )


def parse_stat(text: str) -> dict[str, int]:
    """Lines of a name and a number, as in ``memory.stat``."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def parse_vm_stat(text: str) -> tuple[int, Mapping[str, int]]:
    """Page size in bytes and numbers of pages by name, as macOS's ``vm_stat`` prints them."""
    page_size = 4096
    pages: dict[str, int] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if "page size of" in value:
            words = value.split("page size of")[1].split()
            page_size = int(words[0]) if words and words[0].isdecimal() else page_size
        elif value.strip().rstrip(".").isdecimal():
            pages[name.strip('" ')] = int(value.strip().rstrip("."))
    return page_size, pages


def macos_free(total: int, page_size: int, pages: Mapping[str, int]) -> int:
    """What programs do not hold: files in memory and purgeable pages count as free."""
    held = sum(
        pages.get(name, 0)
        for name in (
            "Pages active",
            "Pages inactive",
            "Pages speculative",
            "Pages wired down",
            "Pages occupied by compressor",
        )
    )
    held -= pages.get("Pages purgeable", 0) + pages.get("File-backed pages", 0)
    return max(0, total - held * page_size)


def _macos_memory() -> SystemMemory:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        printed = subprocess.run(
            ["/usr/bin/vm_stat"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return _other_memory()
    return SystemMemory(total, macos_free(total, *parse_vm_stat(printed.stdout)))


def _other_memory() -> SystemMemory:
    import psutil  # noqa: PLC0415 - not needed on Linux

    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return SystemMemory(memory.total, memory.available, swap.free)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        # Every source is optional: kernels and containers differ in what they show.
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None
