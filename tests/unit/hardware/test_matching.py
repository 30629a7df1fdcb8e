"""Which records are one GPU, runners-and-scheduling.md 1.6, 1.12 and the cases of 8.2."""

from typing import Any

import pytest

from ollamad.hardware.device import Device
from ollamad.hardware.listing import Listed, library_of
from ollamad.hardware.matching import (
    matched,
    same_gpu,
    seen_by_cuda,
    similar_memory,
    similar_names,
)
from ollamad.hardware.vendor import VendorDevice

MIB = 1 << 20
GIB = 1 << 30


def listed(name: str, description: str, mib: int = 16380, **more: Any) -> Listed:
    return Listed(
        name=name,
        description=description,
        library=library_of(name, description),
        ordinal=int(name[-1]),
        total=mib * MIB,
        free=mib * MIB,
        **more,
    )


def nvidia(index: int, name: str, mib: int = 16380, uuid: str = "", **more: Any) -> VendorDevice:
    return VendorDevice(
        source="nvml",
        index=index,
        library="CUDA",
        name=name,
        uuid=uuid or f"GPU-{index}abc",
        pci_id=f"0000:0{index}:00.0",
        total=mib * MIB,
        free=mib * MIB,
        **more,
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("AMD Radeon RX 6400", "AMD Radeon RX 6400 (RADV NAVI24)", True),
        ("NVIDIA GeForce RTX 4060 Ti", "nvidia geforce  rtx-4060 ti", True),
        ("NVIDIA GeForce RTX 4060 Ti", "GeForce RTX 4060 Ti", True),
        ("NVIDIA GeForce RTX 4060 Ti", "Intel(R) UHD Graphics 770", False),
        ("AMD Radeon RX 6400", "AMD Radeon RX 6500", False),
        ("", "", False),
        ("(x)", "(y)", False),
        ("NVIDIA", "NVIDIA", True),
    ],
)
def test_similar_names(one: str, other: str, expected: bool) -> None:
    assert similar_names(one, other) is expected
    assert similar_names(other, one) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (16 * GIB, 16107 * MIB, True),
        (4 * GIB, 4 * GIB - 512 * MIB, True),
        (4 * GIB, 4 * GIB - 513 * MIB, False),
        (100 * GIB, 95 * GIB, True),
        (100 * GIB, 94 * GIB, False),
        (0, 100, False),
        (0, 0, False),
    ],
)
def test_similar_memory(one: int, other: int, expected: bool) -> None:
    assert similar_memory(one, other) is expected
    assert similar_memory(other, one) is expected


def device(library: str, description: str, mib: int, number: str = "0", **more: Any) -> Device:
    return Device(
        id=number,
        library=library,
        name=f"{library}{number}",
        description=description,
        total_memory=mib * MIB,
        **more,
    )


TI = "NVIDIA GeForce RTX 4060 Ti"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            device("CUDA", TI, 16384, pci_id="0000:01:00.0"),
            device("Vulkan", TI, 16107),
            True,
        ),
        (
            device("ROCm", "AMD Radeon RX 6400", 4096),
            device("Vulkan", "AMD Radeon RX 6400 (RADV NAVI24)", 4096),
            True,
        ),
        (device("CUDA", TI, 16384), device("Vulkan", "Intel UHD 770", 16384), False),
        (device("CUDA", TI, 16384), device("ROCm", TI, 16384), False),
        (device("CUDA", TI, 16384), device("Mystery", TI, 16384), False),
        (
            device("CUDA", TI, 16384, pci_id="0000:01:00.0"),
            device("Vulkan", "another name", 1, pci_id="0000:01:00.0"),
            True,
        ),
        (
            device("CUDA", TI, 16384, pci_id="0000:01:00.0"),
            device("Vulkan", TI, 16384, pci_id="0000:02:00.0"),
            False,
        ),
        (
            device("CUDA", TI, 16384, pci_id="0000:01:00.0", uuid="MIG-a"),
            device("CUDA", TI, 16384, "1", pci_id="0000:01:00.0", uuid="MIG-b"),
            False,
        ),
        (device("CUDA", TI, 16384), device("CUDA", TI, 16384, "1"), False),
        (device("CUDA", TI, 16384), device("CUDA", "x", 1), True),
        (device("CUDA", TI, 16384, pci_id="0000:01:00.0"), device("CUDA", TI, 16384), False),
    ],
)
def test_the_same_gpu(one: Device, other: Device, expected: bool) -> None:
    assert same_gpu(one, other) is expected
    assert same_gpu(other, one) is expected


GPUS = [nvidia(1, "B"), nvidia(0, "A"), nvidia(2, "C", uuid="GPU-2xyz")]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, "ABC"),
        ("", ""),
        ("-1", ""),
        ("1", "B"),
        (" 2 , 0", "CA"),
        ("0,7,1", "A"),
        ("1,1,0", "B"),
        ("GPU-1", "B"),
        ("GPU-2xyz,0", "CA"),
        ("GPU-", ""),
        ("MIG-nothing,0", ""),
        ("none", ""),
    ],
)
def test_what_cuda_sees(value: str | None, names: str) -> None:
    environ = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    assert "".join(d.name for d in seen_by_cuda(GPUS, environ)) == names


def test_a_process_sees_one_instance_of_a_partitioned_gpu() -> None:
    parts = [nvidia(0, "part", uuid=f"MIG-{i}", mig=True) for i in "ab"] + [nvidia(1, "whole")]
    assert [d.uuid for d in seen_by_cuda(parts, {})] == ["MIG-a", "GPU-1abc"]
    assert [d.uuid for d in seen_by_cuda(parts, {"CUDA_VISIBLE_DEVICES": "MIG-b"})] == ["MIG-b"]


def names(found: dict[str, VendorDevice]) -> dict[str, int]:
    return {name: device.index for name, device in found.items()}


def test_nvidia_devices_go_by_number() -> None:
    twins = [nvidia(0, TI), nvidia(1, TI)]
    lines = [listed("CUDA0", TI), listed("CUDA1", TI)]
    assert names(matched(lines, twins, {})) == {"CUDA0": 0, "CUDA1": 1}
    environ = {"CUDA_VISIBLE_DEVICES": "1"}
    assert names(matched(lines[:1], twins, environ)) == {"CUDA0": 1}


def test_another_order_shows_in_names_and_memory() -> None:
    gpus = [nvidia(0, "NVIDIA T4"), nvidia(1, "NVIDIA H100", 81559)]
    lines = [listed("CUDA0", "NVIDIA H100", 81000), listed("CUDA1", "T4")]
    assert names(matched(lines, gpus, {})) == {"CUDA0": 1, "CUDA1": 0}


def test_what_contradicts_is_no_match() -> None:
    assert matched([listed("CUDA0", "NVIDIA H100", 81000)], [nvidia(0, "NVIDIA T4")], {}) == {}
    # One on each side and as much memory: drivers differ in names.
    assert names(matched([listed("CUDA0", "Tesla T4")], [nvidia(0, "NVIDIA T4")], {})) == {
        "CUDA0": 0
    }


def test_a_vulkan_device_goes_by_looks() -> None:
    """8.2: llama-server lists [Intel, NVIDIA], the driver's library knows NVIDIA alone."""
    lines = [listed("Vulkan0", "Intel(R) UHD 770"), listed("Vulkan1", TI)]
    assert names(matched(lines, [nvidia(0, TI)], {})) == {"Vulkan1": 0}
    twins = [listed("Vulkan0", TI), listed("Vulkan1", TI)]
    assert names(matched(twins, [nvidia(0, TI), nvidia(1, TI)], {})) == {
        "Vulkan0": 0,
        "Vulkan1": 1,
    }
    assert matched(twins, [nvidia(0, TI)], {}) == {}


def test_amd_devices_go_by_target_and_by_number() -> None:
    gpus = [
        VendorDevice(source="amd", index=0, library="ROCm", gfx="gfx1100"),
        VendorDevice(source="amd", index=1, library="ROCm", gfx="gfx1036"),
    ]
    lines = [listed("ROCm0", "AMD", gfx="gfx1036"), listed("ROCm1", "AMD", gfx="gfx1100")]
    assert names(matched(lines, gpus, {})) == {"ROCm0": 1, "ROCm1": 0}
    silent = [listed("ROCm0", "AMD"), listed("ROCm1", "AMD")]
    assert names(matched(silent, gpus, {})) == {"ROCm0": 0, "ROCm1": 1}
    assert matched(silent, gpus, {"HIP_VISIBLE_DEVICES": "1,0"}) == {}


def test_apple_has_one() -> None:
    apple = VendorDevice(source="apple", index=0, library="Metal", name="Apple M3")
    assert names(matched([listed("MTL0", "Apple M3 Max")], [apple], {})) == {"MTL0": 0}
