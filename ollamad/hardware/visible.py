"""Which devices a process sees: what the user chose, and what a runner is told. Pure.

``runners-and-scheduling.md`` 1.5.7 and 1.8. The daemon never hides devices from itself. A runner's
variables replace the user's, so that what is counted within the user's choice has to be turned into
words that mean the same outside of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence

from ollamad.hardware.device import Device
from ollamad.host import unquoted

CUDA = "CUDA_VISIBLE_DEVICES"
ROCR = "ROCR_VISIBLE_DEVICES"
HIP = "HIP_VISIBLE_DEVICES"
ORDINAL = "GPU_DEVICE_ORDINAL"
VULKAN = "GGML_VK_VISIBLE_DEVICES"

#: What users set to choose devices, and to change how they are taken (1.8).
USER_VARIABLES = (CUDA, HIP, ROCR, VULKAN, ORDINAL, "HSA_OVERRIDE_GFX_VERSION")
#: Of these, those that ROCm reads numbers from, in the order in which they count.
_ROCM_NUMBERS = (HIP, ORDINAL, CUDA)


def user_choices(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """The variables by which the user interferes with the finding of devices, and their values."""
    return [(name, value) for name in USER_VARIABLES if (value := _value(environ, name))]


def words(environ: Mapping[str, str], variable: str) -> list[str]:
    """The entries of a list such as ``CUDA_VISIBLE_DEVICES``; none when it is not set."""
    value = _value(environ, variable)
    return [word.strip() for word in value.split(",")] if value else []


def user_word(
    library: str, ordinal: int, environ: Mapping[str, str], platform: str = sys.platform
) -> str:
    """What the user calls the device that a runner sees as number ``ordinal`` (1.5.7).

    ``""`` when the user chose none for this library, or not so many.
    """
    chosen: list[str] = []
    if library == "CUDA":
        chosen = words(environ, CUDA)
    elif library == "Vulkan":
        chosen = words(environ, VULKAN)
    elif library == "ROCm":
        chosen = words(environ, ROCR) if platform == "linux" else []
        chosen = chosen or words(environ, _rocm_numbers(environ))
    return chosen[ordinal] if 0 <= ordinal < len(chosen) else ""


def discovery_environment(
    environ: Mapping[str, str], *, rocm: bool, platform: str = sys.platform
) -> dict[str, str]:
    """Variables for a runner that lists its devices: the user's choice, in the order we count in.

    ``rocm``: it lists AMD's devices and none of NVIDIA's, which go by one of these variables too.
    ROCm's apply one after the other: numbers that the user counted in all devices must be in the
    first of them (1.8).
    """
    changed = _device_order(environ)
    variable = _rocm_numbers(environ)
    if rocm and platform == "linux" and variable and not words(environ, ROCR):
        chosen = words(environ, variable)
        changed[ROCR] = ",".join(chosen)
        changed[variable] = _counted(len(chosen))
    return changed


def runner_environment(
    devices: Sequence[Device], environ: Mapping[str, str], platform: str = sys.platform
) -> dict[str, str]:
    """Variables by which a runner sees ``devices`` in this order, and no others of their library.

    NVIDIA's devices go by UUID where all have one: their numbers depend on who counts.
    ``environ`` is the daemon's own. Nothing for an empty list.
    """
    changed: dict[str, str] = {}
    of = {library: [d for d in devices if d.library == library] for library in _LIBRARIES}
    # In a mixed machine ROCm would read it as well, and take it for its own numbers.
    if of["CUDA"] and len(of["CUDA"]) == len(devices):
        changed |= _device_order(environ)
        changed[CUDA] = _selected(of["CUDA"])
    if of["ROCm"]:
        variable = _rocm_numbers(environ)
        if platform == "linux":
            changed[ROCR] = _selected(of["ROCm"])
            if variable and not words(environ, ROCR):
                changed[variable] = _counted(len(of["ROCm"]))
        else:
            changed[variable or HIP] = _selected(of["ROCm"])
    if of["Vulkan"] and len(devices) == 1:
        changed[VULKAN] = _selected(of["Vulkan"])
    for device in devices:
        changed |= dict(device.env)
    return changed


def conflicts(devices: Sequence[Device]) -> list[str]:
    """Variables for which the devices want different values; the last one's counts (1.8)."""
    wanted: dict[str, str] = {}
    found: list[str] = []
    for device in devices:
        for name, value in device.env:
            if wanted.setdefault(name, value) != value and name not in found:
                found.append(name)
    return found


_LIBRARIES = ("CUDA", "ROCm", "Vulkan")


def _value(environ: Mapping[str, str], name: str) -> str:
    return unquoted(environ.get(name, ""))


def _rocm_numbers(environ: Mapping[str, str]) -> str:
    """The variable that ROCm takes its numbers from, ``""`` for none."""
    for variable in _ROCM_NUMBERS:
        chosen = words(environ, variable)
        if chosen and all(re.fullmatch(r"[0-9]{1,4}", word) for word in chosen):
            return variable
    return ""


def _device_order(environ: Mapping[str, str]) -> dict[str, str]:
    """CUDA counts the fastest device first by default, the driver's tools in the bus's order."""
    return {} if _value(environ, "CUDA_DEVICE_ORDER") else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def _selected(devices: Sequence[Device]) -> str:
    if all(device.uuid for device in devices):
        return ",".join(device.uuid for device in devices)
    return ",".join(device.filter_id or device.id for device in devices)


def _counted(number: int) -> str:
    return ",".join(map(str, range(number)))
