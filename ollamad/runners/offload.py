"""What the devices that a launch was given mean for it: how it reads, what it offloads, what the
runner calls them.

Pure. Spec: runners-and-scheduling 1.8 (numbers behind a filter), 2.3 #12, 2.6, 2.11.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ollamad.hardware.device import Device

MIB = 1 << 20
GIB = 1 << 30

#: What llama.cpp leaves free on each device when it fits layers, in MiB.
FIT_MARGIN = 1024
FIT_TARGET = "LLAMA_ARG_FIT_TARGET"
#: The device for a projector, by its name in ggml.
PROJECTOR_DEVICE = "MTMD_BACKEND_DEVICE"

#: Libraries whose runners see assigned devices only and number them anew.
_RENUMBERED = frozenset({"CUDA", "ROCm"})
#: A backend's own name for a device; others may end in a number as well (RTX 4090).
_NUMBERED = re.compile(r"([A-Za-z]+)[0-9]+")


def minimum_memory(device: Device) -> int:
    """Bytes that a backend takes of a device for itself (1.1)."""
    return (512 if device.library == "Metal" else 457) * MIB


def reads_past_the_cache(devices: Sequence[Device], platform: str) -> bool:
    """Whether weights are read with direct I/O: integrated devices share the page cache's memory
    (2.3 #12)."""
    return platform == "linux" and any(
        device.integrated and device.library.lower() in ("cuda", "rocm") for device in devices
    )


def projector_stays(
    num_gpu: int, layers: int, projector_bytes: int, devices: Sequence[Device]
) -> str:
    """Why a projector is kept in main memory; "" when it goes to a device (2.11).

    ``num_gpu``: layers to offload, -1 when the runner decides; ``layers``: all that there are, the
    output layer included.
    """
    if num_gpu == 0:
        return "cpu-only"
    if 0 < num_gpu < layers:
        return "partial-text-offload"
    needed = projector_bytes + GIB
    return "limited-vram" if any(0 < _usable(d) < needed for d in devices) else ""


def _usable(device: Device) -> int:
    free, total = device.free_memory, device.total_memory
    return total if free == 0 or (free > total > 0) else free


def fit_environment(
    devices: Sequence[Device], inherited: Mapping[str, str], overhead: int
) -> dict[str, str]:
    """How much llama.cpp leaves free on each device when it fits layers (2.11).

    ``overhead``: bytes that the user wants free besides. A user who set the variable knows better.
    llama.cpp adds what the projector takes by itself.
    """
    if not devices or inherited.get(FIT_TARGET, "").strip():
        return {}
    return {FIT_TARGET: str(FIT_MARGIN + -(-overhead // MIB))}


def projector_environment(
    devices: Sequence[Device], inherited: Mapping[str, str], *, has_projector: bool
) -> dict[str, str]:
    """Keeps a projector off devices that the launch was not given.

    ``--device none`` is for the text model only: the projector would go to the first GPU that the
    runner sees, be it one that the user or its driver's age excludes. Where there is none, it
    changes nothing, and so there is no flag for it (8.3: no device is not "CPU only").
    """
    if devices or not has_projector or PROJECTOR_DEVICE in inherited:
        return {}
    return {PROJECTOR_DEVICE: "CPU"}


def backend_directories(devices: Sequence[Device]) -> tuple[str, ...]:
    """The variants' directories that these devices need, without doubles (2.6)."""
    last = [str(device.library_path[-1]) for device in devices if device.library_path]
    return tuple(dict.fromkeys(last))


def names_in_runner(devices: Sequence[Device]) -> dict[str, str]:
    """What the runner calls each device -> its name here.

    A runner that sees its own devices only counts them from 0, in the order of the variable.
    """
    alone = len(devices) == 1
    names = {}
    for position, device in enumerate(devices):
        renumbered = device.library in _RENUMBERED or (alone and device.library == "Vulkan")
        numbered = _NUMBERED.fullmatch(device.name) if renumbered else None
        names[f"{numbered[1]}{position}" if numbered else device.name] = device.name
    return names
