"""What a runner makes of a launch plan: which layers go where, and how fast it is then."""

from __future__ import annotations

from dataclasses import dataclass

from ollamad.hardware.device import Device
from ollamad.scheduler.sizing import LaunchPlan, MemoryReading
from simulator.machines import GIB, SECOND, Gpu, Held, Ledger
from simulator.models import DEVICE_CONTEXT, Model

#: What a runner that fits its layers itself leaves free on each device.
FIT_MARGIN = GIB


@dataclass(frozen=True)
class Launched:
    """``share``: the part of the layers that is on devices."""

    held: Held
    share: float

    @property
    def told(self) -> Held:
        """What the runner says that it holds: it knows nothing of the driver's part."""
        devices = {name: size - DEVICE_CONTEXT for name, size in self.held.devices.items()}
        return Held(self.held.host, devices)


def reading(ledger: Ledger, now: int) -> MemoryReading:
    """What the scheduler gets to see."""
    machine = ledger.machine
    return MemoryReading(
        total=machine.memory,
        free=max(1, ledger.told("", now)),
        swap_free=machine.swap,
        devices=tuple(_device(gpu, ledger.told(gpu.id, now)) for gpu in machine.gpus),
    )


def _device(gpu: Gpu, free: int) -> Device:
    return Device(
        id=gpu.id.lstrip("CUDAMTL"),
        library=gpu.library,
        name=gpu.id,
        integrated=gpu.integrated,
        total_memory=gpu.total,
        free_memory=free,
        compute=(8, 9) if gpu.library == "CUDA" else (0, 0),
        driver=(12, 8) if gpu.library == "CUDA" else (0, 0),
    )


def launched(model: Model, plan: LaunchPlan, ledger: Ledger, now: int) -> Launched:
    """Where everything of ``model`` goes when it is started as ``plan`` says. Takes nothing yet."""
    layer = model.layer_bytes(plan.context_total)
    count = model.layers + 1
    names = [device.name for device in plan.devices] if plan.num_gpu else []
    if plan.main_gpu is not None and 0 <= plan.main_gpu < len(names):
        names = [names[plan.main_gpu]]
    free = {name: max(0, ledger.free(name, now)) for name in names}
    layers = dict.fromkeys(free, 0)
    if plan.num_gpu < 0:
        left = count
        # It starts with the device that has most: a model that fits there stays there.
        for device in sorted(free, key=lambda d: -free[d]):
            room = free[device] - FIT_MARGIN - DEVICE_CONTEXT - model.buffer
            layers[device] = max(0, min(left, room // layer))
            left -= layers[device]
    elif total := sum(parts := _parts(plan, free)):
        wanted = left = min(count, plan.num_gpu)
        for device, part in zip(free, parts, strict=True):
            layers[device] = min(left, -(-wanted * part // total))
            left -= layers[device]
    used = {d: n * layer + DEVICE_CONTEXT for d, n in layers.items() if n}
    if used:
        used[max(used, key=lambda d: used[d])] += model.buffer
    on_devices = sum(layers.values())
    host = (count - on_devices) * layer + (0 if used else model.buffer) + GIB // 8
    return Launched(Held(host, used), on_devices / count)


def _parts(plan: LaunchPlan, free: dict[str, int]) -> list[int]:
    """How layers are divided when somebody says how many: as told, else by what is free."""
    told = plan.tensor_split
    return list(told) if len(told) == len(free) and any(told) else list(free.values())


def token_time(model: Model, what: Launched, ledger: Ledger) -> int:
    """Nanoseconds a token, alone."""
    whole = what.held.vram or 1
    bytes_read = model.weights * model.active
    seconds = bytes_read * (1 - what.share) / ledger.machine.rate
    for device, size in what.held.devices.items():
        seconds += bytes_read * what.share * size / whole / ledger.gpus[device].rate
    return max(SECOND // 500, int(seconds * SECOND))
