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


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """Libraries that a runner can be started with: its own, or those of one directory (1.2)."""

    #: Base name of the directory, ``""`` for those that the runner has by itself.
    variant: str = ""
    #: The program's directory and that of the variant.
    directories: tuple[Path, ...] = ()
    #: The backend's file, which llama.cpp does not find by itself; None for the runner's own.
    file: Path | None = None
    #: Version of the CUDA runtime in the directory, (0, 0) when unknown.
    runtime: tuple[int, int] = (0, 0)
    #: It drives AMD's devices and none of NVIDIA's.
    rocm_only: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner printed: ``output`` on standard output, ``messages`` on standard error."""

    output: str = ""
    messages: str = ""
    #: Why it did not end as it should, ``""`` when it did.
    error: str = ""


class Pass(msgspec.Struct, frozen=True, kw_only=True):
    """One listing by the runner, with one set of libraries."""

    backend: Backend = Backend()
    devices: tuple[Listed, ...] = ()
    #: What the CUDA backend was compiled for; empty when unknown.
    architectures: frozenset[str] = frozenset()
    #: Variables without which there was no list: every runner on these devices needs them (2.15).
    env: tuple[tuple[str, str], ...] = ()
    #: Why there is no list, ``""`` when there is one.
    error: str = ""
    #: Whether a backend of GPUs spoke, with or without a device.
    has_backend: bool = False
    #: What such a backend found wrong though the list is there and empty, ``""`` for nothing.
    complaint: str = ""


class RunnerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the runner without starting it."""

    #: In words for people: ``the embedded runner (package xllamacpp)``.
    title: str
    #: The server in the package, which is built for GPUs of this very machine or for none.
    embedded: bool = False
    #: ``CUDA``, ``ROCm``, ``Vulkan``, ``Metal``; None when the program does not show.
    libraries: frozenset[str] | None = None
    #: The runner's own libraries, or the directories of them that it was installed with.
    backends: tuple[Backend, ...] = (Backend(),)
    #: gfx targets that its ROCm libraries have kernels for; empty when unknown.
    rocm_targets: frozenset[str] = frozenset()


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A device that one pass found and no rule excluded, before the passes are weighed."""

    device: Device
    backend: Backend
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
