"""What the makers' libraries and files tell about GPUs, and how far it is believed.

``runners-and-scheduling.md`` 1.1 and 1.12. The records travel as JSON from the process that loads
the libraries to the daemon. `checked` stands between the two: libraries lie (more memory free than
there is, names that are no text), and what a crashing one leaves behind is not to be trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

#: No device has more memory than this (bytes); a larger figure is a mistake.
MOST_MEMORY = 1 << 46
#: More devices than any machine has, the parts of partitioned ones included.
MOST_DEVICES = 256
_LONGEST_TEXT = 400
#: Sources that know more about devices of another one.
_ADDS_TO = {"cuda": "nvml", "rsmi": "amd"}

_PCI = re.compile(r"([0-9a-f]{1,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_UUID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_/.-]{0,127}")
_GFX = re.compile(r"gfx[0-9a-f]{3,6}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,32}")


class VendorDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as a source knows it. Memory in bytes, 0 when unknown."""

    #: Who told: ``nvml``, ``cuda``, ``amd``, ``apple``, …
    source: str
    #: Place in the physical order of the source. The instances of a partitioned GPU share it.
    index: int
    #: The backend that can use it: ``CUDA``, ``ROCm``, ``Metal``.
    library: str
    name: str = ""
    #: ``GPU-…`` or ``MIG-…`` with NVIDIA; may be empty.
    uuid: str = ""
    #: ``0000:01:00.0``: lower case, four digits for the domain; may be empty.
    pci_id: str = ""
    total: int = 0
    free: int = 0
    #: Whether it shares the system's memory; None when the source cannot tell.
    integrated: bool | None = None
    #: CUDA compute capability; (0, 0) when unknown.
    compute: tuple[int, int] = (0, 0)
    #: ``gfx1100``; AMD only.
    gfx: str = ""
    #: Version of the driver's programming interface (CUDA 12.8); (0, 0) when unknown.
    driver: tuple[int, int] = (0, 0)
    #: Branch of NVIDIA's kernel driver (570); 0 when unknown.
    nvidia_driver: int = 0
    #: An instance of a partitioned NVIDIA GPU.
    mig: bool = False
    #: The ordinal of an unfiltered CUDA program, which by default counts the fastest GPU first, not
    #: in PCI order; -1 when unknown.
    cuda_ordinal: int = -1
    #: Bytes by process id, of those processes that the driver names.
    used_by: dict[int, int] = {}


class Note(msgspec.Struct, frozen=True):
    """Why something is missing or not used, and what its owner can do."""

    level: Literal["info", "warning"]
    text: str
    hint: str = ""


class Survey(msgspec.Struct, frozen=True):
    """What was found, and what there is to say about the rest."""

    devices: tuple[VendorDevice, ...] = ()
    notes: tuple[Note, ...] = ()


def pci_id(text: str) -> str:
    """``0000:01:00.0`` of any spelling, such as NVML's eight digits; empty for anything else."""
    found = _PCI.fullmatch(text.strip().lower())
    if not found:
        return ""
    domain, bus, slot, function = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{slot}.{function}"


def plain_text(value: str | bytes, longest: int = _LONGEST_TEXT) -> str:
    """One line of printable text: what is none becomes a blank or ``�``."""
    if isinstance(value, bytes):
        value = value.partition(b"\0")[0].decode("utf-8", "replace")
    printable = (c if c.isprintable() else " " for c in value[: 4 * longest])
    return " ".join("".join(printable).split())[:longest]


def checked(survey: Survey) -> Survey:
    """``survey`` with every figure and text within its bounds, and notes of what was not."""
    devices = []
    notes = [
        Note(note.level, plain_text(note.text), plain_text(note.hint)) for note in survey.notes
    ]
    for device in survey.devices[:MOST_DEVICES]:
        sound, complaint = _checked_device(device)
        devices.append(sound)
        if complaint:
            notes.append(
                Note(
                    "warning",
                    f"the driver's figures for {sound.name or sound.library} cannot be right: "
                    f"{complaint}",
                    "update the GPU's driver",
                )
            )
    if len(survey.devices) > MOST_DEVICES:
        notes.append(
            Note("warning", f"{len(survey.devices)} GPUs reported, {MOST_DEVICES} are used")
        )
    return Survey(tuple(devices), tuple(notes))


def combined(surveys: Iterable[Survey]) -> Survey:
    """All that the sources found, each GPU once.

    What ``cuda`` knows completes a device of ``nvml``, and what ``rsmi`` knows one of ``amd``, with
    the same PCI id (or the only one of each). Devices of ``cuda`` and ``rsmi`` stand for themselves
    only where the others found none.
    """
    all_devices: list[VendorDevice] = []
    notes: list[Note] = []
    for survey in surveys:
        all_devices += survey.devices
        notes += survey.notes
    devices = []
    for device in all_devices:
        if main := _ADDS_TO.get(device.source):
            if not any(other.source == main for other in all_devices):
                devices.append(device)
            continue
        adding = [other for other in all_devices if _ADDS_TO.get(other.source) == device.source]
        same = [other for other in adding if other.pci_id and other.pci_id == device.pci_id]
        physical = {other.index for other in all_devices if other.source == device.source}
        if not same and not device.pci_id and len(adding) == len(physical) == 1:
            same = adding
        devices.append(_completed(device, same[0]) if same else device)
    return Survey(tuple(devices), tuple(dict.fromkeys(notes)))


def _completed(device: VendorDevice, other: VendorDevice) -> VendorDevice:
    return replace(
        device,
        # Without a name for it, the files say ``AMD GPU 744c``.
        name=device.name if device.name[:8] not in ("", "AMD GPU ") else other.name or device.name,
        # CUDA tells a GPU's own, which is none of its instances'.
        uuid=device.uuid or ("" if device.mig else other.uuid),
        integrated=device.integrated if other.integrated is None else other.integrated,
        compute=device.compute if device.compute != (0, 0) else other.compute,
        driver=device.driver if device.driver != (0, 0) else other.driver,
        total=device.total or other.total,
        free=device.free if device.total else other.free,
        cuda_ordinal=other.cuda_ordinal,
    )


def _checked_device(device: VendorDevice) -> tuple[VendorDevice, str]:
    total, free, complaint = device.total, device.free, ""
    if not 0 <= total <= MOST_MEMORY:
        complaint = f"{total} bytes of memory"
        total = free = 0
    elif total == 0:
        # Without a total there is nothing to hold the free part against.
        free = 0
    elif not 0 <= free <= total:
        complaint = f"{free} bytes free of {total}"
        free = min(max(free, 0), total)
    used_by = {
        pid: held for pid, held in device.used_by.items() if pid > 0 and 0 <= held <= MOST_MEMORY
    }
    return VendorDevice(
        source=_matching(_WORD, device.source),
        index=device.index if 0 <= device.index < MOST_DEVICES else 0,
        library=_matching(_WORD, device.library),
        name=plain_text(device.name, 128),
        # It ends up in a variable with commas between: nothing else may be in it.
        uuid=_matching(_UUID, device.uuid),
        pci_id=pci_id(device.pci_id),
        total=total,
        free=free,
        integrated=device.integrated,
        compute=_version(device.compute),
        gfx=_matching(_GFX, device.gfx),
        driver=_version(device.driver),
        nvidia_driver=device.nvidia_driver if 0 <= device.nvidia_driver < 100_000 else 0,
        mig=device.mig,
        cuda_ordinal=device.cuda_ordinal if 0 <= device.cuda_ordinal < MOST_DEVICES else -1,
        used_by=used_by,
    ), complaint


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


def _version(pair: tuple[int, int]) -> tuple[int, int]:
    return pair if all(0 <= part < 10_000 for part in pair) else (0, 0)
