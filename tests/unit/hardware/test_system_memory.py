"""System memory from files, runners-and-scheduling.md 1.11."""

import sys
from pathlib import Path

import pytest

from ollamad.hardware.memory import (
    GroupMemory,
    SystemMemory,
    group_directories,
    macos_free,
    parse_meminfo,
    parse_vm_stat,
    system_memory,
    within_groups,
)

GIB = 1 << 30
MEMINFO = """\
MemTotal:       16777216 kB
MemFree:         1048576 kB
MemAvailable:    8388608 kB
Buffers:          524288 kB
Cached:          2097152 kB
SwapFree:        4194304 kB
HugePages_Total:       0
"""
HOST = SystemMemory(16 * GIB, 8 * GIB, 4 * GIB)


def test_meminfo() -> None:
    assert parse_meminfo(MEMINFO) == HOST


def test_meminfo_of_an_old_kernel() -> None:
    old = MEMINFO.replace("MemAvailable", "Other")
    assert parse_meminfo(old).free == 3 * GIB + GIB // 2


@pytest.mark.parametrize("text", ["", "garbage", "MemTotal:\nMemFree: x kB\n"])
def test_meminfo_that_says_nothing(text: str) -> None:
    assert parse_meminfo(text) == SystemMemory()


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        (GroupMemory(), HOST),
        (GroupMemory(None, 7 * GIB), HOST),
        (GroupMemory(6 * GIB, 2 * GIB), SystemMemory(6 * GIB, 4 * GIB, 4 * GIB)),
        (GroupMemory(12 * GIB, 2 * GIB), SystemMemory(12 * GIB, 8 * GIB, 4 * GIB)),
        (GroupMemory(6 * GIB), SystemMemory(6 * GIB, 6 * GIB, 4 * GIB)),
        (GroupMemory(6 * GIB, 7 * GIB), SystemMemory(6 * GIB, 0, 4 * GIB)),
        (GroupMemory(99 * GIB, 2 * GIB), HOST),
        # What only caches files is free.
        (GroupMemory(6 * GIB, 5 * GIB, 4 * GIB), SystemMemory(6 * GIB, 5 * GIB, 4 * GIB)),
        (GroupMemory(6 * GIB, 2 * GIB, 3 * GIB), SystemMemory(6 * GIB, 6 * GIB, 4 * GIB)),
        (GroupMemory(swap_limit=0), SystemMemory(16 * GIB, 8 * GIB, 0)),
        (GroupMemory(swap_limit=2 * GIB, swap_current=GIB), SystemMemory(16 * GIB, 8 * GIB, GIB)),
    ],
)
def test_limits_of_a_control_group(group: GroupMemory, expected: SystemMemory) -> None:
    assert within_groups(HOST, [group]) == expected


def test_the_tightest_of_nested_groups_counts() -> None:
    groups = [GroupMemory(8 * GIB, GIB), GroupMemory(6 * GIB, 5 * GIB)]
    assert within_groups(HOST, groups) == SystemMemory(6 * GIB, GIB, 4 * GIB)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def paths(cgroup: str, mountinfo: str) -> list[str]:
    return [str(d.path) for d in group_directories(cgroup, mountinfo)]


def test_directories_of_the_own_group_and_of_those_above() -> None:
    assert paths("0::/system.slice/ollama.service\n", V2) == [
        "/sys/fs/cgroup/system.slice/ollama.service",
        "/sys/fs/cgroup/system.slice",
        "/sys/fs/cgroup",
    ]


def test_directories_in_a_container_with_a_view_of_its_own() -> None:
    assert paths("0::/\n", V2) == ["/sys/fs/cgroup"]


def test_directories_in_a_container_that_sees_the_hosts_names() -> None:
    cgroup = "0::/docker/abc/inner\n"
    assert paths(cgroup, V2.replace(" / /sys", " /docker/abc /sys")) == [
        "/sys/fs/cgroup/inner",
        "/sys/fs/cgroup",
    ]
    assert paths(cgroup, V2.replace(" / /sys", " /other /sys")) == ["/sys/fs/cgroup"]


def test_a_group_outside_of_the_view_does_not_lead_out_of_the_mount() -> None:
    assert paths("0::/../../x\n", V2) == ["/sys/fs/cgroup"]


def test_version_1() -> None:
    cgroup = "5:cpu:/a\n4:memory:/b\n0::/\n"
    assert paths(cgroup, V1) == ["/sys/fs/cgroup/memory/b", "/sys/fs/cgroup/memory"]
    assert [d.version for d in group_directories(cgroup, V1)] == [1, 1]


@pytest.mark.parametrize("mountinfo", ["", "x", "1 2 3 - cgroup2", "1 2 3 4 5 - ext4 a b\n"])
def test_nothing_mounted(mountinfo: str) -> None:
    assert group_directories("0::/a\n", mountinfo) == []


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
class TestFiles:
    def system(self, root: Path, cgroup: str, mountinfo: str, **files: str) -> SystemMemory:
        everything = {"proc/meminfo": MEMINFO, "proc/self/cgroup": cgroup, **files}
        everything["proc/self/mountinfo"] = mountinfo
        for name, text in everything.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        return system_memory(root)

    def test_no_groups(self, tmp_path: Path) -> None:
        assert self.system(tmp_path, "", "") == HOST

    def test_version_2(self, tmp_path: Path) -> None:
        group = "sys/fs/cgroup/a/"
        files = {
            group + "memory.max": f"{6 * GIB}\n",
            group + "memory.current": f"{5 * GIB}\n",
            group + "memory.stat": f"anon 7\ninactive_file {GIB}\nactive_file {GIB}\n",
            group + "memory.swap.max": "0\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": f"{15 * GIB}\n",
        }
        assert self.system(tmp_path, "0::/a\n", V2, **files) == SystemMemory(6 * GIB, 3 * GIB, 0)

    def test_max_is_no_limit(self, tmp_path: Path) -> None:
        group = "sys/fs/cgroup/a/"
        files = {group + "memory.max": "max\n", group + "memory.current": f"{12 * GIB}\n"}
        assert self.system(tmp_path, "0::/a\n", V2, **files) == HOST

    def test_version_1(self, tmp_path: Path) -> None:
        group = "sys/fs/cgroup/memory/b/"
        files = {
            group + "memory.limit_in_bytes": f"{6 * GIB}\n",
            group + "memory.usage_in_bytes": f"{5 * GIB}\n",
            group + "memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
        memory = self.system(tmp_path, "4:memory:/b\n", V1, **files)
        assert memory == SystemMemory(6 * GIB, 2 * GIB, 4 * GIB)

    def test_this_machine(self) -> None:
        memory = system_memory()
        assert 0 < memory.free <= memory.total


def test_macos() -> None:
    page_size, pages = parse_vm_stat(
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               1000.\n"
        "Pages active:                              400.\n"
        "Pages inactive:                            300.\n"
        "Pages speculative:                          50.\n"
        "Pages wired down:                          100.\n"
        "Pages purgeable:                            25.\n"
        '"Translation faults":                   123456.\n'
        "File-backed pages:                         200.\n"
        "Pages occupied by compressor:               75.\n"
    )
    assert page_size == 16384
    assert macos_free(2000 * 16384, page_size, pages) == (2000 - 925 + 225) * 16384
    assert macos_free(0, page_size, pages) == 0
