"""What a launch is told that follows from where the model goes: batch, mapping, flash attention.

Contract: ``runners-and-scheduling.md`` 2.4 and 4.6 (automatic batch, mmap), 8.7 (cases). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from ollamad.hardware.device import Device
from ollamad.scheduler.placement import SHARE, Placement

MIB = 1 << 20
GIB = 1 << 30

#: Extra bytes that a larger batch's compute buffers take, and the share of the available memory
#: that the model may fill for that batch to be chosen (4.6).
_BATCH_SURCHARGE = {2048: 2 * GIB, 1024: 768 * MIB, 512: 0}
_BATCH_SHARE = {2048: 60, 1024: 75, 512: 80}
#: CUDA devices with no more memory than this get a smaller batch without flash attention.
_SMALL_CUDA = 8 * GIB
#: Types of the cache that need no flash attention.
_PLAIN_CACHES = frozenset({"", "f32", "f16", "bf16"})
#: Main memory that is kept free of models' files, at least, and the part of all memory.
_MAPPING_RESERVE = 8 * GIB
_MAPPING_RESERVE_PART = 10


def flash_attention(setting: bool | None, devices: Sequence[Device]) -> str:
    """``on``, ``off`` or ``auto``; ``setting`` is None when the user did not say (2.4)."""
    if setting is not None:
        return "on" if setting else "off"
    return "auto" if all(device.flash_attention for device in devices) else "off"


def cache_type(wanted: str, flash: str) -> str:
    """The type of the KV cache: one that needs flash attention only where there is any (2.4)."""
    return "" if flash == "off" and wanted.lower() not in _PLAIN_CACHES else wanted


def automatic_batch(
    context: int,
    predicted: int = 0,
    available: int = 0,
    *,
    flash: str = "auto",
    devices: Sequence[Device] = (),
) -> int:
    """The batch of a completion model when nobody set one (4.6). 0 bytes: unknown, so it fits.

    ``predicted`` and ``available`` are about the memory of ``devices``.
    """
    cuda = [device for device in devices if device.library == "CUDA"]
    if flash == "off" and cuda:
        small = context > 4096 and any(0 < _usable(device) <= _SMALL_CUDA for device in cuda)
        return 256 if small else 512
    batch = 2048 if context > 32768 else 1024 if context > 4096 else 512
    if predicted <= 0 or available <= 0:
        return batch
    while batch > 512:
        room = available * SHARE // 100 - predicted
        within_share = predicted <= available * _BATCH_SHARE[batch] // 100
        if within_share and 0 <= _BATCH_SURCHARGE[batch] <= room:
            break
        batch //= 2
    return batch


def _usable(device: Device) -> int:
    if device.free_memory <= 0:
        return device.total_memory
    return min(device.free_memory, device.total_memory or device.free_memory)


def automatic_mmap(
    placement: Placement,
    *,
    platform: str,
    file_bytes: int,
    mapped_by_others: int = 0,
    system_free: int = 0,
    system_total: int = 0,
) -> tuple[bool | None, str]:
    """Whether to map the weights when nobody says, and the rule that decided (4.6).

    False: do not. None and ``""``: the runner's own default, which is to map. ``file_bytes``: of
    this model, ``mapped_by_others`` of the models that are mapped now; 0 for unknown memory.
    """
    devices = placement.devices
    # Without a device nothing is gained: repacked weights are copied anyway.
    if not devices or placement.num_gpu == 0:
        return False, "cpu"
    libraries = {device.library for device in devices}
    if platform == "win32" and "CUDA" in libraries:
        return False, "windows_cuda"
    partial = 0 < placement.num_gpu < placement.all_layers
    does_not_fit = placement.num_gpu < 0 and placement.wanted > placement.available
    if "Metal" in libraries and (partial or does_not_fit):
        return False, "metal_partial_offload"
    discrete = not any(device.integrated for device in devices)
    if platform == "linux" and discrete and placement.fits and system_free > 0:
        part = system_total // _MAPPING_RESERVE_PART
        reserve = max(_MAPPING_RESERVE, part)
        if system_free < file_bytes + mapped_by_others + reserve:
            return False, "host_pressure"
    return None, ""
