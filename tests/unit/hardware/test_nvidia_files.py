"""Files of NVIDIA's driver that do not fit together, and hints from the bus."""

from pathlib import Path

import pytest
from support.file_tree import unpack

from ollamad.hardware.files import FileAccess
from ollamad.hardware.hints import hints
from ollamad.hardware.nvidia_files import notes
from ollamad.hardware.vendor import Note, Survey, VendorDevice

USER = (1000, [1000, 44])
HEALTHY = """\
/sys/bus/pci/devices/0000:01:00.0/vendor = 0x10de
/sys/bus/pci/devices/0000:01:00.0/class = 0x030000
/sys/bus/pci/devices/0000:01:00.0/driver -> ../../drivers/nvidia
/sys/module/nvidia/
/sys/module/nvidia_uvm/
/proc/driver/nvidia/version = NVRM version: 570.86
/dev/nvidia0:
/dev/nvidiactl:
/dev/nvidia-uvm:
/dev/nvidia-uvm-tools:
"""
CARD = """\
/sys/bus/pci/devices/0000:01:00.0/vendor = 0x10de
/sys/bus/pci/devices/0000:01:00.0/class = 0x030200
"""
WSL = "/proc/sys/kernel/osrelease = 5.15.153.1-microsoft-standard-WSL2\n"
CONTAINER = "/.dockerenv:\n"


def look_open(path: Path) -> FileAccess:
    return FileAccess(path.exists(), True, 0o666)


def told(root: Path, *texts: str, found: bool = False) -> list[tuple[str, str]]:
    for text in texts:
        unpack(text, root)
    return [(n.level, n.text) for n in notes(root, found=found, look_at=look_open, user=USER)]


def test_all_is_well(tmp_path: Path) -> None:
    assert told(tmp_path, HEALTHY) == []
    assert told(tmp_path, found=True) == []


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert told(tmp_path, "/dev/null:\n/proc/1/cgroup = 0::/init.scope") == []


NAMED = "the NVIDIA GPU 0000:01:00.0"


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("", ("warning", f"{NAMED} has no driver")),
        ("nouveau", ("warning", f"{NAMED} has the driver nouveau, which cannot run CUDA")),
        ("vfio-pci", ("info", f"{NAMED} belongs to the driver vfio-pci, not to NVIDIA's")),
    ],
)
def test_no_driver_or_another(tmp_path: Path, driver: str, expected: tuple[str, str]) -> None:
    link = f"/sys/bus/pci/devices/0000:01:00.0/driver -> ../../drivers/{driver}"
    assert told(tmp_path, CARD, link if driver else "") == [expected]
    assert told(tmp_path, found=True) == []


def test_what_is_no_gpu(tmp_path: Path) -> None:
    sound = CARD.replace("0x030200", "0x040300")
    assert told(tmp_path, sound) == []


def test_device_files_without_a_driver(tmp_path: Path) -> None:
    assert told(tmp_path, "/dev/nvidiactl:\n/dev/nvidia0:") == []
    assert told(tmp_path, "/sys/module/kernel/") == [
        ("warning", "there are device files of NVIDIA's, but its driver is not loaded")
    ]


def test_a_driver_without_a_gpu(tmp_path: Path) -> None:
    assert told(tmp_path, "/sys/module/nvidia/\n/dev/nvidiactl:") == [
        ("info", "NVIDIA's driver is loaded, but no GPU of NVIDIA's is on the PCI bus")
    ]


def test_a_gpu_that_the_bus_does_not_show(tmp_path: Path) -> None:
    hidden = HEALTHY.replace("0x030000", "0x000000")
    assert told(tmp_path, hidden, found=True) == []


def test_a_device_file_that_is_gone_in_this_moment(tmp_path: Path) -> None:
    unpack(HEALTHY, tmp_path)
    assert notes(tmp_path, look_at=lambda _: FileAccess(False), user=USER) == []


def test_no_device_files(tmp_path: Path) -> None:
    loaded = [CARD, "/sys/module/nvidia/\n/dev/nvidiactl:"]
    assert told(tmp_path, *loaded) == [
        ("warning", "NVIDIA's driver is loaded, but there is no /dev/nvidia0")
    ]
    (note,) = notes(tmp_path)
    assert note.hint == "make the device files: sudo nvidia-modprobe -c 0 -u"


@pytest.mark.parametrize(
    "sign",
    [
        CONTAINER,
        "/run/.containerenv:",
        "/run/systemd/container = podman",
        "/proc/1/cgroup = 0::/kubepods/besteffort/pod1",
        "/proc/1/cgroup = 12:devices:/docker/0123abcd",
    ],
)
def test_a_container_without_the_gpu(tmp_path: Path, sign: str) -> None:
    assert told(tmp_path, CARD, "/sys/module/nvidia/", sign) == [
        ("warning", "the host has a GPU of NVIDIA's, but this container was started without it")
    ]
    (note,) = notes(tmp_path)
    assert "--gpus=all" in note.hint


@pytest.mark.parametrize("missing", ["sys/module/nvidia_uvm", "dev/nvidia-uvm"])
@pytest.mark.parametrize("found", [True, False])
def test_without_the_module_uvm(tmp_path: Path, missing: str, found: bool) -> None:
    unpack(HEALTHY, tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    assert told(tmp_path, found=found) == [
        ("warning", "the module nvidia_uvm is not loaded, without which CUDA fails")
    ]
    (note,) = notes(tmp_path)
    assert note.hint.startswith("load it: sudo nvidia-modprobe -u;")
    unpack(CONTAINER, tmp_path)
    assert notes(tmp_path)[0].hint.startswith("load it on the host")


def rights(root: Path, access: FileAccess, *more: str) -> list[Note]:
    for text in (HEALTHY, *more):
        unpack(text, root)

    def look(path: Path) -> FileAccess:
        return access if path.name == "nvidia0" else look_open(path)

    return notes(root, look_at=look, user=USER)


def test_no_member_of_the_group(tmp_path: Path) -> None:
    (note,) = rights(tmp_path, FileAccess(True, False, 0o660, 0, 54321))
    assert note.text == (
        "no permission to use the NVIDIA GPU: /dev/nvidia0 may be opened by group 54321"
    )
    assert "usermod" in note.hint


def test_the_owner_only(tmp_path: Path) -> None:
    (note,) = rights(tmp_path, FileAccess(True, False, 0o600, 0, 0))
    assert note.text.endswith("/dev/nvidia0 may be opened by its owner only")


def test_a_container_that_lost_its_devices(tmp_path: Path) -> None:
    # What happens when systemd reloads and sets the container's device rules anew.
    (note,) = rights(tmp_path, FileAccess(True, False, 0o666), CONTAINER)
    assert note.text.endswith("something forbids to open /dev/nvidia0")
    assert "native.cgroupdriver=cgroupfs" in note.hint


def test_a_security_module(tmp_path: Path) -> None:
    (note,) = rights(tmp_path, FileAccess(True, False, 0o660, 0, 44))
    assert "dmesg" in note.hint


def test_windows_passes_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, WSL) == [
        ("info", "Windows passes no GPU to this Linux: there is no /dev/dxg")
    ]


def test_windows_has_no_driver(tmp_path: Path) -> None:
    assert told(tmp_path, WSL, "/dev/dxg:") == [
        ("info", "Windows has no driver of NVIDIA's that this Linux could use")
    ]
    assert told(tmp_path, found=True) == []
    assert told(tmp_path, "/usr/lib/wsl/lib/libcuda.so.1:") == []


@pytest.mark.parametrize("sign", ["/etc/nv_tegra_release = # R36", "/dev/nvhost-gpu:"])
def test_a_jetson_has_other_files(tmp_path: Path, sign: str) -> None:
    assert told(tmp_path, "/sys/module/nvidia/", sign) == []


def test_hints_of_both_makers(tmp_path: Path) -> None:
    unpack(CARD, tmp_path)
    unpack(CARD.replace("0x10de", "0x1002").replace("01:00", "02:00"), tmp_path)
    assert [note.text for note in hints(Survey(), tmp_path, "linux")] == [
        "the NVIDIA GPU 0000:01:00.0 has no driver",
        "the AMD GPU 0000:02:00.0 has no driver",
    ]
    found = Survey((VendorDevice(source="nvml", index=0, library="CUDA"),))
    assert [note.text for note in hints(found, tmp_path, "linux")] == [
        "the AMD GPU 0000:02:00.0 has no driver"
    ]
    assert hints(Survey(), tmp_path, "darwin") == ()
