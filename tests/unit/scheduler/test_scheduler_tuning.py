"""Batch, mapping and flash attention by the devices: runners-and-scheduling 2.4, 4.6 and 8.7."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ollamad.hardware.device import Device
from ollamad.scheduler.placement import Placement
from ollamad.scheduler.tuning import (
    GIB,
    MIB,
    automatic_batch,
    automatic_mmap,
    cache_type,
    flash_attention,
)


def device(library: str = "CUDA", gib: int = 24, **changes: Any) -> Device:
    size = gib * GIB
    return Device(
        id="0", library=library, name="GPU0", total_memory=size, free_memory=size, **changes
    )


@pytest.mark.parametrize(
    ("context", "predicted", "available", "batch"),
    [
        (4096, 0, 0, 512),
        (4097, 0, 0, 1024),
        (32768, 0, 0, 1024),
        (32769, 0, 0, 2048),
        (131072, 8 * GIB, 14 * GIB, 2048),
        (131072, 9 * GIB, 14 * GIB, 1024),
        (131072, 8 * GIB, 11 * GIB, 1024),
        (32768, 8500 * MIB, 11 * GIB, 512),
    ],
)
def test_automatic_batch(context: int, predicted: int, available: int, batch: int) -> None:
    assert automatic_batch(context, predicted, available) == batch


@pytest.mark.parametrize(
    ("devices", "context", "batch"),
    [
        ([device(gib=14)], 131072, 512),
        ([device(gib=6)], 32768, 256),
        ([device(gib=8)], 32768, 256),
        ([device(gib=6)], 4096, 512),
        ([device("ROCm", 6)], 32768, 1024),
        ([], 32768, 1024),
        # One small card among large ones; a card that does not tell what is free.
        ([device(), device(gib=8)], 4097, 256),
        ([msgspec.structs.replace(device(gib=8), free_memory=0)], 4097, 256),
        ([msgspec.structs.replace(device(gib=0), free_memory=0)], 4097, 512),
    ],
)
def test_a_batch_without_flash_attention(devices: list[Device], context: int, batch: int) -> None:
    assert automatic_batch(context, flash="off", devices=devices) == batch
    assert automatic_batch(4097, flash="auto", devices=devices) == 1024


NEW: dict[str, Any] = {"compute": (8, 9), "driver": (12, 8)}


@pytest.mark.parametrize(
    ("setting", "devices", "flash"),
    [
        (True, [device()], "on"),
        (False, [], "off"),
        (None, [], "auto"),
        (None, [device(**NEW)], "auto"),
        (None, [device(**NEW), device(compute=(5, 2))], "off"),
        (None, [device("ROCm"), device("Vulkan"), device("Metal")], "auto"),
        (None, [device("SYCL")], "off"),
    ],
)
def test_flash_attention(setting: bool | None, devices: list[Device], flash: str) -> None:
    assert flash_attention(setting, devices) == flash


def test_a_cache_that_needs_flash_attention() -> None:
    assert cache_type("q8_0", "off") == ""
    assert cache_type("Q8_0", "auto") == "Q8_0"
    assert cache_type("BF16", "off") == "BF16"


def placed(*devices: Device, **changes: Any) -> Placement:
    facts = {"num_gpu": -1, "all_layers": 21, "available": 80, "fits": True, "wanted": 30}
    return Placement(devices=devices, reason="", **{**facts, **changes})


@pytest.mark.parametrize(
    ("placement", "platform", "rule"),
    [
        (placed(device(), num_gpu=0), "linux", "cpu"),
        (placed(), "linux", "cpu"),
        (placed(device()), "win32", "windows_cuda"),
        (placed(device("ROCm")), "win32", ""),
        (placed(device("Metal"), num_gpu=10), "darwin", "metal_partial_offload"),
        (placed(device("Metal"), num_gpu=21), "darwin", ""),
        (placed(device("Metal"), wanted=90), "darwin", "metal_partial_offload"),
        (placed(device("Metal")), "darwin", ""),
        (placed(device()), "linux", ""),
    ],
)
def test_mapping(placement: Placement, platform: str, rule: str) -> None:
    got = automatic_mmap(placement, platform=platform, file_bytes=GIB, system_free=64 * GIB)
    assert got == (False if rule else None, rule)


@pytest.mark.parametrize(
    ("changes", "platform", "rule"),
    [
        ({}, "linux", "host_pressure"),
        ({}, "darwin", ""),
        ({"devices": (device(integrated=True),)}, "linux", ""),
        ({"fits": False}, "linux", ""),
    ],
)
def test_mapping_under_pressure(changes: dict[str, Any], platform: str, rule: str) -> None:
    placement = msgspec.structs.replace(placed(device()), **changes)

    def choice(**memory: int) -> str:
        facts = {
            "file_bytes": 20 * GIB,
            "mapped_by_others": 25 * GIB,
            "system_free": 50 * GIB,
            "system_total": 100 * GIB,
        }
        return automatic_mmap(placement, platform=platform, **{**facts, **memory})[1]

    assert choice() == rule
    assert choice(system_free=55 * GIB) == ""
    assert choice(system_free=0) == "", "unknown"
    # Of an unknown total eight are kept free.
    assert choice(system_total=0, system_free=53 * GIB) == ""
    assert choice(system_total=0, system_free=53 * GIB - 1) == rule
