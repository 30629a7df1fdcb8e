"""Which devices a model gets, and how much of it fits there.

Contract: ``runners-and-scheduling.md`` 4.7 (available memory), 4.8 (placement), 2.12 (which devices
a runner occupies), 8.7 (cases). Pure. Bytes everywhere.

llama-server's own fitter has the last word on layers, for it measures: a placement names the
devices, and a number of layers only where the user or an earlier failure set one. What is predicted
here decides who has to make room, and says why a model is not on a GPU as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from ollamad.hardware.device import Device
from ollamad.units import human_gib

#: A model fits when it takes at most so many percent of what is available (4.6 step 5, 4.8).
SHARE = 80
#: What llama-server's fitter leaves free on each device (2.11).
FIT_MARGIN = 1024 << 20


class Need(Protocol):
    """What a model takes with so many layers on devices; the output counts as one more."""

    @property
    def layers(self) -> int: ...
    def device_bytes(self, gpu_layers: int, devices: int = 1) -> int: ...
    def host_bytes(self, gpu_layers: int) -> int: ...


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says about devices.

    ``num_gpu``: layers, negative for as many as fit. ``why``: who or what says so when it is not
    negative. ``main_gpu``: None when unset. ``spread``: over all devices rather than on one.
    ``overhead``: bytes to leave free on each device.
    """

    num_gpu: int = -1
    why: str = "num_gpu says so"
    main_gpu: int | None = None
    spread: bool = False
    overhead: int = 0


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model goes.

    ``devices``: those that the runner gets to see, none for the CPU. ``num_gpu``: layers to tell
    it, negative when it shall find out itself. ``main_gpu``: number among ``devices``.
    ``tensor_split``: parts of the layers, by device; empty when the runner shall choose. ``fits``:
    all that is wanted on devices fits there with room to spare. ``layers``: how many of
    ``all_layers`` are expected on devices; ``predicted``: bytes on each of ``devices``, ``host``:
    bytes in main memory besides. ``available``: bytes on all that it occupies. ``reason``: a
    sentence for people. ``wanted``: bytes on devices if all went there that was asked for.
    """

    devices: tuple[Device, ...] = ()
    num_gpu: int = -1
    main_gpu: int | None = None
    tensor_split: tuple[int, ...] = ()
    fits: bool = True
    layers: int = 0
    all_layers: int = 0
    predicted: tuple[int, ...] = ()
    host: int = 0
    wanted: int = 0
    available: int = 0
    reason: str

    @property
    def on_devices(self) -> int:
        return sum(self.predicted)

    @property
    def on_integrated(self) -> int:
        """Bytes on devices that share the main memory."""
        pairs = zip(self.devices, self.predicted, strict=True)
        return sum(size for device, size in pairs if device.integrated)


def room_on(device: Device, reserved: int = 0, overhead: int = 0) -> int:
    """Bytes of a device that nobody uses and nobody was promised; never negative (4.5 step 4)."""
    free = device.free_memory
    if device.total_memory > 0:
        # Drivers may show memory as free that a runner was promised, or has just given back.
        free = min(free, device.total_memory - reserved)
    return max(0, free - overhead)


def available(devices: Sequence[Device], rooms: Sequence[int], system_free: int = 0) -> int:
    """Bytes of several devices together, ``rooms`` of each (4.7, "available").

    Integrated ones have no more than main memory has (``system_free``, 0 when unknown).
    """
    pairs = list(zip(devices, rooms, strict=True))
    shared = sum(room for device, room in pairs if device.integrated)
    if 0 < system_free < shared:
        shared = system_free
    return sum(room for device, room in pairs if not device.integrated) + shared


def place(
    need: Need,
    devices: Sequence[Device],
    wanted: Wanted,
    *,
    reserved: Mapping[str, int] | None = None,
    system_free: int = 0,
    measured: int = 0,
    why_none: str = "",
) -> Placement:
    """Where a model goes that takes ``need``, among ``devices`` with their free memory as it is.

    ``reserved``: bytes promised to runners that live, by device's name. ``measured``: bytes that it
    was seen to take on devices as a whole, 0 if it never was. ``why_none``: why there are no
    devices. Never raises.
    """
    everything = need.layers + 1
    if wanted.num_gpu == 0 or not devices:
        reason = wanted.why if wanted.num_gpu == 0 else why_none or "no GPU was found"
        return Placement(
            num_gpu=wanted.num_gpu,
            main_gpu=wanted.main_gpu,
            all_layers=everything,
            host=need.host_bytes(0),
            reason=f"on the CPU: {reason}",
        )
    layers = min(wanted.num_gpu, everything) if wanted.num_gpu > 0 else everything
    size = measured if measured > 0 and layers == everything else need.device_bytes(layers)
    held = reserved or {}
    rooms = {d.name: room_on(d, held.get(d.name, 0), wanted.overhead) for d in devices}

    def free(group: Sequence[Device]) -> int:
        return available(group, [rooms[device.name] for device in group], system_free)

    chosen, main_gpu = _choose(devices, wanted, size, free)
    occupied = chosen
    if main_gpu is not None and 0 <= main_gpu < len(chosen):
        occupied = (chosen[main_gpu],)
    have = free(occupied)
    count = len(occupied)
    if count > 1 and not (measured > 0 and layers == everything):
        size = need.device_bytes(layers, count)
    partial_by_choice = 0 < layers < everything
    # Who names a number of layers is not asked to make room for them (4.6 step 5).
    fits = partial_by_choice or size <= have * SHARE // 100
    asked_for = size
    if wanted.num_gpu < 0 and not fits:
        margin = FIT_MARGIN * count
        if size > have - margin:
            layers = _most_layers(need, everything, have - margin, count)
            size = need.device_bytes(layers, count) if layers else 0
    weights = [rooms[device.name] if device in occupied else 0 for device in chosen]
    explicit = wanted.num_gpu > 0 and count > 1 and sum(weights) > 0
    return Placement(
        devices=chosen,
        num_gpu=wanted.num_gpu,
        main_gpu=main_gpu,
        # The runner would divide by what the driver calls free, promised or not.
        tensor_split=tuple(weight >> 20 for weight in weights) if explicit else (),
        fits=fits,
        layers=layers,
        all_layers=everything,
        predicted=_divide(size, weights),
        host=need.host_bytes(layers),
        wanted=asked_for,
        available=have,
        reason=_reason(need, occupied, layers, everything, have, wanted),
    )


def _choose(
    devices: Sequence[Device],
    wanted: Wanted,
    size: int,
    free: _Free,
) -> tuple[tuple[Device, ...], int | None]:
    """The devices for ``size`` bytes, and the main one's number among them (4.8)."""
    main_gpu = wanted.main_gpu
    if len(devices) == 1:
        return tuple(devices), main_gpu
    groups: dict[str, list[Device]] = {}
    for device in devices:
        groups.setdefault(device.library, []).append(device)

    def best_one(candidates: list[Device]) -> Device:
        return max(candidates, key=lambda device: (not device.integrated, free([device])))

    if main_gpu is not None and main_gpu >= 0:
        named = [group[main_gpu] for group in groups.values() if main_gpu < len(group)]
        if named:
            return (best_one(named),), 0
    elif main_gpu is None and not wanted.spread and size > 0:
        roomy = [device for device in devices if size <= free([device]) * SHARE // 100]
        if roomy:
            return (best_one(roomy),), 0
    # A runner never mixes libraries.
    best = max(
        groups.values(),
        key=lambda group: (any(not device.integrated for device in group), free(group)),
    )
    return tuple(best), main_gpu


class _Free(Protocol):
    def __call__(self, group: Sequence[Device], /) -> int: ...


def _most_layers(need: Need, everything: int, room: int, devices: int) -> int:
    """The most layers that fit into ``room`` bytes, 0 if none does."""
    low, high = 0, everything
    while low < high:
        middle = (low + high + 1) // 2
        if need.device_bytes(middle, devices) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _divide(size: int, weights: Sequence[int]) -> tuple[int, ...]:
    """``size`` in parts proportional to ``weights``; equal ones if those are all 0."""
    total = sum(weights)
    if total <= 0:
        weights = [1] * len(weights)
        total = len(weights)
    parts = [size * weight // total for weight in weights]
    parts[parts.index(max(parts))] += size - sum(parts)
    return tuple(parts)


def _reason(
    need: Need, on: Sequence[Device], layers: int, everything: int, have: int, wanted: Wanted
) -> str:
    names = ", ".join(device.name for device in on)
    if layers == everything:
        return f"all {everything} layers on {names}"
    if wanted.num_gpu > 0:
        return f"{layers} of {everything} layers on {names}: {wanted.why}"
    whole = human_gib(need.device_bytes(everything, len(on)))
    shortage = f"all need {whole}, {human_gib(have)} are available"
    if layers == 0:
        return f"on the CPU: no layer fits on {names} ({shortage})"
    return f"{layers} of {everything} layers on {names} ({shortage})"
