"""AMD's GPUs as AMD's management library knows them, through ``pyrsmi`` (an optional package).

``runners-and-scheduling.md`` 1.12. It adds to what `ollamad.hardware.amd` reads from files: proper
names, and memory where the files say nothing. Its calls return -1 or an empty text where they fail;
with the library alone (without AMD's own Python package) they all fail for handles of more than 32
bits, which ``pyrsmi`` 1.1 cuts.

Only `ollamad.hardware.survey`, a process of its own, imports this.
"""

from __future__ import annotations

import logging
from typing import Any

from pyrsmi import rocml

from ollamad.hardware.vendor import MOST_DEVICES, Note, Survey, VendorDevice, plain_text


def devices() -> Survey:
    """Every device that the library lists, in its order. May hang and crash; raises nothing."""
    # It logs each fact that it cannot find out, as errors of the program's own.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        rocml.smi_initialize()
    except Exception as error:  # noqa: BLE001 - it has no common class, and bare RuntimeErrors
        text = f"AMD's management library cannot be used: {plain_text(str(error), 200)}"
        return Survey((), (Note("info", text, "the kernel's files tell the most of it"),))
    try:
        count = min(rocml.smi_get_device_count(), MOST_DEVICES)
        return Survey(tuple(_device(index) for index in range(max(count, 0))))
    finally:
        rocml.smi_shutdown()


def bus_address(number: Any) -> str:
    """``0000:03:00.0`` for the library's number of a PCI address; empty for -1 and other nonsense.

    The domain is in the upper half, or right above the bus: that depends on how it was asked.
    """
    if not isinstance(number, int) or not 0 <= number < 1 << 48:
        return ""
    domain = number >> 32 or number >> 16
    return f"{domain:04x}:{number >> 8 & 0xFF:02x}:{number >> 3 & 0x1F:02x}.{number & 7}"


def _device(index: int) -> VendorDevice:
    total = _bytes(rocml.smi_get_device_memory_total(index))
    used = _bytes(rocml.smi_get_device_memory_used(index))
    return VendorDevice(
        source="rsmi",
        index=index,
        library="ROCm",
        name=plain_text(str(rocml.smi_get_device_name(index) or ""), 128),
        pci_id=bus_address(rocml.smi_get_device_pci_id(index)),
        total=total or 0,
        free=total - used if total is not None and used is not None else 0,
    )


def _bytes(answer: Any) -> int | None:
    return answer if isinstance(answer, int) and answer >= 0 else None
