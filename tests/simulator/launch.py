"""What a runner makes of a launch plan: which layers go where, and how fast it is then."""

from __future__ import annotations

from dataclasses import dataclass

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


def reading(ledger: Ledger, now: int) -> MemoryReading:
    """What the scheduler gets to see."""
    machine = ledger.machine
    return MemoryReading(
        total=machine.memory,
        free=max(1, ledger.told("", now)),
        swap_free=machine.swap,
        devices=tuple(_device(gpu, ledger.told(gpu.id, now)) for gpu in machine.gpus),
    )


def _device(gpu: Gpu, free: int) -> object:
    from ollamad.scheduler.sizing import Device

    return Device(
        id=gpu.id, library=gpu.library, total=gpu.total, free=free, integrated=gpu.integrated
    )


def launched(model: Model, plan: LaunchPlan, ledger: Ledger, now: int) -> Launched:
    """Where everything of ``model`` goes when it is started as ``plan`` says. Takes nothing yet."""
    layer = model.layer_bytes(plan.context_total)
    count = model.layers + 1
    gpus = [ledger.gpus[device.id] for device in plan.devices] if plan.num_gpu else []
    free = {gpu.id: max(0, ledger.free(gpu.id, now)) for gpu in gpus}
    layers = dict.fromkeys(free, 0)
    if plan.num_gpu < 0:
        left = count
        # It starts with the device that has most: a model that fits there stays there.
        for device in sorted(free, key=lambda d: -free[d]):
            room = free[device] - FIT_MARGIN - DEVICE_CONTEXT - model.buffer
            layers[device] = max(0, min(left, room // layer))
            left -= layers[device]
    elif total := sum(free.values()):
        left = min(count, plan.num_gpu)
        for device, room in free.items():
            layers[device] = min(left, -(-plan.num_gpu * room // total))
            left -= layers[device]
    used = {d: n * layer + DEVICE_CONTEXT for d, n in layers.items() if n}
    if used:
        used[max(used, key=lambda d: used[d])] += model.buffer
    on_devices = sum(layers.values())
    host = (count - on_devices) * layer + (0 if used else model.buffer) + GIB // 8
    return Launched(Held(host, used), on_devices / count)


def token_time(model: Model, what: Launched, ledger: Ledger) -> int:
    """Nanoseconds a token, alone."""
    whole = what.held.vram or 1
    bytes_read = model.weights * model.active
    seconds = bytes_read * (1 - what.share) / ledger.machine.rate
    for device, size in what.held.devices.items():
        seconds += bytes_read * what.share * size / whole / ledger.gpus[device].rate
    return max(SECOND // 500, int(seconds * SECOND))
