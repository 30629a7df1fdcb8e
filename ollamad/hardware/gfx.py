"""Names of AMD's GPU generations, what overrides them, and which device is which. Pure.

``runners-and-scheduling.md`` 1.7.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ollamad.hardware.vendor import VendorDevice
from ollamad.host import unquoted

OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
#: With one of them set, the backend's order is no longer the physical one.
ORDERING = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")

_NAME = re.compile(r"gfx[0-9a-f]{3,6}")
_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})")


class Override(NamedTuple):
    """What a variable makes of a GPU's generation; ``gfx`` is empty for a value of no meaning."""

    variable: str
    value: str
    gfx: str


class Seen(NamedTuple):
    """A device as a backend lists it; either may be unknown (empty)."""

    pci_id: str = ""
    gfx: str = ""


def gfx_of_version(version: int) -> str:
    """The name for KFD's ``gfx_target_version``: 90012 -> ``gfx90c``; empty when it is none."""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    if not 0 < major < 100 or minor > 15 or stepping > 15:
        return ""
    return f"gfx{major}{minor:x}{stepping:x}"


def gfx_of_override(value: str) -> str:
    """The name for an override's value: ``10.3.0`` -> ``gfx1030``; empty for what is none."""
    if _NAME.fullmatch(value):
        return value
    found = _VERSION.fullmatch(value)
    if not found:
        return ""
    major, minor, stepping = (int(part) for part in found.groups())
    if max(major, minor, stepping) > 15:
        return ""
    return f"gfx{major}{minor:x}{stepping:x}"


def override(environ: Mapping[str, str], node: int | None) -> Override | None:
    """The override that is in force for the GPU with this number of KFD's (None: unknown), if any.

    That of its own number goes before the one for all. ROCm counts KFD's nodes, processors
    included: in a machine with one processor, the first GPU's variable ends in ``_1``.
    """
    own = [] if node is None else [f"{OVERRIDE}_{node}"]
    for variable in (*own, OVERRIDE):
        value = unquoted(environ.get(variable, ""))
        if value:
            return Override(variable, value, gfx_of_override(value))
    return None


def numbered_overrides(environ: Mapping[str, str]) -> list[int]:
    """The numbers for which ``HSA_OVERRIDE_GFX_VERSION_<n>`` is set."""
    numbers = []
    for variable, value in environ.items():
        number = variable.removeprefix(f"{OVERRIDE}_")
        if number != variable and re.fullmatch(r"[0-9]{1,4}", number) and unquoted(value):
            numbers.append(int(number))
    return sorted(numbers)


def reordered(environ: Mapping[str, str]) -> bool:
    """Whether the user's variables may have changed the order of the backend's devices."""
    return any(unquoted(environ.get(name, "")) for name in ORDERING)


def match(
    seen: Sequence[Seen], physical: Sequence[VendorDevice], *, order_kept: bool
) -> list[VendorDevice | None]:
    """Which physical device each one is that a backend lists (1.7 rule 5); None when unclear.

    ``order_kept`` says that the user did not choose devices (see `reordered`). By PCI id first. The
    rest by a gfx name that only one device on each side has, provided that the backend lists no
    more devices than there are; then by position, if both sides have equally many and the gfx names
    do not contradict.
    """
    found: list[VendorDevice | None] = [None] * len(seen)
    left = dict(enumerate(physical))
    by_pci = {device.pci_id: number for number, device in left.items() if device.pci_id}
    for place, device in enumerate(seen):
        number = by_pci.get(device.pci_id.lower(), -1)
        if number in left:
            found[place] = left.pop(number)
    if len(seen) > len(physical):
        return found

    ours = Counter(device.gfx for device in seen)
    theirs = Counter(device.gfx for device in physical)
    by_gfx = {device.gfx: number for number, device in left.items()}
    for place, device in enumerate(seen):
        if found[place] or not device.gfx or ours[device.gfx] > 1 or theirs[device.gfx] > 1:
            continue
        number = by_gfx.get(device.gfx, -1)
        if number in left and _may_be(device, left[number]):
            found[place] = left.pop(number)

    if order_kept and len(seen) == len(physical):
        for place, device in enumerate(seen):
            if not found[place] and place in left and _may_be(device, left[place]):
                found[place] = left.pop(place)
    return found


def _may_be(seen: Seen, device: VendorDevice) -> bool:
    """Whether nothing that both sides know contradicts."""
    return not (
        (seen.pci_id and device.pci_id and seen.pci_id.lower() != device.pci_id)
        or (seen.gfx and device.gfx and seen.gfx != device.gfx)
    )
