"""Who is asked about GPUs: nobody on a machine that has no sign of any."""

from __future__ import annotations

from pathlib import Path

import pytest

from ollamad.hardware.sources import sources

NVIDIA = ("nvml", "cuda")


def _machine(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("dev/null", ()),
        ("dev/dri/renderD128", ()),
        ("dev/nvidiactl", NVIDIA),
        ("dev/dxg", NVIDIA),
        ("dev/nvhost-gpu", NVIDIA),
        ("proc/driver/nvidia/version", NVIDIA),
        ("usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1", NVIDIA),
        ("usr/lib/wsl/lib/libcuda.so.1", NVIDIA),
        ("usr/local/nvidia/lib64/libcuda.so.1", NVIDIA),
        ("dev/kfd", ("amd",)),
        ("sys/class/kfd/kfd/topology/nodes/0/properties", ("amd",)),
        ("sys/module/amdgpu/initstate", ("amd",)),
    ],
)
def test_a_file_says_who_may_know_more(
    tmp_path: Path, file: str, expected: tuple[str, ...]
) -> None:
    assert sources({}, _machine(tmp_path, file), system="linux") == expected


def test_several_makers(tmp_path: Path) -> None:
    root = _machine(tmp_path, "dev/nvidia0", "dev/kfd")
    assert sources({}, root, system="linux") == ("nvml", "cuda", "amd")


def test_the_library_path_counts(tmp_path: Path) -> None:
    root = _machine(tmp_path / "root", "dev/null")
    place = _machine(tmp_path / "lib", "libcuda.so.1")
    environ = {"LD_LIBRARY_PATH": f":/nowhere\0:{tmp_path}/none:{place}"}
    assert sources(environ, root, system="linux") == NVIDIA
    environ = {"LD_LIBRARY_PATH": f"{tmp_path}/none:"}
    assert sources(environ, root, system="linux") == ()


def test_other_systems(tmp_path: Path) -> None:
    assert sources({}, tmp_path, system="darwin", machine="arm64") == ("apple",)
    assert sources({}, tmp_path, system="darwin", machine="x86_64") == ()
    assert sources({"WINDIR": str(tmp_path)}, tmp_path, system="win32") == ()
    _machine(tmp_path, "System32/nvml.dll")
    assert sources({"WINDIR": str(tmp_path)}, tmp_path, system="win32") == NVIDIA
