"""Which devices a model gets: runners-and-scheduling 4.7, 4.8, 2.12 and the tables of 8.7."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.hardware.device import Device
from ollamad.scheduler.placement import FIT_MARGIN, Placement, Wanted, available, place, room_on

GB = 10**9


class Simple(msgspec.Struct, frozen=True):
    """A model of layers that are all alike, nothing of which stays in main memory by itself."""

    total: int
    layers: int = 9

    def device_bytes(self, gpu_layers: int, devices: int = 1) -> int:
        return self.total * gpu_layers // (self.layers + 1)

    def host_bytes(self, gpu_layers: int) -> int:
        return self.total - self.device_bytes(gpu_layers)


def gpu(library: str, number: int, free: int, **changes: Any) -> Device:
    return Device(
        id=str(number), library=library, name=f"{library}{number}", free_memory=free, **changes
    )


def gpus(library: str, *free: int) -> list[Device]:
    return [gpu(library, i, size * GB, total_memory=size * GB) for i, size in enumerate(free)]


def placed(need: int, devices: list[Device], system: int = 14, **wanted: Any) -> Placement:
    return place(Simple(need * GB), devices, Wanted(**wanted), system_free=system * GB)


def where(placement: Placement) -> tuple[list[str], int | None]:
    return [device.name for device in placement.devices], placement.main_gpu


METALS = [
    gpu("Metal", 0, 32 * GB, total_memory=32 * GB, integrated=True),
    gpu("Metal", 1, 16 * GB, total_memory=16 * GB),
]
VULKANS = [
    gpu("Vulkan", 0, 32 * GB, total_memory=32 * GB, integrated=True),
    gpu("Vulkan", 1, 10 * GB, total_memory=10 * GB),
]
MIXED = gpus("CUDA", 10) + gpus("ROCm", 20, 24)


@pytest.mark.parametrize(
    ("devices", "need", "wanted", "expected"),
    [
        (gpus("CUDA", 10, 20), 8, {}, (["CUDA1"], 0)),
        # Exactly 80 % of 20.
        (gpus("CUDA", 10, 20), 16, {}, (["CUDA1"], 0)),
        (gpus("CUDA", 10, 20), 17, {}, (["CUDA0", "CUDA1"], None)),
        (gpus("CUDA", 10, 20), 0, {}, (["CUDA0", "CUDA1"], None)),
        (gpus("CUDA", 10), 8, {}, (["CUDA0"], None)),
        (gpus("CUDA", 10), 80, {"main_gpu": 0}, (["CUDA0"], 0)),
        (gpus("CUDA", 10, 20), 8, {"spread": True}, (["CUDA0", "CUDA1"], None)),
        (MIXED, 8, {"main_gpu": 1}, (["ROCm1"], 0)),
        (MIXED, 8, {"main_gpu": 5}, (["ROCm0", "ROCm1"], 5)),
        (gpus("CUDA", 10, 20), 8, {"main_gpu": -1}, (["CUDA0", "CUDA1"], -1)),
        (METALS, 12, {}, (["Metal1"], 0)),
        (VULKANS, 8, {}, (["Vulkan1"], 0)),
        (gpus("CUDA", 10, 18) + gpus("ROCm", 12), 30, {}, (["CUDA0", "CUDA1"], None)),
        # An integrated device has no more than main memory, and is the last choice of a group.
        (VULKANS, 11, {}, (["Vulkan0"], 0)),
        (VULKANS, 12, {}, (["Vulkan0", "Vulkan1"], None)),
        # Half a model is placed by that half.
        (gpus("CUDA", 10, 20), 30, {"num_gpu": 5}, (["CUDA1"], 0)),
    ],
)
def test_the_table(
    devices: list[Device], need: int, wanted: dict[str, Any], expected: tuple[list[str], int | None]
) -> None:
    assert where(placed(need, devices, **wanted)) == expected


def test_no_layers_and_no_devices() -> None:
    off = placed(8, gpus("CUDA", 10, 20), num_gpu=0, main_gpu=1)
    assert (off.devices, off.num_gpu, off.main_gpu, off.layers) == ((), 0, 1, 0)
    assert off.reason == "on the CPU: num_gpu says so"
    assert off.fits
    assert off.host == 8 * GB
    assert placed(8, []).reason == "on the CPU: no GPU was found"
    told = place(Simple(GB), [], Wanted(), why_none="the driver is too old")
    assert told.reason == "on the CPU: the driver is too old"


@pytest.mark.parametrize(
    ("integrated", "discrete", "system", "expected"),
    [([300], [], 80, 80), ([12], [], 20, 12), ([], [12], 6, 12), ([10], [12], 6, 18)],
)
def test_available(integrated: list[int], discrete: list[int], system: int, expected: int) -> None:
    devices = [gpu("Vulkan", i, size, integrated=True) for i, size in enumerate(integrated)]
    devices += [gpu("Vulkan", 9 - i, size) for i, size in enumerate(discrete)]
    rooms = [device.free_memory for device in devices]
    assert available(devices, rooms, system) == expected
    assert available(devices, rooms) == sum(rooms), "unknown memory limits nothing"


@pytest.mark.parametrize(
    ("total", "free", "reserved", "overhead", "expected"),
    [
        (1000, 900, 50 + 125, 0, 825),
        (1000, 700, 50 + 125, 0, 700),
        # More was promised than there is; more is left free than there is.
        (1000, 900, 1001, 0, 0),
        (1000, 900, 0, 901, 0),
        (1000, 900, 175, 25, 800),
        # A total that nobody knows.
        (0, 900, 175, 0, 900),
    ],
)
def test_room(total: int, free: int, reserved: int, overhead: int, expected: int) -> None:
    device = gpu("CUDA", 0, free, total_memory=total)
    assert room_on(device, reserved, overhead) == expected


def test_what_was_promised_decides_the_device() -> None:
    devices = gpus("CUDA", 24, 24)
    got = place(Simple(16 * GB), devices, Wanted(), reserved={"CUDA0": 5 * GB})
    assert where(got) == (["CUDA1"], 0)
    got = place(Simple(16 * GB), devices, Wanted(overhead=5 * GB), reserved={"CUDA0": 5 * GB})
    assert where(got) == (["CUDA0", "CUDA1"], None)
    assert got.available == 33 * GB


def test_a_whole_model() -> None:
    got = placed(8, gpus("CUDA", 10))
    assert got.fits
    assert (got.layers, got.all_layers, got.num_gpu, got.host) == (10, 10, -1, 0)
    assert got.predicted == (8 * GB,)
    assert got.reason == "all 10 layers on CUDA0"
    assert not placed(9, gpus("CUDA", 10)).fits


def test_more_than_the_share_is_no_reason_to_leave_layers_behind() -> None:
    got = placed(17, gpus("CUDA", 20))
    assert not got.fits
    assert got.layers == 10


def test_part_of_a_model() -> None:
    got = placed(40, gpus("CUDA", 24))
    assert (got.fits, got.layers, got.num_gpu) == (False, 5, -1)
    assert got.predicted == (20 * GB,)
    assert got.host == 20 * GB
    assert got.wanted == 40 * GB
    assert got.reason == ("5 of 10 layers on CUDA0 (all need 37.3 GiB, 22.4 GiB are available)")
    none = placed(40, gpus("CUDA", 2))
    assert (none.layers, none.on_devices, none.host) == (0, 0, 40 * GB)
    assert none.reason.startswith("on the CPU: no layer fits on CUDA0 (")


def test_parts_on_several_devices_follow_their_room() -> None:
    got = placed(24, gpus("CUDA", 10, 30), spread=True)
    assert got.predicted == (6 * GB, 18 * GB)
    assert got.tensor_split == (), "the runner measures: it may divide as it likes"
    told = placed(24, gpus("CUDA", 10, 30), spread=True, num_gpu=10)
    one, two = told.tensor_split
    assert two == pytest.approx(3 * one, rel=0.001)


def test_a_number_of_layers_is_nobodys_business() -> None:
    got = placed(40, gpus("CUDA", 10), num_gpu=9)
    assert got.fits, "nobody has to make room"
    assert (got.num_gpu, got.layers) == (9, 9)
    assert got.reason == "9 of 10 layers on CUDA0: num_gpu says so"
    assert not placed(40, gpus("CUDA", 10), num_gpu=10).fits, "that is all of it"
    assert placed(40, gpus("CUDA", 10), num_gpu=99).layers == 10


def test_only_the_main_device_is_occupied() -> None:
    got = placed(8, gpus("CUDA", 20), main_gpu=0)
    assert got.predicted == (8 * GB,)
    # A number that no library has: all of the best group, and the runner's own error.
    assert placed(8, MIXED, main_gpu=5).on_devices == 8 * GB


def test_what_was_measured_counts_for_the_whole_only() -> None:
    devices = gpus("CUDA", 10)
    need = Simple(12 * GB)
    assert not place(need, devices, Wanted()).fits
    assert place(need, devices, Wanted(), measured=8 * GB).fits
    assert place(need, devices, Wanted(num_gpu=5), measured=8 * GB).on_devices == 6 * GB


sizes = st.integers(0, 100 * GB)
devices = st.lists(
    st.builds(
        lambda n, library, total, free, integrated: gpu(
            library, n, free, total_memory=total, integrated=integrated
        ),
        st.integers(0, 7),
        st.sampled_from(["CUDA", "ROCm", "Vulkan"]),
        sizes,
        sizes,
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda device: device.name,
)


@given(
    devices=devices,
    total=sizes,
    layers=st.integers(0, 90),
    num_gpu=st.integers(-1, 99),
    main_gpu=st.none() | st.integers(-1, 9),
    spread=st.booleans(),
    overhead=sizes,
    reserved=sizes,
    system=sizes,
)
def test_whatever_is_asked(
    devices: list[Device],
    total: int,
    layers: int,
    num_gpu: int,
    main_gpu: int | None,
    spread: bool,
    overhead: int,
    reserved: int,
    system: int,
) -> None:
    need = Simple(total, layers)
    wanted = Wanted(num_gpu=num_gpu, main_gpu=main_gpu, spread=spread, overhead=overhead)
    held = {device.name: reserved for device in devices[:2]}
    got = place(need, devices, wanted, reserved=held, system_free=system)
    assert set(got.devices) <= set(devices)
    assert len({device.library for device in got.devices}) <= 1, "libraries are never mixed"
    assert bool(got.devices) == bool(devices and num_gpu != 0)
    assert 0 <= got.layers <= got.all_layers == layers + 1
    assert len(got.predicted) == len(got.devices)
    assert all(part >= 0 for part in got.predicted)
    assert got.on_devices + got.host == total
    assert got.num_gpu == num_gpu
    if got.devices and num_gpu < 0 and got.layers < got.all_layers:
        assert not got.fits
        assert got.on_devices <= max(0, got.available - FIT_MARGIN)
    if got.devices and got.fits and num_gpu < 0:
        assert got.on_devices * 100 <= got.available * 80
