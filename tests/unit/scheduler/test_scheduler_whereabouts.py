"""Why a loaded model is not all on GPUs, as ``ps`` tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ollamad.hardware.device import Device
from ollamad.scheduler.options import RunnerOptions
from ollamad.scheduler.sizing import GIB, LaunchPlan, Limits, MemoryReading, plan
from ollamad.scheduler.spec import ModelShape, ModelSpec
from ollamad.scheduler.whereabouts import why_not_on_devices


@dataclass
class Use:
    total: int = 100
    vram: int = 60
    gpu_layers: int = 0
    total_layers: int = 0
    per_device: dict[str, int] = field(default_factory=lambda: {"CUDA0": 60})


def planned(free: float | None, **options: Any) -> LaunchPlan:
    """For a model of 33 layers and 3.3 GiB, on a device with so many GiB free, or none."""
    gpu = Device(
        id="0",
        library="CUDA",
        name="CUDA0",
        total_memory=64 * GIB,
        free_memory=int((free or 0) * GIB),
    )
    shape = ModelShape(weight_bytes=int(3.3 * GIB), kv_heads=(0,) * 32)
    spec = ModelSpec(
        key="m",
        name="m",
        model_path=Path("m"),
        shape=shape,
        options=RunnerOptions(num_ctx=4096, **options),
    )
    devices = () if free is None else (gpu,)
    return plan(spec, MemoryReading(total=64 * GIB, free=60 * GIB, devices=devices), Limits())


ROOMY, TIGHT, NONE = planned(20), planned(3), planned(None)


def test_on_devices_as_a_whole() -> None:
    for launch in (ROOMY, TIGHT, NONE):
        assert why_not_on_devices(launch, Use(vram=100, gpu_layers=33, total_layers=33)) == ""
        assert why_not_on_devices(launch, Use(vram=100)) == ""


def test_as_it_was_planned() -> None:
    assert 0 < TIGHT.layers < TIGHT.all_layers == 33
    as_planned = Use(gpu_layers=TIGHT.layers, total_layers=33)
    assert why_not_on_devices(TIGHT, as_planned) == TIGHT.reason != ""
    # A runner that does not tell is taken to have done what it was told.
    assert why_not_on_devices(TIGHT, Use()) == TIGHT.reason


@pytest.mark.parametrize(
    "use", [Use(vram=0), Use(total=0, vram=0), Use(vram=0, gpu_layers=0, total_layers=30)]
)
def test_without_a_device(use: Use) -> None:
    assert why_not_on_devices(NONE, use) == NONE.reason
    assert NONE.reason == "on the CPU: no GPU was found"
    told = planned(20, num_gpu=0)
    assert why_not_on_devices(told, use) == told.reason
    assert "num_gpu" in told.reason


def test_otherwise_than_it_was_planned() -> None:
    fewer = why_not_on_devices(ROOMY, Use(gpu_layers=20, total_layers=33))
    assert fewer == f"20 of 33 layers on CUDA0 (expected: {ROOMY.reason})"
    none = why_not_on_devices(ROOMY, Use(vram=0, total_layers=33, per_device={}))
    assert none == f"on the CPU: the runner put no layer on CUDA0 (expected: {ROOMY.reason})"


def test_on_a_device_that_nobody_knew_of() -> None:
    told = why_not_on_devices(NONE, Use(gpu_layers=20, total_layers=33))
    assert told == f"20 of 33 layers on CUDA0 (expected: {NONE.reason})"


def test_all_layers_are_not_all_there_is() -> None:
    """Experts, or a projector, that are kept in main memory."""
    use = Use(gpu_layers=33, total_layers=33, per_device={"CUDA0": 40, "CUDA1": 20})
    told = "all 33 layers on CUDA0, CUDA1, the rest is in main memory"
    assert why_not_on_devices(ROOMY, use) == told
