"""NVIDIA's GPUs as NVML knows them (``runners-and-scheduling.md`` 1.12).

Only `ollamad.hardware.survey`, a process of its own, imports this: NVML hangs and aborts with a
driver that is ill. It lists devices in PCI order and knows nothing of ``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pynvml
from msgspec.structs import replace

from ollamad.hardware.memory import SystemMemory, system_memory
from ollamad.hardware.vendor import Note, Survey, VendorDevice, pci_id, plain_text

_T = TypeVar("_T")

_CONTAINER = (
    "in a container, start it with the NVIDIA Container Toolkit (`--gpus all`) and the driver "
    "capabilities `compute,utility`; `nvidia-smi` must work there"
)

#: What to say of errors that keep all GPUs away: text and hint by NVML's error code.
_TROUBLES = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "NVIDIA's management library (NVML) is not installed",
        f"install the driver's user-space part; {_CONTAINER}",
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "NVIDIA's kernel driver is not loaded",
        f"see `nvidia-smi` and `sudo modprobe nvidia`; {_CONTAINER}",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "NVIDIA's driver may not be used by this user",
        "check who may read and write /dev/nvidia* (`ls -l`, groups `video` and `render`); with "
        "SELinux, `sudo setsebool container_use_devices=1` lets containers use devices",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "NVIDIA's library and its kernel driver have different versions",
        "the driver was updated while it ran: restart the machine (or the container)",
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "NVIDIA's management library (NVML) lacks functions",
        "update NVIDIA's driver",
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "an NVIDIA GPU has fallen off the bus",
        "see the kernel's log for `NVRM: Xid`, and restart the machine",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        "an NVIDIA GPU needs a reset",
        "run `sudo nvidia-smi --gpu-reset` or restart the machine",
    ),
}

#: Errors that leave a GPU usable though its memory cannot be told.
_NOT_TOLD = (pynvml.NVMLError_NoPermission, pynvml.NVMLError_FunctionNotFound)


@dataclass(frozen=True, slots=True)
class _Known:
    """A device, with NVML's handle: what does not change is asked once."""

    handle: Any
    device: VendorDevice


class Nvml:
    """NVML between the calls. ``expected``: the machine shows signs of an NVIDIA GPU.

    Without them it is no news that the library finds none. ``memory_of_system`` is asked on boards
    whose GPU has no memory of its own. No method raises.
    """

    def __init__(
        self,
        *,
        expected: bool = True,
        memory_of_system: Callable[[], SystemMemory] = system_memory,
    ) -> None:
        self._expected = expected
        self._memory_of_system = memory_of_system
        self._open = False
        self._known: list[_Known] = []

    def survey(self) -> Survey:
        """Every device with all that NVML tells about it."""
        self._close()
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            return Survey(notes=(self._trouble(error),))
        self._open = True
        notes: list[Note] = []
        try:
            self._known = list(self._devices(notes))
        except pynvml.NVMLError as error:
            notes.append(self._trouble(error))
        return self._measured_all(notes)

    def memory(self) -> Survey:
        """The same devices with their memory as it is now: a few hundred microseconds."""
        return self._measured_all([]) if self._open else self.survey()

    def _measured_all(self, notes: list[Note]) -> Survey:
        asked = [self._measured(known, notes) for known in self._known]
        devices = tuple(device for device in asked if device is not None)
        if not devices or len(devices) < len(asked):
            # The driver was reloaded or a GPU is lost: the next call begins with new handles.
            self._close()
        return Survey(devices, tuple(notes))

    def _devices(self, notes: list[Note]) -> Iterator[_Known]:
        branch = _fact(pynvml.nvmlSystemGetDriverVersion, "").partition(".")[0]
        cuda = _fact(pynvml.nvmlSystemGetCudaDriverVersion_v2, 0)
        driver = (cuda // 1000, cuda % 1000 // 10)
        for index in range(min(pynvml.nvmlDeviceGetCount(), 256)):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError as error:
                # In a container with some of the GPUs, the others are there and forbidden.
                text, hint = _described(error)
                notes.append(Note("info", f"NVIDIA GPU {index} cannot be used: {text}", hint))
                continue
            device = VendorDevice(
                source="nvml",
                index=index,
                library="CUDA",
                name=_text(pynvml.nvmlDeviceGetName, handle),
                uuid=_text(pynvml.nvmlDeviceGetUUID, handle),
                pci_id=_fact(partial(_pci, handle), ""),
                compute=_fact(partial(_compute, handle), (0, 0)),
                driver=driver,
                nvidia_driver=int(branch) if branch.isdecimal() else 0,
            )
            mode = _fact(partial(pynvml.nvmlDeviceGetMigMode, handle), (0, 0))
            if mode[0] == pynvml.NVML_DEVICE_MIG_ENABLE:
                yield from _instances(handle, device, notes)
            else:
                yield _Known(handle, device)

    def _measured(self, known: _Known, notes: list[Note]) -> VendorDevice | None:
        """``known.device`` with its memory; None when the GPU does not answer."""
        device = known.device
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(known.handle)
        except pynvml.NVMLError_NotSupported:
            # A unified-memory board (Jetson, GB10): its GPU takes what the system has.
            system = self._memory_of_system()
            return replace(device, total=system.total, free=system.free, integrated=True)
        except pynvml.NVMLError as error:
            text, hint = _described(error)
            what = f"the memory of {device.name or 'an NVIDIA GPU'} is unknown: {text}"
            notes.append(Note("warning", what, hint))
            return device if isinstance(error, _NOT_TOLD) else None
        return replace(device, total=memory.total, free=memory.free, used_by=_used_by(known.handle))

    def _trouble(self, error: pynvml.NVMLError) -> Note:
        text, hint = _described(error)
        return Note("warning" if self._expected else "info", text, hint)

    def _close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._known = []
        # Whatever becomes of it, the next call starts anew.
        _fact(pynvml.nvmlShutdown, None)


def _instances(handle: Any, gpu: VendorDevice, notes: list[Note]) -> Iterator[_Known]:
    """The instances of a partitioned GPU, which is not usable itself."""
    found = False
    places = _fact(partial(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle), 0)
    for place in range(min(places, 64)):
        try:
            part = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
        except pynvml.NVMLError:
            # Most places are empty; what cannot be opened is as good as empty.
            continue
        found = True
        name = _text(pynvml.nvmlDeviceGetName, part) or gpu.name
        uuid = _text(pynvml.nvmlDeviceGetUUID, part)
        yield _Known(part, replace(gpu, name=name, uuid=uuid, mig=True))
    if not found:
        notes.append(
            Note(
                "warning",
                f"{gpu.name or 'an NVIDIA GPU'} is in MIG mode and has no instance to use",
                "create instances (`sudo nvidia-smi mig -cgi … -C`) or leave MIG mode "
                "(`sudo nvidia-smi -mig 0`)",
            )
        )


def _used_by(handle: Any) -> dict[int, int]:
    """Bytes by process id. Empty where the driver does not say (WSL, many containers)."""
    used: dict[int, int] = {}
    for kind in ("Compute", "Graphics"):
        for version in ("_v3", "_v2"):
            ask = getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses{version}", None)
            if ask is None:
                continue
            try:
                processes = ask(handle)
            except pynvml.NVMLError_FunctionNotFound:
                # Drivers before 510 have the older one only.
                continue
            except pynvml.NVMLError:
                break
            for process in processes:
                # A process is in both lists when it does both, with the same figure.
                if process.usedGpuMemory is not None:
                    used[process.pid] = max(used.get(process.pid, 0), process.usedGpuMemory)
            break
    return used


def _pci(handle: Any) -> str:
    return pci_id(plain_text(pynvml.nvmlDeviceGetPciInfo(handle).busId))


def _compute(handle: Any) -> tuple[int, int]:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return major, minor


def _text(call: Callable[[Any], str], handle: Any) -> str:
    try:
        return plain_text(call(handle))
    except UnicodeDecodeError as error:
        return plain_text(bytes(error.object))
    except pynvml.NVMLError:
        return ""


def _fact(call: Callable[[], _T], default: _T) -> _T:
    """What ``call`` returns; ``default`` when NVML cannot tell: no fact is worth a device."""
    try:
        return call()
    except (pynvml.NVMLError, UnicodeDecodeError):
        return default


def _described(error: pynvml.NVMLError) -> tuple[str, str]:
    fallback = (f"NVIDIA's management library says: {plain_text(str(error))}", "see `nvidia-smi`")
    return _TROUBLES.get(error.value, fallback)
