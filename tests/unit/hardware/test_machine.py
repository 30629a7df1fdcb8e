"""Finding devices and their free memory, runners-and-scheduling.md 1.3, 1.10 and 8.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock, wait_all_tasks_blocked

from ollamad.hardware.discovery import Hardware
from ollamad.hardware.finding import Answer, Backend, Rules, RunnerFacts
from ollamad.hardware.machine import AGAIN_AFTER, Machine
from ollamad.hardware.memory import SystemMemory
from ollamad.hardware.vendor import Note, Survey, VendorDevice

MIB = 1 << 20
GIB = 1 << 30
CUDA0 = "CUDA0: NVIDIA T4 (15000 MiB, 14000 MiB free)"
T4 = VendorDevice(
    source="nvml",
    index=0,
    library="CUDA",
    name="NVIDIA T4",
    uuid="GPU-a",
    pci_id="0000:01:00.0",
    total=15360 * MIB,
    free=9000 * MIB,
    compute=(7, 5),
    driver=(12, 8),
    nvidia_driver=570,
)
ALONE = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "GGML_CUDA_INIT": "1"}


class FakeRunner:
    """Answers with ``rows``, or with what ``answer`` makes of the variables."""

    def __init__(self, *rows: str, facts: RunnerFacts | None = None, **said: Any) -> None:
        self.rows = rows
        self.said = facts or RunnerFacts(title="the runner /x", libraries=None)
        self.delay: float = said.get("delay", 0)
        self.messages: str = said.get("messages", "")
        self.info: str = said.get("info", "")
        self.answer: Callable[[Mapping[str, str]], Answer | None] = said.get(
            "answer", lambda _: None
        )
        #: Every listing: the variant and the variables.
        self.asked: list[tuple[str, dict[str, str]]] = []

    def facts(self) -> RunnerFacts | None:
        return self.said

    async def devices(self, backend: Backend, variables: Mapping[str, str], limit: float) -> Answer:
        self.asked.append((backend.variant, dict(variables)))
        await trio.sleep(self.delay)
        rows = "".join(f"  {row}\n" for row in self.rows)
        return self.answer(variables) or Answer(output=rows, messages=self.messages)

    async def system_info(
        self, backend: Backend, variables: Mapping[str, str], limit: float
    ) -> Answer:
        return Answer(messages=self.info)


class FakeMakers:
    """Tells ``surveys`` one after the other (the last stays), and ``fresh`` memory."""

    def __init__(self, *surveys: Survey, fresh: tuple[VendorDevice, ...] = ()) -> None:
        self.surveys = list(surveys) or [Survey()]
        self.fresh = fresh
        self.limits: list[float] = []
        self.delay = 0.0
        self.closed = False

    async def survey(self, limit: float = 1.0) -> Survey:
        self.limits.append(limit)
        return self.surveys.pop(0) if len(self.surveys) > 1 else self.surveys[0]

    async def memory(self, limit: float = 1.0) -> Survey:
        await trio.sleep(self.delay)
        return Survey(self.fresh)

    async def aclose(self) -> None:
        self.closed = True


def machine(
    runner: FakeRunner,
    makers: FakeMakers | None = None,
    root: Path = Path("/nonexistent"),
    **rules: Any,
) -> Machine:
    return Machine(
        runner,
        makers or FakeMakers(),
        Rules(platform="linux", **rules),
        root=root,
        read_memory=lambda: SystemMemory(16 * GIB, 8 * GIB),
    )


def texts(hardware: Hardware) -> str:
    return "\n".join(f"{n.level}: {n.text} | {n.hint}" for n in hardware.notes)


# --- finding --------------------------------------------------------------------------------------


async def test_a_device_is_asked_for_twice() -> None:
    """8.2: a plain list, and the device alone."""
    runner = FakeRunner(CUDA0)
    hardware = await machine(runner).discover()
    assert runner.asked == [
        ("", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}),
        ("", {**ALONE, "CUDA_VISIBLE_DEVICES": "0"}),
    ]
    (device,) = hardware.devices
    assert (device.compute_text, device.driver_text, device.pci_id) == ("0.0", "0.0", "")
    assert hardware.memory.total == 16 * GIB


async def test_a_device_of_the_users_choice() -> None:
    runner = FakeRunner(CUDA0)
    hardware = await machine(runner, environ={"CUDA_VISIBLE_DEVICES": "1"}).discover()
    assert [(d.id, d.filter_id) for d in hardware.devices] == [("0", "1")]
    assert runner.asked[1][1]["CUDA_VISIBLE_DEVICES"] == "1"


async def test_a_device_goes_by_its_uuid() -> None:
    runner = FakeRunner(CUDA0)
    hardware = await machine(runner, FakeMakers(Survey((T4,)))).discover()
    assert runner.asked[1] == ("", {**ALONE, "CUDA_VISIBLE_DEVICES": "GPU-a"})
    (device,) = hardware.devices
    assert (device.uuid, device.free_memory, device.compute) == ("GPU-a", 9000 * MIB, (7, 5))


async def test_other_libraries_need_no_proof() -> None:
    runner = FakeRunner("Vulkan0: X (8000 MiB, 7000 MiB free)")
    assert len((await machine(runner).discover()).devices) == 1
    assert len(runner.asked) == 1


async def test_a_device_that_cannot_be_used_alone_is_dropped() -> None:
    def answer(variables: Mapping[str, str]) -> Answer | None:
        if variables.get("CUDA_VISIBLE_DEVICES") == "0":
            # It died behind its list.
            return Answer(output=f"  {rows[0]}\n", error="signal 6")
        if variables.get("CUDA_VISIBLE_DEVICES") == "1":
            return Answer(output="Available devices:\n", messages="CUDA error: out of memory\n")
        return None

    rows = [f"CUDA{i}: X (8000 MiB, 7000 MiB free)" for i in range(3)]
    hardware = await machine(FakeRunner(*rows, answer=answer)).discover()
    assert [(d.id, d.name, d.filter_id) for d in hardware.devices] == [("0", "CUDA2", "2")]
    assert "X (CUDA0) is not used: it cannot be used alone: signal 6" in texts(hardware)
    assert "alone: CUDA error: out of memory" in texts(hardware)


async def test_one_sick_device_does_not_take_the_others_along() -> None:
    cards = tuple(replace(T4, index=i, uuid=f"GPU-{i}", pci_id=f"0000:0{i}:00.0") for i in range(3))

    def answer(variables: Mapping[str, str]) -> Answer | None:
        # The sick one ends every process that sees it.
        if variables.get("CUDA_VISIBLE_DEVICES", "GPU-1") == "GPU-1":
            return Answer(error="llama-server --list-devices failed: signal 6")
        return None

    runner = FakeRunner(CUDA0, answer=answer)
    hardware = await machine(runner, FakeMakers(Survey(cards)), environ={}).discover()
    assert [(d.id, d.name, d.uuid, d.filter_id) for d in hardware.devices] == [
        ("0", "CUDA0", "GPU-0", "0"),
        ("1", "CUDA2", "GPU-2", "2"),
    ]
    assert "failure during llama-server GPU discovery" in texts(hardware)
    assert "NVIDIA T4 (GPU-1) is not used" in texts(hardware)


async def test_a_list_that_fails() -> None:
    """8.2: ``--list-devices`` exits with status 1."""
    error = "llama-server --list-devices failed: exit status 1"
    runner = FakeRunner(
        answer=lambda _: Answer(error=error, messages="x\nfailed to initialize CUDA\n")
    )
    hardware = await machine(runner).discover()
    assert hardware.devices == ()
    assert f"failure during llama-server GPU discovery: {error}" in texts(hardware)
    assert "failed to initialize CUDA" in texts(hardware)


async def test_what_the_runner_was_built_for_counts() -> None:
    messages = "Device 0: NVIDIA T4, compute capability 7.5, VMM: yes"
    runner = FakeRunner(CUDA0, messages=messages, info="system_info: CUDA : ARCHS = 800,890 |")
    hardware = await machine(runner).discover()
    assert hardware.devices == ()
    assert "8.0 and newer" in texts(hardware)


VARIANTS = RunnerFacts(
    title="it",
    libraries=frozenset({"CUDA", "Vulkan"}),
    backends=tuple(
        Backend(variant=name, directories=(Path("/l"), Path("/l", name)), runtime=runtime)
        for name, runtime in (
            ("cuda_jetpack5", (0, 0)),
            ("cuda_v12", (12, 8)),
            ("cuda_v13", (13, 0)),
            ("mlx_cuda_v13", (0, 0)),
            ("vulkan", (0, 0)),
        )
    ),
)


@pytest.mark.parametrize(
    ("rules", "asked", "kept"),
    [
        ({}, ["cuda_v12", "cuda_v13", "mlx_cuda_v13", "vulkan"], "vulkan"),
        ({"llm_library": "cuda_v12"}, ["cuda_v12"], "cuda_v12"),
        ({"llm_library": "cpu_avx2"}, [], ""),
        ({"llm_library": "vulkan", "vulkan": False}, [], ""),
    ],
)
async def test_directories_are_asked_by_name(
    rules: dict[str, Any], asked: list[str], kept: str
) -> None:
    runner = FakeRunner(CUDA0, facts=VARIANTS)
    hardware = await machine(runner, **rules).discover()
    plain = [variant for variant, env in runner.asked if "GGML_CUDA_INIT" not in env]
    proofs = [variant for variant, env in runner.asked if "GGML_CUDA_INIT" in env]
    assert (plain, sorted(proofs)) == (asked, asked)
    assert [device.library_path[-1].name for device in hardware.devices] == ([kept] if kept else [])
    if kept == "cuda_v12":
        assert hardware.devices[0].driver_text == "12.8"


async def test_amd_is_asked_with_the_users_numbers_in_front() -> None:
    facts = RunnerFacts(
        title="it",
        libraries=frozenset({"ROCm"}),
        backends=(Backend(variant="rocm_v7", rocm_only=True),),
    )
    runner = FakeRunner("ROCm0: X (8000 MiB, 7000 MiB free)", facts=facts)
    hardware = await machine(runner, environ={"HIP_VISIBLE_DEVICES": "2"}).discover()
    assert runner.asked[0][1]["ROCR_VISIBLE_DEVICES"] == "2"
    assert runner.asked[0][1]["HIP_VISIBLE_DEVICES"] == "0"
    assert hardware.devices[0].filter_id == "2"


async def test_a_driver_that_wakes_up_gets_more_time() -> None:
    slow = Survey(notes=(Note("warning", "NVML does not answer within 1 s"),))
    makers = FakeMakers(slow, Survey((T4,)))
    hardware = await machine(FakeRunner(CUDA0), makers).discover()
    assert makers.limits == [1.0, 3.0]
    assert hardware.devices[0].uuid == "GPU-a"
    assert hardware.notes == ()


async def test_a_driver_that_stays_silent_costs_its_facts_only() -> None:
    slow = Survey(notes=(Note("warning", "NVML does not answer within 1 s"),))
    hardware = await machine(FakeRunner(CUDA0), FakeMakers(slow)).discover()
    assert len(hardware.devices) == 1
    assert "NVML does not answer" in texts(hardware)


async def test_the_server_in_the_package_is_asked_where_there_may_be_a_gpu(tmp_path: Path) -> None:
    facts = RunnerFacts(title="the embedded runner (package xllamacpp)", embedded=True)
    runner = FakeRunner(facts=facts)
    hardware = await machine(runner, root=tmp_path, environ={}).discover()
    assert (runner.asked, hardware.devices, hardware.notes) == ([], (), ())
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    hardware = await machine(runner, FakeMakers(Survey((T4,))), tmp_path, environ={}).discover()
    assert len(runner.asked) == 1
    assert texts(hardware).startswith(
        "warning: NVIDIA T4 (GPU-a) is not used: the embedded runner (package xllamacpp) has no "
        "support for CUDA | use a runner that has: build one with `runners/build-llama-server "
        "--preset cuda`"
    )


@pytest.mark.parametrize(
    ("platform", "error", "names"),
    [
        ("darwin", "Failed to initialize the Metal library", ["MTL0"]),
        ("darwin", "input types must match cooperative tensor types", ["MTL0"]),
        ("darwin", "something else", []),
        ("linux", "Failed to initialize the Metal library", []),
    ],
)
async def test_metal_may_start_without_its_tensor_units(
    platform: str, error: str, names: list[str]
) -> None:
    def answer(variables: Mapping[str, str]) -> Answer | None:
        if variables.get("GGML_METAL_TENSOR_DISABLE") == "1":
            return None
        return Answer(messages=f"ggml_metal: {error}\n", error="signal 6")

    runner = FakeRunner("MTL0: Apple M5 (98304 MiB, 98303 MiB free)", answer=answer)
    here = Machine(runner, FakeMakers(), Rules(platform=platform), root=Path("/nonexistent"))
    hardware = await here.discover()
    assert [device.name for device in hardware.devices] == names
    for device in hardware.devices:
        assert device.env == (("GGML_METAL_TENSOR_DISABLE", "1"),)
    assert bool(hardware.notes) is not bool(names)


async def test_without_any_runner() -> None:
    runner = FakeRunner()
    runner.facts = lambda: None  # type: ignore[method-assign]
    hardware = await machine(runner).discover()
    assert (hardware.devices, hardware.notes) == ((), ())


async def test_a_mistake_of_ours_is_told_and_stops_nothing(
    mock_clock: MockClock, caplog: Any
) -> None:
    def broken() -> RunnerFacts:
        raise RuntimeError("oh")

    runner = FakeRunner(CUDA0)
    facts, runner.facts = runner.facts, broken  # type: ignore[method-assign]
    here = machine(runner)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        assert "looking for GPUs failed: oh" in texts(await here.known())
        assert here.is_known
        assert "Traceback" in caplog.text
        runner.facts = facts  # type: ignore[method-assign]
        mock_clock.jump(AGAIN_AFTER)
        assert len((await here.reading()).devices) == 1
        nursery.cancel_scope.cancel()


# --- waiting --------------------------------------------------------------------------------------


async def test_who_needs_the_devices_waits_for_them(autojump_clock: MockClock) -> None:
    here = machine(FakeRunner(CUDA0, delay=6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.discover)
        early = await here.known(5)
        assert not here.is_known
        assert early.devices == ()
        assert "still being looked for" in texts(early)
        # Without a limit: threads are no reason for this clock to wait.
        assert len((await here.known()).devices) == 1
        assert here.is_known


async def test_a_reading_before_the_first_look_has_no_devices(autojump_clock: MockClock) -> None:
    here = machine(FakeRunner(CUDA0))
    hardware = await here.reading()
    assert hardware.memory.free == 8 * GIB
    assert (hardware.devices, "still being looked for" in texts(hardware)) == ((), True)


async def test_results_that_differ_are_reported(tmp_path: Path) -> None:
    reported: list[int] = []
    runner = FakeRunner()
    here = Machine(
        runner, FakeMakers(), Rules(), found=lambda found: reported.append(len(found.devices))
    )
    await here.discover()
    await here.discover()
    runner.rows = (CUDA0,)
    await here.discover()
    assert reported == [0, 1]


# --- memory ---------------------------------------------------------------------------------------


async def test_fresh_figures() -> None:

    makers = FakeMakers(Survey((T4,)), fresh=(replace(T4, free=100 * MIB),))
    here = machine(FakeRunner(CUDA0), makers)
    await here.discover()
    assert (await here.reading()).devices[0].free_memory == 100 * MIB
    makers.fresh = (replace(T4, free=15360 * MIB),)
    # Never more than the runner can use.
    assert (await here.reading()).devices[0].free_memory == 15000 * MIB
    # The last result stays what it was.
    assert here.hardware.devices[0].free_memory == 9000 * MIB


async def test_a_device_that_does_not_answer_keeps_its_figure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = machine(FakeRunner(CUDA0), FakeMakers(Survey((T4,))))
    await here.discover()
    assert (await here.reading()).devices[0].free_memory == 9000 * MIB
    assert "unable to refresh free memory, using old values" in caplog.text


async def test_figures_that_come_too_late_are_not_waited_for(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheduler goes on without any device when a reading takes ten seconds."""
    makers = FakeMakers(Survey((T4,)), fresh=(replace(T4, free=GIB),))
    here = machine(FakeRunner(CUDA0), makers)
    await here.discover()
    makers.delay = 60
    began = trio.current_time()
    assert (await here.reading()).devices[0].free_memory == 9000 * MIB
    assert trio.current_time() - began < 10
    assert "unable to refresh free memory, using old values" in caplog.text


@pytest.mark.parametrize(
    ("row", "integrated", "free"),
    [
        (CUDA0, True, 8 * GIB),
        ("CUDA0: NVIDIA T4 (5000 MiB, 4000 MiB free)", True, 5000 * MIB),
        (CUDA0, False, 9000 * MIB),
    ],
)
async def test_shared_memory_is_the_systems(row: str, integrated: bool, free: int) -> None:

    total = 5000 * MIB if "(5000" in row else T4.total
    vendor = replace(T4, integrated=integrated, total=total)
    here = machine(FakeRunner(row), FakeMakers(Survey((vendor,)), fresh=(vendor,)))
    await here.discover()
    assert (await here.reading()).devices[0].free_memory == free


async def test_a_device_that_comes_later_is_found(mock_clock: MockClock, tmp_path: Path) -> None:
    """A driver that was not ready at boot: nothing found though a device file is there."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    runner = FakeRunner()
    here = machine(runner, root=tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        await here.known()
        assert (await here.reading()).devices == ()
        assert len(runner.asked) == 1
        mock_clock.jump(AGAIN_AFTER)
        assert (await here.reading()).devices == ()
        assert (await here.reading()).devices == ()
        assert len(runner.asked) == 2
        mock_clock.jump(AGAIN_AFTER)
        runner.rows = (CUDA0,)
        assert len((await here.reading()).devices) == 1
        assert len(here.hardware.devices) == 1
        asked = len(runner.asked)
        mock_clock.jump(2 * AGAIN_AFTER)
        await here.reading()
        assert len(runner.asked) == asked
        nursery.cancel_scope.cancel()


async def test_a_driver_that_wakes_up_longer_than_anybody_waits_is_found(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    """Readings have a deadline. A look that ended with it would find nothing, again and again."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    runner = FakeRunner()
    here = machine(runner, root=tmp_path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        await here.known()
        mock_clock.jump(AGAIN_AFTER)
        runner.rows, runner.delay = (CUDA0,), 20
        async with trio.open_nursery() as clients:
            clients.start_soon(here.reading)
            clients.start_soon(here.reading)
            while len(runner.asked) < 2:
                await trio.lowlevel.checkpoint()
            clients.cancel_scope.cancel()
        # Another one joins the same look.
        early: list[Hardware] = []

        async def ask() -> None:
            early.append(await here.reading())

        async with trio.open_nursery() as clients:
            clients.start_soon(ask)
            await wait_all_tasks_blocked()
            mock_clock.jump(6)
        assert early[0].devices == ()
        runner.delay = 0
        mock_clock.jump(14)
        while not here.hardware.devices:
            await trio.lowlevel.checkpoint()
        # The list and the proof: nobody began a look of his own.
        assert len(runner.asked) == 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("vendors", "again"),
    [((), False), (("0x8086",), False), (("0x8086", "0x10de"), True), (("0x1002",) * 2, True)],
)
async def test_a_gpu_that_is_left_out_is_not_looked_for_again(
    mock_clock: MockClock, tmp_path: Path, vendors: tuple[str, ...], again: bool
) -> None:
    """Where all are listed no driver is missing: each load would wait for the same list anew."""
    (tmp_path / "dev/dri").mkdir(parents=True)
    (tmp_path / "dev/dri/renderD128").touch()
    for number, vendor in enumerate(vendors):
        card = tmp_path / f"sys/bus/pci/devices/0000:0{number}:02.0"
        card.mkdir(parents=True)
        (card / "vendor").write_text(f"{vendor}\n")
        (card / "class").write_text("0x030000\n")
    runner = FakeRunner(
        "Vulkan0: UHD (8000 MiB, 7000 MiB free)",
        messages="ggml_vulkan: 0 = UHD (Intel) | uma: 1 | fp16: 1\n",
    )
    here = machine(runner, root=tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        assert (await here.known()).devices == ()
        mock_clock.jump(AGAIN_AFTER)
        await here.reading()
        assert len(runner.asked) == (2 if again else 1)
        nursery.cancel_scope.cancel()


NO_CUDA = "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"


@pytest.mark.parametrize(
    ("said", "comes"),
    [(f"{NO_CUDA}\nload: failed to find a file\n", True), ("failed to load a plugin\n", False)],
)
async def test_a_package_with_a_backend_of_gpus_is_asked_again(
    mock_clock: MockClock, tmp_path: Path, said: str, comes: bool
) -> None:
    """Its files do not show what it was built with, but its messages do, without a driver too."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    facts = RunnerFacts(title="the embedded runner", embedded=True)
    runner = FakeRunner(facts=facts, messages=said)
    here = machine(runner, FakeMakers(Survey((T4,))), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.run)
        told = texts(await here.known())
        assert ("has no support for CUDA" in told) is not comes
        assert (NO_CUDA in told) is comes
        runner.rows, runner.messages = (CUDA0,), ""
        mock_clock.jump(AGAIN_AFTER)
        assert bool((await here.reading()).devices) is comes
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("file", "libraries"),
    [
        ("", None),
        ("dev/nvidia0", frozenset[str]()),
        ("dev/kfd", frozenset({"CUDA"})),
    ],
)
async def test_what_cannot_come_is_not_looked_for_again(
    autojump_clock: MockClock, tmp_path: Path, file: str, libraries: frozenset[str] | None
) -> None:
    if file:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    runner = FakeRunner(facts=RunnerFacts(title="it", libraries=libraries))
    here = machine(runner, root=tmp_path)
    await here.discover()
    await trio.sleep(2 * AGAIN_AFTER)
    await here.reading()
    assert len(runner.asked) == 1


async def test_the_process_of_the_makers_libraries_ends_with_it() -> None:
    makers = FakeMakers()
    await machine(FakeRunner(), makers).aclose()
    assert makers.closed
