"""What a runner's log tells: memory use and the last error. Bytes in, numbers out, no I/O.

Spec: runners-and-scheduling 2.7; cases in 8.4 and 8.5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_MIB = 1024 * 1024

_MARKERS = (
    "mlx:",
    "MLX:",
    "panic:",
    "fatal error:",
    "error:",
    "Error:",
    "CUDA error",
    "ROCm error",
    "cudaMalloc failed",
    '"ERR"',
    "error loading model",
    "GGML_ASSERT",
    "Deepseek2 does not support K-shift",
    "signal arrived during cgo execution",
    "llama_init_from_model:",
)
_MARKER = re.compile("|".join(re.escape(marker) for marker in _MARKERS))

_OUT_OF_MEMORY = re.compile(
    "|".join(
        (
            "out of memory",
            "out of device memory",
            "cudamalloc failed",
            "hipmalloc failed",
            "failed to allocate",
            "allocation failed",
            "not enough memory",
            "insufficient memory",
            "vk_error_out_of_device_memory",
            "erroroutofmemory",
        )
    ),
    re.IGNORECASE,
)

_LAST_ERROR_BYTES = 8192

#: A line longer than this is taken in pieces, so that a runner cannot fill our memory.
_LINE_BYTES = 64 * 1024

#: The lines with numbers are shorter. What a model's file or template says may be printed as well,
#: so the patterns below must stand any text: short, and with numbers that Python can read.
_NUMBERS_LINE = 400
_MOST_BUFFERS = 1000
_INT = r"([0-9]{1,12})"
_MIB_TEXT = r"([0-9]{1,9}(?:\.[0-9]{1,6})?) MiB"

_DEVICE = re.compile(rf"using device (\S+) \(.* - {_INT} MiB free")
_OFFLOADED = re.compile(rf"offloaded {_INT}/{_INT} layers to GPU")
_OVERFLOW = re.compile(rf"common_params_fit_impl:\s+- .*: \d+ layers \( *{_INT} overflowing\)")
_BUFFER = re.compile(
    r"^[^:]*?(\w+): +(\S+) +"
    rf"(model|KV|compute|output|RS|LoRA|DSV4 .+? state) buffer size = +{_MIB_TEXT}"
)
#: A schema that llguidance cannot compile: the answer then goes on without any constraint.
_SCHEMA_REFUSED = re.compile(r"llg error: (?:at \S{1,20}: )?(.{1,500})")
_PROJECTOR = re.compile(rf"estimated worst-case memory usage of mmproj is {_MIB_TEXT}")

#: Endings of buffer names that say how a device's memory is used, not which device it is.
_DEVICE_SUFFIXES = ("_Mapped", "_REPACK", "_Private")


def is_out_of_memory(text: str) -> bool:
    """Whether ``text`` says that memory ran out, on a device or on the host."""
    return _OUT_OF_MEMORY.search(text) is not None


def is_recoverable_out_of_memory(text: str) -> bool:
    """Whether the last line tells of a failed allocation that llama.cpp retries by itself."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(
        lines
        and is_out_of_memory(lines[-1])
        and "retrying without pipeline parallelism" in lines[-1]
    )


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes that a runner holds. ``vram`` is part of ``total``; ``per_device`` sums to it.

    ``total`` leaves out what a model with all layers on devices has in main memory, as clients
    expect it (2.7 rule 6); ``host`` is that in any case.
    """

    total: int
    vram: int
    host: int = 0
    per_device: dict[str, int] = field(default_factory=dict)
    #: Free bytes of each device when the load began.
    free_at_load: dict[str, int] = field(default_factory=dict)
    gpu_layers: int = 0
    total_layers: int = 0
    #: False: the runner printed no buffers, the numbers are the model file's size.
    measured: bool = True

    def free_estimate(self, device: str, device_total: int) -> int:
        """Bytes free on ``device`` now, as far as this runner can tell (2.7 rule 9)."""
        used = self.per_device.get(device, 0)
        free = device_total - used
        if device in self.free_at_load:
            free = min(free, self.free_at_load[device] - used)
        return max(free, 0)


class LogReader:
    """Reads one runner's combined output as it comes, in pieces of any size.

    ``extra_models``: weights that the runner loads after its main model (a draft).
    """

    def __init__(self, extra_models: int = 0) -> None:
        self._extra_models = extra_models
        #: How many schemas the runner could not compile, and why not the last one.
        self.refused_schemas = 0
        self.refusal = ""
        self._partial = b""
        self._reset_numbers()
        self._last_error = ""

    def reset(self) -> None:
        """Forget everything: a launch is tried again (2.7 rule 10)."""
        self._partial = b""
        self._reset_numbers()
        self._last_error = ""

    def _reset_numbers(self) -> None:
        # (component, buffer, kind) -> bytes of each line of this generation.
        self._buffers: dict[tuple[str, str, str], list[int]] = {}
        self._generation_complete = False
        self._models_seen = 0
        self._free_at_load: dict[str, int] = {}
        self._gpu_layers = 0
        self._total_layers = 0
        self._overflow = 0
        self._projector_printed = 0

    @property
    def last_error(self) -> str:
        return self._last_error

    def clear_error(self) -> None:
        """The runner is ready: what was printed before says nothing about later failures."""
        self._last_error = ""

    def feed(self, data: bytes) -> list[str]:
        """Takes a piece of output and returns the lines that it completes, right-trimmed."""
        data = self._partial + data
        *complete, self._partial = data.split(b"\n")
        if len(self._partial) > _LINE_BYTES:
            complete.append(self._partial)
            self._partial = b""
        lines = [line.decode("utf-8", "replace").rstrip() for line in complete]
        for line in lines:
            self._line(line)
        return lines

    def feed_eof(self) -> list[str]:
        """The output ended: what is left counts as a line."""
        return self.feed(b"\n") if self._partial else []

    def _line(self, line: str) -> None:
        if len(line) <= _NUMBERS_LINE and (" MiB" in line or "layers" in line):
            self._numbers(line)
        if (refused := _SCHEMA_REFUSED.search(line)) is not None:
            self.refused_schemas += 1
            self.refusal = refused[1]
        if (marker := _MARKER.search(line)) is not None:
            self._add_error(line[marker.start() :])
        elif is_out_of_memory(line):
            self._add_error(line)

    def _add_error(self, text: str) -> None:
        joined = f"{self._last_error}\n{text}" if self._last_error else text
        data = joined.encode()
        if len(data) > _LAST_ERROR_BYTES:
            data = data[-_LAST_ERROR_BYTES:]
            _, line_break, rest = data.partition(b"\n")
            if line_break:
                data = rest
            joined = data.decode("utf-8", "ignore")
        self._last_error = joined

    def _numbers(self, line: str) -> None:
        if (found := _BUFFER.match(line)) is not None:
            self._buffer(found[1], found[2], found[3], int(float(found[4]) * _MIB))
        elif (found := _DEVICE.search(line)) is not None:
            self._free_at_load[found[1]] = int(found[2]) * _MIB
        elif (found := _OFFLOADED.search(line)) is not None:
            self._gpu_layers, self._total_layers = int(found[1]), int(found[2])
        elif (found := _OVERFLOW.search(line)) is not None:
            self._overflow += int(found[1])
        elif (found := _PROJECTOR.search(line)) is not None:
            self._projector_printed = int(float(found[1]) * _MIB)

    def _buffer(self, component: str, buffer: str, kind: str, size: int) -> None:
        # A fit probe prints trial values, and then the load starts over with the weights: that is a
        # new generation. Within one, a sliding-window model prints two KV lines under one key and a
        # split model one line a file, so those are summed; work buffers are printed anew when they
        # are sized anew, so the last one counts.
        if component == "load_tensors" and kind == "model":
            if self._generation_complete:
                self._generation_complete = False
                if self._models_seen < self._extra_models:
                    self._models_seen += 1
                else:
                    self._models_seen = 0
                    self._buffers.clear()
        elif kind not in {"model", "LoRA"}:
            self._generation_complete = True
        if sum(map(len, self._buffers.values())) >= _MOST_BUFFERS:
            return  # no runner has so many: somebody makes them up
        sizes = self._buffers.setdefault((component, buffer, kind), [])
        if kind in {"compute", "output"}:
            sizes.clear()
        sizes.append(size)

    def memory(
        self,
        file_size: int,
        projector_bytes: int = 0,
        *,
        names: Mapping[str, str] | None = None,
        projector_device: str = "",
    ) -> MemoryUse:
        """Bytes in use as far as the log tells (2.7 rules 1 to 9).

        ``file_size``: bytes of the model file, 0 when unknown. ``projector_bytes``: used when the
        log does not tell the projector's size. ``names``: what the runner calls its devices, with
        their names in the answer; an empty one says that it was given none, None that nobody knows.
        ``projector_device``: where the projector is, in the runner's words, "" for main memory.
        """
        known = names or {}
        free_at_load = {known.get(name, name): free for name, free in self._free_at_load.items()}
        if not self._buffers:
            vram = 0 if names is not None and not names else file_size
            return MemoryUse(
                total=file_size,
                vram=vram,
                host=file_size - vram,
                free_at_load=free_at_load,
                gpu_layers=self._gpu_layers,
                total_layers=self._total_layers,
                measured=False,
            )
        total = file_backed = cpu_mapped = 0
        per_device: dict[str, int] = {}
        for (_, buffer, kind), sizes in self._buffers.items():
            size = sum(sizes)
            total += size
            on_device = _is_device_buffer(buffer)
            mapped = buffer.endswith("_Mapped")
            if on_device:
                device = _device(buffer)
                device = known.get(device, device)
                per_device[device] = per_device.get(device, 0) + size
            if kind == "model" and (on_device or mapped):
                file_backed += size
                if not on_device:
                    cpu_mapped += size
        vram = sum(per_device.values())
        if cpu_mapped > 0 and 0 < file_size < file_backed:
            # Mapped spans count what was copied to a device a second time.
            total -= min(cpu_mapped, file_backed - file_size)
        host = total - vram
        if 0 < self._total_layers <= self._gpu_layers and self._overflow == 0:
            total = vram
        if projector := self._projector_printed or projector_bytes:
            total += projector
            if projector_device and vram > 0:
                device = known.get(projector_device, projector_device)
                per_device[device] = per_device.get(device, 0) + projector
                vram += projector
            else:
                host += projector
        return MemoryUse(
            total=total,
            vram=vram,
            host=host,
            per_device=per_device,
            free_at_load=free_at_load,
            gpu_layers=self._gpu_layers,
            total_layers=self._total_layers,
        )


def _is_device_buffer(name: str) -> bool:
    return not (name in {"CPU", "BLAS"} or name.startswith("CPU_") or name.endswith("_Host"))


def _device(buffer: str) -> str:
    for suffix in _DEVICE_SUFFIXES:
        if buffer.endswith(suffix):
            return buffer.removesuffix(suffix)
    return buffer
