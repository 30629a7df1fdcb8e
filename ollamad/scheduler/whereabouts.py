"""Why a loaded model is not all on GPUs, in a sentence for people. Pure.

The plan says what was meant to be, the runner's log what has become of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ollamad.scheduler.sizing import LaunchPlan


class MemoryUse(Protocol):
    """Bytes that a runner holds: ``total`` of both kinds, ``vram`` on devices, also by their names.

    ``gpu_layers`` of ``total_layers`` are on devices; both are 0 when the runner does not tell.
    """

    @property
    def total(self) -> int: ...
    @property
    def vram(self) -> int: ...
    @property
    def per_device(self) -> Mapping[str, int]: ...
    @property
    def gpu_layers(self) -> int: ...
    @property
    def total_layers(self) -> int: ...


def why_not_on_devices(plan: LaunchPlan, use: MemoryUse) -> str:
    """``""`` for a model that is on devices as a whole."""
    if 0 < use.total <= use.vram:
        return ""
    if use.total_layers <= 0 or not (plan.devices or use.gpu_layers):
        return plan.reason
    names = ", ".join(use.per_device or (device.name for device in plan.devices))
    if use.gpu_layers >= use.total_layers:
        return f"all {use.total_layers} layers on {names}, the rest is in main memory"
    if use.gpu_layers == plan.layers:
        return plan.reason
    if use.gpu_layers == 0:
        found = f"on the CPU: the runner put no layer on {names}"
    else:
        found = f"{use.gpu_layers} of {use.total_layers} layers on {names}"
    return f"{found} (expected: {plan.reason})"
