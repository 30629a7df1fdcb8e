"""runners-and-scheduling 1.1, 2.3 #12, 2.6, 2.11 and their cases in 8.3."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ollamad.hardware.device import Device
from ollamad.runners.offload import (
    GIB,
    MIB,
    backend_directories,
    fit_environment,
    minimum_memory,
    names_in_runner,
    projector_stays,
    reads_past_the_cache,
)


def device(name: str = "CUDA0", library: str = "CUDA", **fields: Any) -> Device:
    return Device(id="0", library=library, name=name, **fields)


def sized(total: int, free: int) -> Device:
    return device(total_memory=total * MIB, free_memory=free * MIB)


@pytest.mark.parametrize(
    ("library", "integrated", "platform", "expected"),
    [
        ("CUDA", False, "linux", False),
        ("CUDA", True, "linux", True),
        ("rocm", True, "linux", True),
        ("ROCm", True, "linux", True),
        ("CUDA", True, "darwin", False),
        ("Metal", True, "linux", False),
        ("Vulkan", True, "linux", False),
    ],
)
def test_reading_past_the_cache(
    library: str, integrated: bool, platform: str, expected: bool
) -> None:
    devices = (device(library="Vulkan"), device(library=library, integrated=integrated))
    assert reads_past_the_cache(devices, platform) is expected
    assert not reads_past_the_cache((), platform)


#: A projector of 933 MiB, and a model of 81 layers with the output layer.
@pytest.mark.parametrize(
    ("num_gpu", "devices", "why"),
    [
        (-1, [sized(24 * 1024, 24 * 1024)], ""),
        (-1, [sized(8 * 1024, 7900)], ""),
        (-1, [sized(8 * 1024, 1500)], "limited-vram"),
        (-1, [sized(8 * 1024, 1957)], ""),
        (-1, [sized(8 * 1024, 1956)], "limited-vram"),
        (-1, [sized(24 * 1024, 20 * 1024), sized(8 * 1024, 1500)], "limited-vram"),
        (-1, [sized(1500, 0)], "limited-vram"),
        (-1, [sized(1500, 9000)], "limited-vram"),
        (-1, [sized(8 * 1024, 0)], ""),
        (-1, [sized(0, 0)], ""),
        (-1, [sized(0, 1500)], "limited-vram"),
        (-1, [], ""),
        (0, [], "cpu-only"),
        (0, [sized(24 * 1024, 24 * 1024)], "cpu-only"),
        (10, [sized(24 * 1024, 24 * 1024)], "partial-text-offload"),
        (80, [], "partial-text-offload"),
        (81, [sized(24 * 1024, 24 * 1024)], ""),
        (81, [sized(8 * 1024, 1500)], "limited-vram"),
    ],
)
def test_where_a_projector_goes(num_gpu: int, devices: list[Device], why: str) -> None:
    assert projector_stays(num_gpu, 81, 933 * MIB, devices) == why


@pytest.mark.parametrize(
    ("inherited", "overhead", "expected"),
    [
        ({}, 0, {"LLAMA_ARG_FIT_TARGET": "1024"}),
        ({}, GIB, {"LLAMA_ARG_FIT_TARGET": "2048"}),
        ({}, 1, {"LLAMA_ARG_FIT_TARGET": "1025"}),
        ({"LLAMA_ARG_FIT_TARGET": "256"}, GIB, {}),
        ({"LLAMA_ARG_FIT_TARGET": " "}, 0, {"LLAMA_ARG_FIT_TARGET": "1024"}),
    ],
)
def test_the_fit_target(inherited: dict[str, str], overhead: int, expected: dict[str, str]) -> None:
    assert fit_environment((device(),), inherited, overhead) == expected
    assert fit_environment((), inherited, overhead) == {}


def test_directories_of_the_backends() -> None:
    root, first, second = Path("/lib"), Path("/lib/cuda_v13"), Path("/lib/cuda_v12")
    devices = (
        device(library_path=(root, first)),
        device(library_path=(root, second)),
        device(library_path=(root, first)),
        device(),
    )
    assert backend_directories(devices) == ("/lib/cuda_v13", "/lib/cuda_v12")


@pytest.mark.parametrize(
    ("devices", "names"),
    [
        ([device("CUDA1")], {"CUDA0": "CUDA1"}),
        ([device("CUDA2"), device("CUDA0")], {"CUDA0": "CUDA2", "CUDA1": "CUDA0"}),
        ([device("ROCm10", "ROCm")], {"ROCm0": "ROCm10"}),
        ([device("Vulkan1", "Vulkan")], {"Vulkan0": "Vulkan1"}),
        (
            [device("Vulkan2", "Vulkan"), device("Vulkan1", "Vulkan")],
            {"Vulkan2": "Vulkan2", "Vulkan1": "Vulkan1"},
        ),
        ([device("MTL0", "Metal")], {"MTL0": "MTL0"}),
        ([device("SYCL1", "Intel Arc")], {"SYCL1": "SYCL1"}),
        ([device("NVIDIA GeForce", "CUDA")], {"NVIDIA GeForce": "NVIDIA GeForce"}),
        ([device("NVIDIA RTX 4090", "CUDA")], {"NVIDIA RTX 4090": "NVIDIA RTX 4090"}),
        ([], {}),
    ],
)
def test_what_the_runner_calls_its_devices(devices: list[Device], names: dict[str, str]) -> None:
    assert names_in_runner(devices) == names


def test_what_a_backend_takes_for_itself() -> None:
    taken = [minimum_memory(device(library=library)) for library in ("Metal", "CUDA", "ROCm")]
    assert taken == [512 * MIB, 457 * MIB, 457 * MIB]
