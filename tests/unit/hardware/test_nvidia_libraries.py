"""NVML and the CUDA driver, loaded by the process that loads the real ones, as stubs in C."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from support.stub_libraries import MakeMonitor

from ollamad.hardware.vendor import Note, Survey, VendorDevice

GIB = 1 << 30


def _gpu(index: int, **changes: object) -> VendorDevice:
    return replace(
        VendorDevice(
            source="nvml",
            index=index,
            library="CUDA",
            name="Stub RTX 4090",
            uuid=f"GPU-{index:08x}-0000-0000-0000-000000000000",
            pci_id=f"0000:{10 + index:02x}:00.0",
            total=24 * GIB,
            free=23 * GIB,
            integrated=False,
            compute=(8, 9),
            driver=(12, 8),
            nvidia_driver=570,
            cuda_ordinal=index,
            used_by={4242: GIB, 5000: 64 << 20},
        ),
        **changes,
    )


def _instance(gpu: VendorDevice, place: int) -> VendorDevice:
    return replace(
        gpu,
        name="Stub RTX 4090 MIG 1g.5gb",
        uuid=f"MIG-{gpu.index:08x}-0000-0000-0000-0000000000{place + 1:02x}",
        total=5 * GIB,
        free=4 * GIB,
        mig=True,
    )


@pytest.mark.parametrize("count", [1, 8])
async def test_healthy_gpus_tell_all_there_is(monitor: MakeMonitor, count: int) -> None:
    found = monitor("nvml", "cuda", STUB_NVML_GPUS=count, STUB_CUDA_GPUS=count)
    assert await found.survey() == Survey(tuple(_gpu(index) for index in range(count)))


async def test_the_users_choice_hides_no_gpu(monitor: MakeMonitor) -> None:
    variables = {"STUB_NVML_GPUS": 2, "STUB_CUDA_GPUS": 2, "CUDA_VISIBLE_DEVICES": "1"}
    found = await monitor("nvml", "cuda", **variables).survey()
    assert found.devices == (_gpu(0), _gpu(1))


async def test_cudas_order_need_not_be_the_buses(monitor: MakeMonitor) -> None:
    variables = {"STUB_NVML_GPUS": 2, "STUB_CUDA_GPUS": 2, "STUB_CUDA_ORDER": "reversed"}
    found = await monitor("nvml", "cuda", **variables).survey()
    assert found.devices == (_gpu(0, cuda_ordinal=1), _gpu(1, cuda_ordinal=0))


async def test_only_the_cuda_driver_knows_what_shares_the_systems_memory(
    monitor: MakeMonitor,
) -> None:
    found = await monitor("nvml", "cuda", STUB_CUDA_INTEGRATED=1).survey()
    assert found.devices == (_gpu(0, integrated=True),)
    alone = await monitor("nvml").survey()
    assert alone.devices == (_gpu(0, integrated=None, cuda_ordinal=-1),)
    assert [note.text for note in alone.notes] == ["the CUDA driver library is not installed"]


async def test_without_nvml_the_cuda_driver_stands_in(monitor: MakeMonitor) -> None:
    found = await monitor("cuda", STUB_CUDA_GPUS=2).survey()
    assert found.devices == tuple(
        VendorDevice(
            source="cuda",
            index=index,
            library="CUDA",
            name=f"Stub CUDA GPU {index}",
            uuid=f"GPU-{index:08x}-0000-0000-0000-000000000000",
            pci_id=f"0000:{10 + index:02x}:00.0",
            total=24 * GIB,
            free=24 * GIB,
            integrated=False,
            compute=(8, 9),
            driver=(12, 8),
            cuda_ordinal=index,
        )
        for index in range(2)
    )
    assert [note.text for note in found.notes] == [
        "NVIDIA's management library (NVML) is not installed"
    ]


async def test_an_integrated_gpu_without_nvml_has_what_the_system_has(
    monitor: MakeMonitor, machine: Path
) -> None:
    (machine / "proc/meminfo").write_text("MemTotal: 33554432 kB\nMemAvailable: 4194304 kB\n")
    found = monitor("cuda", STUB_CUDA_INTEGRATED=1)
    device = (await found.survey()).devices[0]
    assert (device.integrated, device.total, device.free) == (True, 24 * GIB, 4 * GIB)
    (machine / "proc/meminfo").write_text("MemTotal: 33554432 kB\nMemAvailable: 2097152 kB\n")
    assert [device.free for device in (await found.memory()).devices] == [2 * GIB]


async def test_unified_memory_is_the_systems(monitor: MakeMonitor, machine: Path) -> None:
    # NVML: "not supported".
    found = monitor("nvml", STUB_NVML_MEMORY=3)
    device = (await found.survey()).devices[0]
    assert (device.integrated, device.total, device.free) == (True, 64 * GIB, 32 * GIB)
    assert device.used_by == {}
    (machine / "proc/meminfo").write_text("MemTotal: 67108864 kB\nMemAvailable: 1048576 kB\n")
    assert [device.free for device in (await found.memory()).devices] == [GIB]


async def test_a_partitioned_gpu_is_its_instances(monitor: MakeMonitor) -> None:
    variables = {"STUB_NVML_GPUS": 2, "STUB_CUDA_GPUS": 2, "STUB_NVML_MIG": 2}
    found = monitor("nvml", "cuda", **variables)
    expected = (_instance(_gpu(0), 1), _instance(_gpu(0), 2), _gpu(1))
    assert await found.survey() == Survey(expected)
    assert await found.memory() == Survey(expected)


async def test_a_partitioned_gpu_without_instances_cannot_be_used(monitor: MakeMonitor) -> None:
    found = await monitor("nvml", "cuda", STUB_NVML_MIG=0).survey()
    assert [device.source for device in found.devices] == ["cuda"]
    assert found.notes == (
        Note(
            "warning",
            "Stub RTX 4090 is in MIG mode and has no instance to use",
            "create instances (`sudo nvidia-smi mig -cgi … -C`) or leave MIG mode "
            "(`sudo nvidia-smi -mig 0`)",
        ),
    )


@pytest.mark.parametrize(
    ("code", "text", "hint"),
    [
        (4, "NVIDIA's driver may not be used by this user", "groups `video` and `render`"),
        (9, "NVIDIA's kernel driver is not loaded", "sudo modprobe nvidia"),
        (18, "NVIDIA's library and its kernel driver have different versions", "restart"),
        (12, "NVIDIA's management library (NVML) is not installed", "Container Toolkit"),
        (999, "NVIDIA's management library says: Unknown Error", "nvidia-smi"),
        (77, "NVIDIA's management library says: an error of the stub", "nvidia-smi"),
    ],
)
async def test_a_driver_that_refuses_says_why(
    monitor: MakeMonitor, code: int, text: str, hint: str
) -> None:
    asked = monitor("nvml", STUB_NVML_INIT=code)
    found = await asked.survey()
    assert found.devices == ()
    assert (found.notes[0].level, found.notes[0].text) == ("warning", text)
    assert hint in found.notes[0].hint
    assert asked.pid is None


@pytest.mark.parametrize(
    ("code", "text", "hint"),
    [
        (100, "the CUDA driver finds no GPU", "--gpus all"),
        (999, "the CUDA driver does not start (unknown error)", "sudo nvidia-modprobe -u"),
        (803, "the CUDA driver and NVIDIA's kernel driver have different versions", "restart"),
        (7, "the CUDA driver does not work: cuInit failed with error 7", "nvidia-smi"),
    ],
)
async def test_a_cuda_driver_that_refuses_says_why(
    monitor: MakeMonitor, code: int, text: str, hint: str
) -> None:
    found = await monitor("nvml", "cuda", STUB_CUDA_INIT=code).survey()
    assert found.devices == (_gpu(0, integrated=None, cuda_ordinal=-1),)
    assert [(note.level, note.text) for note in found.notes] == [("warning", text)]
    assert hint in found.notes[0].hint


async def test_libraries_on_a_machine_without_a_gpu_are_no_reason_to_warn(
    monitor: MakeMonitor, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    variables = {"STUB_NVML_INIT": 9, "STUB_CUDA_INIT": 100}
    found = await monitor("nvml", "cuda", root=nothing, **variables).survey()
    assert [note.level for note in found.notes] == ["info", "info"]
    # A GPU on the bus is one.
    bus = nothing / "sys/bus/pci/devices/0000:01:00.0"
    bus.mkdir(parents=True)
    (bus / "vendor").write_text("0x10de\n")
    (bus / "class").write_text("0x030000\n")
    found = await monitor("nvml", "cuda", root=nothing, **variables).survey()
    assert [note.level for note in found.notes] == ["warning"] * 3
    assert found.notes[-1].text.endswith("has no driver")


async def test_a_gpu_of_another_container_hides_no_other(monitor: MakeMonitor) -> None:
    found = await monitor("nvml", STUB_NVML_GPUS=3, STUB_NVML_FORBIDDEN=1).survey()
    assert [device.index for device in found.devices] == [0, 2]
    assert found.notes[0].level == "info"
    assert found.notes[0].text.startswith("NVIDIA GPU 1 cannot be used: NVIDIA's driver may not")


async def test_an_old_driver_lacks_functions_but_no_gpu(monitor: MakeMonitor) -> None:
    found = monitor("nvml-bare", "cuda")
    # The CUDA driver knows most of it.
    expected = _gpu(0, used_by={})
    assert await found.survey() == Survey((expected,))
    assert await found.memory() == Survey((expected,))


async def test_an_older_list_of_processes_will_do(monitor: MakeMonitor) -> None:
    found = await monitor("nvml-old", "cuda").survey()
    assert found.devices == (_gpu(0, used_by={4242: GIB}),)


async def test_a_file_that_is_no_library(monitor: MakeMonitor, tmp_path: Path) -> None:
    place = tmp_path / "broken"
    place.mkdir()
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        (place / name).write_bytes(b"\x7fELF no more")
    broken = monitor(LD_LIBRARY_PATH=place)
    found = await broken.survey()
    assert found.devices == ()
    assert len(found.notes) == 2
    assert broken.pid is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("latin1", "Stub \ufffd 4090"),
        ("control", "Stub [31m 4090"),
        ("empty", "Stub CUDA GPU 0"),
        ("long", "x" * 96),
    ],
)
async def test_names_that_are_no_text(monitor: MakeMonitor, kind: str, name: str) -> None:
    found = await monitor("nvml", "cuda", STUB_NVML_NAME=kind).survey()
    assert [device.name for device in found.devices] == [name]


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (8 * GIB, 9 * GIB, (8 * GIB, 8 * GIB)),
        (8 * GIB, 2**64 - 1, (8 * GIB, 8 * GIB)),
        (2**63, 2**63, (0, 0)),
    ],
)
async def test_a_driver_that_lies_is_bounded(
    monitor: MakeMonitor, total: int, free: int, expected: tuple[int, int]
) -> None:
    lying = monitor("nvml", STUB_NVML_TOTAL=total, STUB_NVML_FREE=free)
    for found in (await lying.survey(), await lying.memory()):
        assert (found.devices[0].total, found.devices[0].free) == expected
        assert "the driver's figures for Stub RTX 4090 cannot be right" in [
            note.text.partition(":")[0] for note in found.notes
        ]


async def test_no_memory_at_all_is_an_unknown_size(monitor: MakeMonitor) -> None:
    found = await monitor("nvml", STUB_NVML_TOTAL=0, STUB_NVML_FREE=0).survey()
    assert (found.devices[0].total, found.devices[0].free) == (0, 0)


async def test_memory_that_may_not_be_asked_keeps_no_gpu_away(monitor: MakeMonitor) -> None:
    found = await monitor("nvml", STUB_NVML_MEMORY=4).survey()
    assert (found.devices[0].total, found.devices[0].integrated) == (0, None)
    assert found.notes[0].text.startswith("the memory of Stub RTX 4090 is unknown: ")


async def test_memory_is_as_it_is_now(monitor: MakeMonitor, tmp_path: Path) -> None:
    free = tmp_path / "free"
    free.write_text("5")
    asked = monitor("nvml", "cuda", STUB_NVML_FREE_IN=free)
    assert (await asked.survey()).devices == (_gpu(0, free=5),)
    pid = asked.pid
    free.write_text("7")
    assert await asked.memory() == Survey((_gpu(0, free=7),))
    assert asked.pid == pid


async def test_a_lost_gpu_is_missing_until_it_is_back(monitor: MakeMonitor, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    variables = {"STUB_NVML_GPUS": 2, "STUB_CUDA_GPUS": 2, "STUB_NVML_LOST_IN": lost}
    asked = monitor("nvml", "cuda", **variables)
    whole = await asked.survey()
    assert len(whole.devices) == 2
    lost.write_text("1")
    part = await asked.memory()
    assert part.devices == whole.devices[:1]
    assert part.notes[0].text.endswith("an NVIDIA GPU has fallen off the bus")
    lost.unlink()
    assert await asked.memory() == whole
