"""Machines that exist only as numbers, and who holds how much of their memory.

Bytes and nanoseconds throughout. What is *true* and what a driver *tells* are two things: memory
comes back some time after a process has ended, and is told some time after it came back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GIB = 1 << 30
MIB = 1 << 20
SECOND = 10**9


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """``others``: bytes that programs which are none of ours hold. ``rate``: bytes of weights that
    it reads in a second, which is what decoding goes by."""

    id: str
    library: str
    total: int
    others: int = 0
    rate: int = 800 * GIB
    integrated: bool = False


@dataclass(frozen=True, kw_only=True)
class Machine:
    """``release``: time from the end of a process until its device memory is free (unified memory
    comes back at once); ``lag``: from then until the driver tells. ``disk``: bytes a second of a
    file that is read the first time."""

    name: str
    memory: int
    gpus: tuple[Gpu, ...] = ()
    swap: int = 0
    others: int = 2 * GIB
    rate: int = 40 * GIB
    disk: int = 2 * GIB
    release: int = 300 * 10**6
    lag: int = 0
    platform: str = "linux"


def _gpu(number: int, gib: int, **facts: int) -> Gpu:
    return Gpu(id=f"CUDA{number}", library="CUDA", total=gib * GIB, **facts)


#: The machines of the catalogue, by name.
MACHINES: dict[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine(name="cpu", memory=32 * GIB),
        Machine(name="8", memory=32 * GIB, gpus=(_gpu(0, 8, rate=250 * GIB, others=GIB // 2),)),
        # The display and a game hang on the first.
        Machine(
            name="2x24",
            memory=64 * GIB,
            gpus=(_gpu(0, 24, others=9 * GIB), _gpu(1, 24, rate=900 * GIB)),
        ),
        Machine(
            name="8x80",
            memory=1024 * GIB,
            disk=6 * GIB,
            gpus=tuple(_gpu(n, 80, rate=2000 * GIB) for n in range(8)),
        ),
        Machine(
            name="apple-64",
            memory=64 * GIB,
            others=6 * GIB,
            release=0,
            platform="darwin",
            disk=5 * GIB,
            gpus=(
                Gpu(id="MTL0", library="Metal", total=48 * GIB, rate=350 * GIB, integrated=True),
            ),
        ),
    )
}


def lying(machine: Machine, *, lag: float = 4.0, release: float = 1.5) -> Machine:
    """The same machine with a driver that tells late what is free; seconds."""
    if all(gpu.integrated for gpu in machine.gpus):
        release = 0
    return replace(machine, lag=int(lag * SECOND), release=int(release * SECOND))


def settings(machine: Machine) -> dict[str, int | bool | str]:
    """The fields of ``Limits`` that the daemon takes from the machine itself."""
    return {
        "device_count": len(machine.gpus),
        "platform": machine.platform,
        "memory_guard": machine.platform != "darwin",
    }


class OutOfMemory(Exception):
    """An allocation that no driver would grant; says where."""


@dataclass(frozen=True)
class Held:
    """Bytes in main memory, and on devices by their id."""

    host: int
    devices: dict[str, int]

    @property
    def total(self) -> int:
        return self.host + self.vram

    @property
    def vram(self) -> int:
        return sum(self.devices.values())


class Ledger:
    """Who holds what. Everything that takes or gives says when."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.gpus = {gpu.id: gpu for gpu in machine.gpus}
        self.held: dict[int, Held] = {}
        #: What programs of others hold beside what the machine says, by device; "" is the host.
        self.pressure: dict[str, int] = {}
        #: Of processes that have ended: (free at, told at, held).
        self._returning: list[tuple[int, int, Held]] = []

    def free(self, device: str, now: int) -> int:
        """What can really be had on a device; ``""`` is main memory, without the swap."""
        return self._left(device, [h for at, _, h in self._returning if at > now])

    def told(self, device: str, now: int) -> int:
        """What the driver says; the kernel never lies about main memory."""
        if not device:
            return max(0, self.free("", now))
        return max(0, self._left(device, [h for _, at, h in self._returning if at > now]))

    def take(self, owner: int, want: Held, now: int) -> None:
        """Raises OutOfMemory and changes nothing, or ``owner`` holds it."""
        for device, size in want.devices.items():
            if size > self.free(device, now):
                raise OutOfMemory(device)
        shared = sum(size for d, size in want.devices.items() if self.gpus[d].integrated)
        if want.host + shared > self.free("", now) + self.machine.swap:
            raise OutOfMemory("host")
        self.held[owner] = want

    def give_back(self, owner: int, now: int) -> None:
        """The process has ended. Main memory is back at once."""
        held = self.held.pop(owner, None)
        if held is not None and held.devices:
            at = now + self.machine.release
            self._returning.append((at, at + self.machine.lag, Held(0, held.devices)))

    def settle(self, now: int) -> None:
        """Forget what has come back and been told."""
        self._returning = [entry for entry in self._returning if entry[1] > now]

    def _left(self, device: str, returning: list[Held]) -> int:
        holders = [*self.held.values(), *returning]
        if device:
            gpu = self.gpus[device]
            used = gpu.others + sum(held.devices.get(device, 0) for held in holders)
            left = gpu.total - used - self.pressure.get(device, 0)
            # What a device without memory of its own gets is taken from everybody's.
            return min(left, self._left("", returning)) if gpu.integrated else left
        shared = [d for d, gpu in self.gpus.items() if gpu.integrated]
        used = self.machine.others + sum(
            held.host + sum(held.devices.get(d, 0) for d in shared) for held in holders
        )
        return self.machine.memory - used - self.pressure.get("", 0)
