"""What the machine offers: memory, processors and (in time) GPUs."""

from __future__ import annotations

from ollamad.hardware.device import Device
from ollamad.hardware.discovery import Hardware, discover
from ollamad.hardware.memory import SystemMemory, system_memory

__all__ = ["Device", "Hardware", "SystemMemory", "discover", "system_memory"]
