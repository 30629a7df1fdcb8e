"""Which records of two sources are the same GPU. Pure.

``runners-and-scheduling.md`` 1.6 and 1.12: a runner tells no PCI ids, a driver's library knows
nothing of what the user hid, and each has its own order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ollamad.hardware import gfx, visible
from ollamad.hardware.device import Device
from ollamad.hardware.listing import Listed
from ollamad.hardware.vendor import VendorDevice

_MOST_APART = 512 << 20


def similar_names(one: str, other: str) -> bool:
    """Whether two descriptions may be of one GPU: ``RX 6400`` and ``RX 6400 (RADV NAVI24)``."""
    plain = _plain_name(one)
    return bool(plain) and plain == _plain_name(other)


def similar_memory(one: int, other: int) -> bool:
    """Whether two totals (bytes) may be of one GPU: drivers keep some of it for themselves."""
    if one <= 0 or other <= 0:
        return False
    return abs(one - other) <= max(max(one, other) // 20, _MOST_APART)


def same_gpu(one: Device, other: Device) -> bool:
    """Whether two records stand for one GPU, be it through two libraries (1.6)."""
    if one.uuid and other.uuid and one.library == other.library:
        # Instances of a partitioned GPU share its PCI id.
        return one.uuid == other.uuid
    if one.pci_id and other.pci_id:
        return one.pci_id == other.pci_id
    if one.library != other.library:
        return (
            "Vulkan" in (one.library, other.library)
            and not {one.library, other.library}.isdisjoint({"CUDA", "ROCm"})
            and similar_names(one.description, other.description)
            and similar_memory(one.total_memory, other.total_memory)
        )
    return one.pci_id == other.pci_id and one.id == other.id


def seen_by_cuda(devices: Sequence[VendorDevice], environ: Mapping[str, str]) -> list[VendorDevice]:
    """NVIDIA's devices that a process with ``environ`` sees, in its order.

    What CUDA does with ``CUDA_VISIBLE_DEVICES``: numbers, beginnings of UUIDs, up to the first word
    that names nothing. A number means the first instance of a partitioned GPU.
    """
    numbered: dict[int, VendorDevice] = {}
    for device in sorted(devices, key=lambda d: d.index):
        numbered.setdefault(device.index, device)
    if visible.CUDA not in environ:
        return list(numbered.values())
    seen: list[VendorDevice] = []
    for word in visible.words(environ, visible.CUDA):
        found = [d for d in devices if _is_uuid(word) and d.uuid.startswith(word)]
        if re.fullmatch(r"[0-9]{1,4}", word) and int(word) in numbered:
            found = [numbered[int(word)]]
        if len(found) != 1 or found[0] in seen:
            break
        seen.append(found[0])
    return seen


def matched(
    listed: Sequence[Listed], devices: Sequence[VendorDevice], environ: Mapping[str, str]
) -> dict[str, VendorDevice]:
    """What is known about each listed device, by its name; one that is unclear is left out."""
    found: dict[str, VendorDevice] = {}
    nvidia = [device for device in devices if device.library == "CUDA"]
    amd = [device for device in devices if device.library == "ROCm"]
    cuda = [device for device in listed if device.library == "CUDA"]
    found |= _by_place(cuda, seen_by_cuda(nvidia, environ))
    rocm = [device for device in listed if device.library == "ROCm"]
    # Processes see AMD's devices by the kernel's numbers, unless the user chose some.
    order_kept = not gfx.reordered(environ)
    seen = [gfx.Seen(gfx=device.gfx) for device in rocm]
    for device, vendor in zip(rocm, gfx.match(seen, amd, order_kept=order_kept), strict=True):
        if vendor is not None:
            found[device.name] = vendor
    metal = [device for device in listed if device.library == "Metal"]
    apple = [device for device in devices if device.library == "Metal"]
    if len(metal) == len(apple) == 1:
        found[metal[0].name] = apple[0]
    found |= _by_looks([device for device in listed if device.library == "Vulkan"], devices)
    return found


def _by_place(listed: Sequence[Listed], seen: Sequence[VendorDevice]) -> dict[str, VendorDevice]:
    """By the number where nothing contradicts, else by name and memory: orders may differ."""
    found: dict[str, VendorDevice] = {}
    left = list(seen)
    for device in listed:
        here = seen[device.ordinal] if device.ordinal < len(seen) else None
        if here in left and here is not None and _alike(device, here):
            found[device.name] = here
            left.remove(here)
    for device in listed:
        alike = [other for other in left if _alike(device, other)]
        if device.name not in found and alike:
            found[device.name] = alike[0]
            left.remove(alike[0])
    alone = len(listed) == len(seen) == 1 and not found
    # One on each side: drivers may name it differently, but not give it other memory.
    if alone and (not seen[0].total or similar_memory(listed[0].total, seen[0].total)):
        found[listed[0].name] = seen[0]
    return found


def _by_looks(listed: Sequence[Listed], devices: Sequence[VendorDevice]) -> dict[str, VendorDevice]:
    """For a library with an order of its own: name and memory, as many alike on either side."""
    found: dict[str, VendorDevice] = {}
    for device in listed:
        alike = [other for other in devices if not other.mig and _alike(device, other)]
        twins = [other for other in listed if similar_names(other.description, device.description)]
        # Among equal ones any is right as long as none is taken twice.
        if alike and len(alike) >= len(twins):
            place = twins.index(device)
            found[device.name] = alike[place]
    return found


def _alike(listed: Listed, device: VendorDevice) -> bool:
    return similar_names(listed.description, device.name) and (
        not device.total or similar_memory(listed.total, device.total)
    )


def _is_uuid(word: str) -> bool:
    return word.startswith(("GPU-", "MIG-"))


def _plain_name(text: str) -> str:
    outside = re.sub(r"\([^()]*\)", " ", text.lower())
    words = re.sub(r"[^a-z0-9]", " ", outside).split()
    # NVIDIA's libraries name the maker or do not, by their age.
    return " ".join(words[1:] if words[:1] == ["nvidia"] and len(words) > 1 else words)
