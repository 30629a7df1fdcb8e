"""Devices and notes as the API shows them. Pure."""

from __future__ import annotations

from ollamad.hardware.device import Device
from ollamad.hardware.vendor import Note
from ollamad.wire import DeviceStatus, NoteStatus


def device_status(device: Device) -> DeviceStatus:
    """What is unknown is ``""``."""
    known = device.compute != (0, 0)
    return DeviceStatus(
        id=device.id,
        library=device.library,
        name=device.name,
        description=device.description,
        compute=device.compute_text if known else "",
        driver=device.driver_text if device.driver != (0, 0) else "",
        pci_id=device.pci_id,
        uuid=device.uuid,
        type="integrated" if device.integrated else "discrete",
        total=device.total_memory,
        free=device.free_memory,
    )


def note_status(note: Note) -> NoteStatus:
    return NoteStatus(level=note.level, text=note.text, hint=note.hint)
