"""The records that the finding of devices works on. Pure.

``runners-and-scheduling.md`` 1.2 to 1.5.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ollamad.hardware.device import Device
from ollamad.hardware.listing import Listed
from ollamad.hardware.vendor import Note, VendorDevice


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The user's settings that decide which devices are used."""

    environ: Mapping[str, str] = {}
    #: ``OLLAMA_LLM_LIBRARY``, ``""`` when unset.
    llm_library: str = ""
    vulkan: bool = True
    #: ``OLLAMA_IGPU_ENABLE``: None when unset.
    igpu_enable: bool | None = None
    platform: str = sys.platform
    #: Apple's own processor, whose GPU always shares memory.
    apple_silicon: bool = False

    @property
    def cpu_only(self) -> bool:
        """Whether the user asks for a library of the processor (1.2)."""
        return self.llm_library.lower().startswith("cpu")


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """One listing by the runner, with the backends of one directory."""

    #: Base name of the directory, ``""`` for those that the runner has by itself.
    variant: str = ""
    #: The program's directory and that of the variant.
    directories: tuple[Path, ...] = ()
    devices: tuple[Listed, ...] = ()
    #: What the CUDA backend was compiled for; empty when unknown.
    architectures: frozenset[str] = frozenset()
    #: Version of the CUDA runtime in the directory, (0, 0) when unknown.
    runtime: tuple[int, int] = (0, 0)
    #: Why there is no list, ``""`` when there is one.
    error: str = ""


class RunnerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the runner without starting it."""

    #: In words for people: ``the embedded runner (package xllamacpp)``.
    title: str
    #: ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal``; None when the program does not show.
    libraries: frozenset[str] | None = None
    #: gfx targets that its ROCm libraries have kernels for; empty when unknown.
    rocm_targets: frozenset[str] = frozenset()


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A device that one pass found and no rule excluded, before the passes are weighed."""

    device: Device
    variant: str
    #: Its number among the devices of its library that the runner saw.
    ordinal: int
    #: What the makers' libraries know about it.
    vendor: VendorDevice | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What to use, and what there is to say about the rest."""

    devices: tuple[Device, ...] = ()
    notes: tuple[Note, ...] = ()
    #: Of each device in the same order.
    vendors: tuple[VendorDevice | None, ...] = ()
