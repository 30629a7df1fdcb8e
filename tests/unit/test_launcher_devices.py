"""From devices and options to the command line and environment of a runner: the rows of 8.3 that
have a device, and 2.11."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from ollamad.hardware.device import Device
from ollamad.launcher import LaunchFacts, launch_of
from ollamad.runners.address import TcpAddress
from ollamad.runners.command import Launch, flags
from ollamad.scheduler.options import Auto, RunnerOptions
from ollamad.scheduler.sizing import GIB, MIB, Limits, MemoryReading, plan
from ollamad.scheduler.spec import ModelShape, ModelSpec

ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
FIT = {"LLAMA_ARG_FIT_TARGET": "1024"}


def gpu(index: int = 0, library: str = "CUDA", free: int = 23592, **fields: Any) -> Device:
    name = {"Metal": "MTL"}.get(library, library)
    return Device(
        id=str(index),
        library=library,
        name=f"{name}{index}",
        filter_id=str(index),
        total_memory=max(free, 24564) * MIB,
        free_memory=free * MIB,
        **fields,
    )


def modern(index: int = 0, **fields: Any) -> Device:
    return gpu(index, compute=(8, 9), driver=(13, 0), **fields)


def launched(
    *devices: Device,
    environ: dict[str, str] | None = None,
    overhead: int = 0,
    projector: int | None = None,
    limits: dict[str, Any] | None = None,
    platform: str = "linux",
    blocks: int = 30,
    **options: Any,
) -> Launch:
    """A small model (30 blocks, 8192 tokens at most) on those devices."""
    wanted = ModelSpec(
        key="m",
        name="m",
        model_path=Path("/blob"),
        shape=ModelShape(
            arch="llama",
            weight_bytes=90 * MIB,
            train_context=8192,
            kv_heads=(3,) * blocks,
            key_length=64,
            value_length=64,
        ),
        projectors=() if projector is None else (Path("/p"),),
        options=RunnerOptions(num_ctx=4096, draft_num_predict=0, **options),
        auto=Auto(num_ctx=True, num_batch="num_batch" not in options, use_mmap=True),
    )
    reading = MemoryReading(total=64 * GIB, free=60 * GIB, devices=devices)
    return launch_of(
        wanted,
        plan(wanted, reading, Limits(platform=platform, **(limits or {}))),
        LaunchFacts(model_bytes=1, offloadable_layers=blocks + 1, projector_bytes=projector or 0),
        environ=environ,
        overhead=overhead,
        platform=platform,
    )


def line(launch: Launch) -> str:
    return shlex.join(flags(launch, TcpAddress("127.0.0.1", 1)))


def test_one_device_of_unknown_capability() -> None:
    launch = launched(gpu())
    text = line(launch)
    for absent in ("--split-mode", "--load-mode", "-ngl", "--fit", "--tensor-split"):
        assert absent not in text
    assert "--flash-attn off -b 512 -ub 512 --context-shift" in text
    assert launch.environment == {"CUDA_VISIBLE_DEVICES": "0", **ORDER, **FIT}


def test_two_devices_and_a_small_model() -> None:
    launch = launched(modern(0), modern(1))
    assert "--split-mode none --main-gpu 0" in line(launch)
    assert len(launch.devices) == 1
    chosen = launch.devices[0].id
    assert launch.environment == {"CUDA_VISIBLE_DEVICES": chosen, **ORDER, **FIT}


def test_two_devices_with_spread() -> None:
    launch = launched(modern(0), modern(1), limits={"spread": True})
    assert "main-gpu" not in line(launch)
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_devices_go_by_their_uuid_where_they_have_one() -> None:
    both = (modern(0, uuid="GPU-a"), modern(1, uuid="GPU-b"))
    launch = launched(*both, limits={"spread": True})
    assert launch.environment["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


@pytest.mark.parametrize(
    ("device", "flash", "environment"),
    [
        (gpu(library="Vulkan"), "auto", {"GGML_VK_VISIBLE_DEVICES": "0"}),
        (gpu(library="Intel Arc"), "off", {}),
        (gpu(library="ROCm"), "auto", {"ROCR_VISIBLE_DEVICES": "0"}),
        (gpu(library="Metal", integrated=True), "auto", {}),
        (modern(), "auto", {"CUDA_VISIBLE_DEVICES": "0", **ORDER}),
        (gpu(compute=(5, 2)), "off", {"CUDA_VISIBLE_DEVICES": "0", **ORDER}),
        (gpu(env=(("GGML_METAL_TENSOR_DISABLE", "1"),), library="Metal"), "auto",
         {"GGML_METAL_TENSOR_DISABLE": "1"}),
    ],
)  # fmt: skip
def test_one_device_of_each_library(
    device: Device, flash: str, environment: dict[str, str]
) -> None:
    launch = launched(device)
    assert f"--flash-attn {flash}" in line(launch)
    assert launch.environment == {**environment, **FIT}


@pytest.mark.parametrize(
    ("device", "options", "part"),
    [
        (modern(), {"use_mmap": True}, ""),
        (modern(), {"use_mmap": False}, "--load-mode none"),
        (modern(integrated=True), {}, "--load-mode dio"),
        (modern(integrated=True), {"use_mmap": False}, "--load-mode dio"),
        (gpu(library="ROCm", integrated=True), {}, "--load-mode dio"),
        (gpu(library="Metal", integrated=True), {}, ""),
    ],
)
def test_how_weights_are_read(device: Device, options: dict[str, Any], part: str) -> None:
    text = line(launched(device, **options))
    assert part in text
    assert ("--load-mode" in text) == bool(part)


@pytest.mark.parametrize(
    ("num_gpu", "part"), [(0, "-ngl 0"), (5, "-ngl 5"), (99, "-ngl"), (-1, "")]
)
def test_layers(num_gpu: int, part: str) -> None:
    launch = launched(modern(), num_gpu=num_gpu)
    text = line(launch)
    assert part in text
    assert ("-ngl" in text) == bool(part)
    # Only where the runner chooses does it fit, and need to know how much to leave free.
    assert ("--fit off" in text) == (num_gpu >= 0)
    assert ("LLAMA_ARG_FIT_TARGET" in launch.environment) == (num_gpu < 0)


def test_no_layers_at_all_is_like_no_device() -> None:
    launch = launched(modern(), num_gpu=0)
    assert "--load-mode none --flash-attn auto" in line(launch)
    assert (launch.devices, launch.environment) == ((), {})


@pytest.mark.parametrize(
    ("main_gpu", "part"),
    [(0, "--split-mode none --main-gpu 0"), (1, "--split-mode none --main-gpu 1"), (None, "")],
)
def test_a_main_device_without_any_device(main_gpu: int | None, part: str) -> None:
    launch = launched(main_gpu=main_gpu)
    text = line(launch)
    assert part in text
    assert ("main-gpu" in text) == bool(part)
    assert launch.environment == {}


def test_the_main_device_that_the_user_names() -> None:
    launch = launched(modern(0), modern(1), main_gpu=1)
    assert "--split-mode none --main-gpu 0" in line(launch)
    assert [device.id for device in launch.devices] == ["1"]


@pytest.mark.parametrize(
    ("device", "wanted", "part"),
    [
        (modern(), "q8_0", "--cache-type-k q8_0 --cache-type-v q8_0 --flash-attn auto"),
        (gpu(compute=(5, 2)), "q8_0", ""),
        (gpu(compute=(5, 2)), "bf16", "--cache-type-k bf16 --cache-type-v bf16 --flash-attn off"),
    ],
)
def test_the_type_of_the_cache_by_the_device(device: Device, wanted: str, part: str) -> None:
    text = line(launched(device, limits={"kv_cache_type": wanted}))
    assert part in text
    assert ("cache-type" in text) == bool(part)


@pytest.mark.parametrize(
    ("devices", "num_gpu", "offloaded"),
    [
        ([modern(free=24564)], -1, True),
        ([modern(free=7900)], -1, True),
        ([modern(free=1500)], -1, False),
        ([modern()], 0, False),
        ([modern()], 10, False),
        ([modern()], 81, True),
        ([], -1, True),
        ([], 0, False),
    ],
)
def test_a_projector_of_933_mib(devices: list[Device], num_gpu: int, offloaded: bool) -> None:
    launch = launched(*devices, projector=933 * MIB, blocks=80, num_gpu=num_gpu)
    text = line(launch)
    assert "--mmproj /p" in text
    assert ("--no-mmproj-offload" in text) is not offloaded


@pytest.mark.parametrize(
    ("environ", "overhead", "expected"),
    [
        ({}, 0, "1024"),
        ({}, 512 * MIB, "1536"),
        ({"LLAMA_ARG_FIT_TARGET": "256"}, 512 * MIB, None),
    ],
)
def test_the_fit_target(environ: dict[str, str], overhead: int, expected: str | None) -> None:
    """With a projector as without: llama.cpp adds what that takes by itself."""
    for projector in (None, MIB // 2):
        launch = launched(modern(), environ=environ, overhead=overhead, projector=projector)
        assert launch.environment.get("LLAMA_ARG_FIT_TARGET") == expected
    assert launched(environ=environ, overhead=overhead).environment == {}


def test_a_projector_goes_to_no_device_that_the_model_was_not_given() -> None:
    """A runner may see devices that are not used: old, integrated, or not wanted."""
    assert launched(projector=MIB).environment == {"MTMD_BACKEND_DEVICE": "CPU"}
    assert launched(modern(), projector=MIB, num_gpu=0).environment == {
        "MTMD_BACKEND_DEVICE": "CPU"
    }
    assert "MTMD_BACKEND_DEVICE" not in launched(modern(), projector=MIB).environment
    told = {"MTMD_BACKEND_DEVICE": "CUDA0"}
    assert launched(projector=MIB, environ=told).environment == {}
    assert launched().environment == {}


def test_layers_that_are_divided_by_us() -> None:
    launch = launched(modern(0), modern(1, free=10000), num_gpu=20, limits={"spread": True})
    assert launch.tensor_split
    parts = ",".join(map(str, launch.tensor_split))
    assert f"--tensor-split {parts}" in line(launch)


def test_directories_of_the_backend() -> None:
    device = modern(library_path=(Path("/lib"), Path("/lib/cuda_v13")))
    assert launched(device).backend_dirs == ("/lib/cuda_v13",)
