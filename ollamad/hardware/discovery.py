"""What the machine has to run models on, and the lines of the log that say so. Pure.

``runners-and-scheduling.md`` 1.13.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ollamad.hardware.device import Device
from ollamad.hardware.memory import SystemMemory
from ollamad.hardware.vendor import Note
from ollamad.units import human_gib


@dataclass(frozen=True, slots=True)
class Hardware:
    """Memory and devices at one moment; without devices models run on the processor.

    ``notes``: why a GPU is not used, or not as it could be.
    """

    memory: SystemMemory
    devices: tuple[Device, ...] = ()
    notes: tuple[Note, ...] = ()


def why_no_device(hardware: Hardware) -> str:
    """In one line, for somebody who wants a GPU and gets none."""
    notes = sorted(hardware.notes, key=lambda note: note.level != "warning")
    if not notes:
        return "no GPU was found"
    return "; ".join(f"{note.text} ({note.hint})" if note.hint else note.text for note in notes[:2])


def log_fields(hardware: Hardware) -> Iterator[dict[str, Any]]:
    """Fields of one ``inference compute`` line for each device, or of one for the processor.

    Discrete devices come first, among equals the one with more free memory.
    """
    for device in sorted(hardware.devices, key=lambda d: (d.integrated, -d.free_memory)):
        yield {
            "id": device.id,
            "filter_id": device.filter_id,
            "library": device.library,
            "compute": device.compute_text,
            "name": device.name,
            "description": device.description,
            "libdirs": ",".join(path.name for path in device.library_path),
            "driver": device.driver_text,
            "pci_id": device.pci_id,
            "type": "iGPU" if device.integrated else "discrete",
            "total": human_gib(device.total_memory),
            "available": human_gib(device.free_memory),
        }
    if not hardware.devices:
        yield {
            "id": "cpu",
            "library": "cpu",
            "compute": "",
            "name": "cpu",
            "description": "cpu",
            "libdirs": "ollama",
            "driver": "",
            "pci_id": "",
            "type": "",
            "total": human_gib(hardware.memory.total),
            "available": human_gib(hardware.memory.free),
        }
