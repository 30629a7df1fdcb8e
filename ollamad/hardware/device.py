"""The record of one GPU that a runner can use (``runners-and-scheduling.md`` 1.1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU. Memory in bytes. ``name`` is the runner's own, as its log lines have it."""

    id: str
    #: ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal`` or another backend's description.
    library: str
    name: str
    description: str = ""
    #: What selects this device in a variable such as ``CUDA_VISIBLE_DEVICES``.
    filter_id: str = ""
    #: Lower case, with four digits for the domain; may be empty.
    pci_id: str = ""
    #: Whether it shares the system's memory.
    integrated: bool = False
    total_memory: int = 0
    free_memory: int = 0
    #: Two numbers as a dotted version or, for ROCm, a gfx name; empty when unknown.
    compute: str = ""
    driver: str = ""
    #: Directories of the backend, the one of the variant last.
    library_path: tuple[Path, ...] = ()
