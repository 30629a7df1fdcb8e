"""The record of one GPU that a runner can use (``runners-and-scheduling.md`` 1.1). Pure."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

#: Libraries whose devices always have flash attention (2.4).
_FLASH_ALWAYS = frozenset({"cpu", "Metal", "ROCm", "Vulkan"})

_GFX = re.compile(r"gfx([0-9a-f]+)([0-9a-f]{2})")


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU. Memory in bytes. ``name`` is the runner's own, as its log lines have it."""

    #: Number among the usable devices of its library: ``0``, ``1``, …
    id: str
    #: ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal`` or another backend's description.
    library: str
    #: ``CUDA0``, ``ROCm1``, ``Vulkan0``, ``MTL0``.
    name: str
    description: str = ""
    #: What selects this device in a variable such as ``CUDA_VISIBLE_DEVICES`` if there is no
    #: ``uuid``: its number before any filter, or the user's own word for it.
    filter_id: str = ""
    #: ``GPU-…`` or ``MIG-…``; empty when no driver library told.
    uuid: str = ""
    #: Lower case, with four digits for the domain; may be empty.
    pci_id: str = ""
    #: Whether it shares the system's memory.
    integrated: bool = False
    total_memory: int = 0
    free_memory: int = 0
    #: CUDA's compute capability; for ROCm the two parts of the gfx number; (0, 0) when unknown.
    compute: tuple[int, int] = (0, 0)
    #: ``gfx1100``; ROCm only.
    gfx_target: str = ""
    #: Version of the CUDA driver API, (0, 0) when unknown.
    driver: tuple[int, int] = (0, 0)
    #: Branch of NVIDIA's kernel driver, 0 when unknown.
    nvidia_driver: int = 0
    #: Directories of the backend, the one of the variant last.
    library_path: tuple[Path, ...] = ()
    #: Variables that every runner on this device needs besides those that choose it (2.15).
    env: tuple[tuple[str, str], ...] = ()

    @property
    def compute_text(self) -> str:
        """``8.9``, or ``gfx1100`` for ROCm; ``0.0`` and ``gfx000`` when unknown."""
        major, minor = self.compute
        return f"gfx{major:x}{minor:02x}" if self.library == "ROCm" else f"{major}.{minor}"

    @property
    def driver_text(self) -> str:
        return f"{self.driver[0]}.{self.driver[1]}"

    @property
    def flash_attention(self) -> bool:
        """Whether the backend has flash attention on this device (2.4)."""
        if self.library in _FLASH_ALWAYS:
            return True
        if self.library != "CUDA" or self.compute[0] < 6 or self.compute == (7, 2):
            return False
        # An unknown driver is allowed: the compute capability says enough.
        return self.driver[0] <= 0 or self.driver[0] >= 7


def split_gfx(target: str) -> tuple[int, int]:
    """``gfx90a`` -> (9, 10): the last two hexadecimal digits are the minor part (1.1).

    (0, 0) for anything that is no such name.
    """
    match = _GFX.fullmatch(target)
    return (int(match[1], 16), int(match[2], 16)) if match else (0, 0)
