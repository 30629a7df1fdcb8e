"""Flash attention and the cache's type: two settings that depend on each other.

Pure. Spec: runners-and-scheduling 2.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from ollamad.runners.embedded import CACHE_TYPES

Flash = Literal["on", "off", "auto"]

_ALWAYS = frozenset({"cpu", "metal", "rocm", "vulkan"})

#: Types of the cache that need no flash attention.
_PLAIN_TYPES = frozenset({"f32", "f16", "bf16"})


class Device(Protocol):
    """The part of a device's record (1.1) that decides. Unknown numbers are 0 or below."""

    @property
    def library(self) -> str: ...
    @property
    def compute_major(self) -> int: ...
    @property
    def compute_minor(self) -> int: ...
    @property
    def driver_major(self) -> int: ...


def flash_attention(setting: bool | None, devices: Sequence[Device]) -> Flash:
    """The value of ``--flash-attn``. ``setting`` is None when the variable is not set."""
    if setting is not None:
        return "on" if setting else "off"
    return "auto" if all(map(_supports, devices)) else "off"


def _supports(device: Device) -> bool:
    library = device.library.lower()
    if library in _ALWAYS:
        return True
    if library != "cuda" or device.compute_major < 6:
        return False
    if (device.compute_major, device.compute_minor) == (7, 2):
        return False
    # An unknown driver is allowed: the compute capability says enough.
    return device.driver_major <= 0 or device.driver_major >= 7


def cache_type(setting: str, flash: Flash) -> tuple[str, str]:
    """The cache's type for ``OLLAMA_KV_CACHE_TYPE`` and a warning, either ``""`` for none.

    A type that llama.cpp does not know, or that it cannot use without flash attention, would fail
    every load with a text that does not name the setting.
    """
    wanted = setting.strip().lower()
    if not wanted:
        return "", ""
    if wanted not in CACHE_TYPES:
        return "", f"unknown OLLAMA_KV_CACHE_TYPE {wanted!r} is not used"
    if flash == "off" and wanted not in _PLAIN_TYPES:
        return "", f"OLLAMA_KV_CACHE_TYPE {wanted!r} needs flash attention and is not used"
    return wanted, ""
