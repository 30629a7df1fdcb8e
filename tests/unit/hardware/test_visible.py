"""Variables that choose devices, runners-and-scheduling.md 1.5.7, 1.8 and the cases of 8.2."""

from typing import Any

import pytest

from ollamad.hardware.device import Device
from ollamad.hardware.visible import (
    conflicts,
    discovery_environment,
    runner_environment,
    user_choices,
    user_word,
)

ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def device(library: str, filter_id: str, number: str = "0", **more: Any) -> Device:
    return Device(
        id=number, library=library, name=f"{library}{number}", filter_id=filter_id, **more
    )


@pytest.mark.parametrize(
    ("environ", "library", "ordinal", "word"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, "CUDA", 0, "1"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "ROCm", 0, "1"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "Vulkan", 0, ""),
        ({"CUDA_VISIBLE_DEVICES": " 3 , 4 "}, "CUDA", 1, "4"),
        ({"CUDA_VISIBLE_DEVICES": "'3,4'"}, "CUDA", 0, "3"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "CUDA", 0, "-1"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, "ROCm", 0, ""),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "CUDA", 1, ""),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, "CUDA", 1, "GPU-b"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, "ROCm", 1, ""),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, "ROCm", 1, "0"),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, "CUDA", 1, ""),
        ({"GPU_DEVICE_ORDINAL": "5", "CUDA_VISIBLE_DEVICES": "1"}, "ROCm", 0, "5"),
        ({"HIP_VISIBLE_DEVICES": "x", "CUDA_VISIBLE_DEVICES": "1"}, "ROCm", 0, "1"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-x", "HIP_VISIBLE_DEVICES": "0"}, "ROCm", 0, "GPU-x"),
        ({"GGML_VK_VISIBLE_DEVICES": "1"}, "Vulkan", 0, "1"),
        ({}, "CUDA", 3, ""),
        ({}, "Metal", 0, ""),
    ],
)
def test_the_users_words(environ: dict[str, str], library: str, ordinal: int, word: str) -> None:
    assert user_word(library, ordinal, environ, "linux") == word


def test_rocr_is_of_linux_only() -> None:
    environ = {"ROCR_VISIBLE_DEVICES": "4", "HIP_VISIBLE_DEVICES": "2"}
    assert user_word("ROCm", 0, environ, "linux") == "4"
    assert user_word("ROCm", 0, environ, "win32") == "2"


@pytest.mark.parametrize(
    ("environ", "changed"),
    [
        ({}, {}),
        (
            {"HIP_VISIBLE_DEVICES": "2"},
            {"ROCR_VISIBLE_DEVICES": "2", "HIP_VISIBLE_DEVICES": "0"},
        ),
        ({"GPU_DEVICE_ORDINAL": "3"}, {"ROCR_VISIBLE_DEVICES": "3", "GPU_DEVICE_ORDINAL": "0"}),
        (
            {"CUDA_VISIBLE_DEVICES": "2,0"},
            {"ROCR_VISIBLE_DEVICES": "2,0", "CUDA_VISIBLE_DEVICES": "0,1"},
        ),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, {}),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a"}, {}),
    ],
)
def test_rocm_is_asked_with_the_users_choice(
    environ: dict[str, str], changed: dict[str, str]
) -> None:
    assert discovery_environment(environ, rocm=True, platform="linux") == ORDER | changed
    assert discovery_environment(environ, rocm=False, platform="linux") == ORDER
    assert discovery_environment(environ, rocm=True, platform="win32") == ORDER


def test_the_users_own_order_stays() -> None:
    environ = {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
    assert discovery_environment(environ, rocm=False, platform="linux") == {}
    assert runner_environment([device("CUDA", "1")], environ, "linux") == {
        "CUDA_VISIBLE_DEVICES": "1"
    }


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([device("CUDA", "", "3")], {"CUDA_VISIBLE_DEVICES": "3"}),
        ([device("CUDA", "3"), device("CUDA", "4")], {"CUDA_VISIBLE_DEVICES": "3,4"}),
        ([device("CUDA", "0"), device("CUDA", "2", "1")], {"CUDA_VISIBLE_DEVICES": "0,2"}),
        (
            [device("CUDA", "1", uuid="GPU-b"), device("CUDA", "0", uuid="GPU-a")],
            {"CUDA_VISIBLE_DEVICES": "GPU-b,GPU-a"},
        ),
        (
            [device("CUDA", "1", uuid="GPU-b"), device("CUDA", "0")],
            {"CUDA_VISIBLE_DEVICES": "1,0"},
        ),
        ([device("Vulkan", "1")], {"GGML_VK_VISIBLE_DEVICES": "1"}),
        ([device("Vulkan", "0"), device("Vulkan", "1")], {}),
        ([device("ROCm", "1"), device("ROCm", "0")], {"ROCR_VISIBLE_DEVICES": "1,0"}),
        ([device("CUDA", "0"), device("ROCm", "1")], {"ROCR_VISIBLE_DEVICES": "1"}),
        ([device("Metal", "0")], {}),
        ([device("Mystery", "0")], {}),
        ([], {}),
    ],
)
def test_what_a_runner_sees(devices: list[Device], expected: dict[str, str]) -> None:
    cuda = ORDER if "CUDA_VISIBLE_DEVICES" in expected else {}
    assert runner_environment(devices, {}, "linux") == expected | cuda


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        (
            {"HIP_VISIBLE_DEVICES": "2,1"},
            "linux",
            {"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "0,1"},
        ),
        (
            {"CUDA_VISIBLE_DEVICES": "2,1"},
            "linux",
            {"ROCR_VISIBLE_DEVICES": "2,1", "CUDA_VISIBLE_DEVICES": "0,1"},
        ),
        (
            {"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1"},
            "linux",
            {"ROCR_VISIBLE_DEVICES": "2,1"},
        ),
        ({}, "win32", {"HIP_VISIBLE_DEVICES": "2,1"}),
        ({"GPU_DEVICE_ORDINAL": "7"}, "win32", {"GPU_DEVICE_ORDINAL": "2,1"}),
    ],
)
def test_rocm_counts_within_what_it_was_given(
    environ: dict[str, str], platform: str, expected: dict[str, str]
) -> None:
    devices = [device("ROCm", "2"), device("ROCm", "1", "1")]
    assert runner_environment(devices, environ, platform) == expected


def test_what_devices_need_besides() -> None:
    one = device("Metal", "0", env=(("A", "1"), ("B", "x")))
    other = device("Metal", "1", env=(("A", "2"), ("B", "x")))
    assert runner_environment([one, other], {}, "darwin") == {"A": "2", "B": "x"}
    assert conflicts([one, other]) == ["A"]
    assert conflicts([one]) == []


def test_how_the_user_interferes() -> None:
    environ = {"HSA_OVERRIDE_GFX_VERSION": "10.3.0", "CUDA_VISIBLE_DEVICES": " '' ", "PATH": "/x"}
    assert user_choices(environ) == [("HSA_OVERRIDE_GFX_VERSION", "10.3.0")]
