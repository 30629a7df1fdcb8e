"""The GPU of a Mac from sysctl's output, runners-and-scheduling.md 1.12."""

import subprocess
from collections.abc import Sequence

import pytest

from ollamad.hardware import apple
from ollamad.hardware.vendor import Note, Survey, checked

GIB = 1 << 30
M3_MAX = f"""\
hw.memsize: {128 * GIB}
hw.optional.arm64: 1
iogpu.wired_limit_mb: 0
machdep.cpu.brand_string: Apple M3 Max
"""


def test_a_mac() -> None:
    asked = []

    def run(command: Sequence[str]) -> str:
        asked.append(tuple(command))
        return M3_MAX

    found = apple.devices(run)
    assert asked == [apple.COMMAND]
    assert found.notes == ()
    (gpu,) = found.devices
    assert (gpu.source, gpu.index, gpu.library, gpu.name) == ("apple", 0, "Metal", "Apple M3 Max")
    assert gpu.integrated is True
    assert gpu.total == gpu.free == 96 * GIB
    assert checked(found) == found


@pytest.mark.parametrize(
    ("memory", "limit", "expected"),
    [
        (8 * GIB, 0, 8 * GIB * 67 // 100),
        (36 * GIB, 0, 36 * GIB * 67 // 100),
        (36 * GIB + 1, 0, (36 * GIB + 1) * 75 // 100),
        (64 * GIB, 0, 48 * GIB),
        (64 * GIB, 60 * GIB, 60 * GIB),
        # More than there is: a mistake.
        (64 * GIB, 65 * GIB, 48 * GIB),
    ],
)
def test_how_much_the_gpu_may_have(memory: int, limit: int, expected: int) -> None:
    assert apple.working_set(memory, limit) == expected


def test_the_limit_is_in_mib() -> None:
    output = M3_MAX.replace("wired_limit_mb: 0", "wired_limit_mb: 122880")
    assert apple.from_sysctl(output).devices[0].total == 120 * GIB


def test_an_older_system_has_no_limit() -> None:
    lines = [line for line in M3_MAX.splitlines() if not line.startswith("iogpu")]
    assert apple.from_sysctl("\n".join(lines)).devices[0].total == 96 * GIB


def test_a_mac_with_another_processor() -> None:
    output = f"hw.memsize: {16 * GIB}\nmachdep.cpu.brand_string: Intel(R) Core(TM) i7"
    note = Note("info", "the GPUs of Macs with Intel's processors are not used")
    assert apple.from_sysctl(output) == Survey((), (note,))


@pytest.mark.parametrize("size", ["", "x", "0", "-8", "9" * 18, "9" * 5000])
def test_no_size_that_makes_sense(size: str) -> None:
    found = apple.from_sysctl(f"hw.optional.arm64: 1\nhw.memsize: {size}\n")
    assert found.devices == ()
    assert found.notes[0].text.endswith("sysctl tells no size of the machine's")


def test_a_mac_without_a_name() -> None:
    output = M3_MAX.replace("Apple M3 Max", "\x1b\x07")
    assert apple.from_sysctl(output).devices[0].name == "Apple GPU"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), subprocess.TimeoutExpired("sysctl", 5)]
)
def test_sysctl_fails(error: Exception) -> None:
    def run(command: Sequence[str]) -> str:
        raise error

    found = apple.devices(run)
    assert found.devices == ()
    assert "sysctl failed" in found.notes[0].text
