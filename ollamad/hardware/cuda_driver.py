"""NVIDIA's GPUs as the CUDA driver knows them (``runners-and-scheduling.md`` 1.12).

It says what NVML cannot (whether a GPU shares the system's memory, which ordinal CUDA gives it) and
stands in for NVML where that is missing. Free memory is not among its facts: asking would take a
context, and that takes some hundred MiB of the GPU.

Only `ollamad.hardware.survey`, a process of its own, imports this.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

from ollamad.hardware.memory import SystemMemory, system_memory
from ollamad.hardware.vendor import Note, Survey, VendorDevice, pci_id, plain_text

_INTEGRATED = 18
_COMPUTE_MAJOR = 75
_COMPUTE_MINOR = 76

_NO_DEVICE = 100

#: Text and hint by CUDA's error code.
_TROUBLES = {
    2: ("CUDA is out of memory before it has begun", "end other programs that use the GPU"),
    34: ("the CUDA driver is only a stub", "take the CUDA toolkit's `stubs` off the library path"),
    46: ("the GPU is in use by a program that shares it with nobody", "see `nvidia-smi`"),
    802: ("the machine's NVSwitch fabric is not ready", "start `nvidia-fabricmanager`"),
    803: (
        "the CUDA driver and NVIDIA's kernel driver have different versions",
        "restart the machine (or the container)",
    ),
    804: (
        "the CUDA compatibility package does not work with this GPU",
        "remove it, or update NVIDIA's driver",
    ),
    999: (
        "the CUDA driver does not start (unknown error)",
        "is the uvm module loaded? `sudo nvidia-modprobe -u`, or reload it: "
        "`sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm`",
    ),
}


class CudaError(Exception):
    """``code`` is a CUresult, ``call`` the function that returned it."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with error {code}")
        self.code = code


class CudaDriver:
    """``libcuda``. ``expected``: the machine shows signs of an NVIDIA GPU. No method raises."""

    def __init__(
        self,
        *,
        expected: bool = True,
        memory_of_system: Callable[[], SystemMemory] = system_memory,
    ) -> None:
        self._expected = expected
        self._memory_of_system = memory_of_system

    def survey(self) -> Survey:
        """Every device in CUDA's order; a discrete one's memory counts as free."""
        level: Any = "warning" if self._expected else "info"
        try:
            library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        except OSError:
            hint = (
                "install NVIDIA's driver with its CUDA part; in a container, start it with the "
                "driver capability `compute`"
            )
            return Survey(notes=(Note(level, "the CUDA driver library is not installed", hint),))
        try:
            return self._devices(library)
        except CudaError as error:
            if error.code == _NO_DEVICE:
                hint = "see `nvidia-smi`; in a container, start it with `--gpus all`"
                return Survey(notes=(Note(level, "the CUDA driver finds no GPU", hint),))
            text, hint = _TROUBLES.get(
                error.code, (f"the CUDA driver does not work: {error}", "see `nvidia-smi`")
            )
            return Survey(notes=(Note(level, text, hint),))

    def memory(self) -> Survey:
        """As `survey`: only integrated devices have news."""
        return self.survey()

    def _devices(self, library: Any) -> Survey:
        _call(library, "cuInit", 0)
        version = _driver_version(library)
        count = ctypes.c_int()
        _call(library, "cuDeviceGetCount", ctypes.byref(count))
        devices: list[VendorDevice] = []
        notes: list[Note] = []
        for ordinal in range(min(count.value, 256)):
            try:
                devices.append(self._device(library, ordinal, version))
            except CudaError as error:
                notes.append(Note("warning", f"CUDA device {ordinal} does not answer: {error}"))
        return Survey(tuple(devices), tuple(notes))

    def _device(self, library: Any, ordinal: int, version: tuple[int, int]) -> VendorDevice:
        handle = ctypes.c_int()
        _call(library, "cuDeviceGet", ctypes.byref(handle), ordinal)
        name = ctypes.create_string_buffer(256)
        _tried(library, "cuDeviceGetName", name, ctypes.c_int(255), handle)
        pci = ctypes.create_string_buffer(32)
        _tried(library, "cuDeviceGetPCIBusId", pci, ctypes.c_int(31), handle)
        size = ctypes.c_size_t()
        _tried(library, "cuDeviceTotalMem_v2", ctypes.byref(size), handle)
        integrated = _attribute(library, handle, _INTEGRATED)
        total = free = size.value
        if integrated:
            free = self._memory_of_system().free
            free = min(free, total) if total else 0
        return VendorDevice(
            source="cuda",
            index=ordinal,
            cuda_ordinal=ordinal,
            library="CUDA",
            name=plain_text(name.value),
            uuid=_uuid(library, handle),
            pci_id=pci_id(plain_text(pci.value)),
            total=total,
            free=free,
            integrated=None if integrated is None else integrated != 0,
            compute=(
                _attribute(library, handle, _COMPUTE_MAJOR) or 0,
                _attribute(library, handle, _COMPUTE_MINOR) or 0,
            ),
            driver=version,
        )


def _driver_version(library: Any) -> tuple[int, int]:
    version = ctypes.c_int()
    _tried(library, "cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def _uuid(library: Any, handle: ctypes.c_int) -> str:
    """``GPU-…``; empty when unknown. The second version tells instances of a GPU apart."""
    raw = (ctypes.c_ubyte * 16)()
    for name in ("cuDeviceGetUuid_v2", "cuDeviceGetUuid"):
        if _tried(library, name, ctypes.byref(raw), handle):
            digits = bytes(raw).hex()
            parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
            return f"GPU-{'-'.join(parts)}"
    return ""


def _attribute(library: Any, handle: ctypes.c_int, number: int) -> int | None:
    value = ctypes.c_int()
    asked = _tried(
        library, "cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(number), handle
    )
    return value.value if asked else None


def _tried(library: Any, name: str, *arguments: Any) -> bool:
    """Whether the call succeeded: a fact that the driver cannot tell is worth no device."""
    try:
        _call(library, name, *arguments)
    except CudaError:
        return False
    return True


def _call(library: Any, name: str, *arguments: Any) -> None:
    try:
        function = getattr(library, name)
    except AttributeError:
        # CUDA_ERROR_NOT_FOUND: what the driver itself says of a function that it has not.
        raise CudaError(name, 500) from None
    code = function(*arguments)
    if code != 0:
        raise CudaError(name, code)
