"""Devices to use and reasons for the others, runners-and-scheduling.md 1.2 to 1.8 and 8.2."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ollamad.hardware.device import Device
from ollamad.hardware.finding import Backend, Candidate, Outcome, Pass, Rules, RunnerFacts
from ollamad.hardware.listing import Listed, parse_listing
from ollamad.hardware.merge import admitted, candidates, chosen, free_memory, isolated
from ollamad.hardware.vendor import Note, Survey, VendorDevice

MIB = 1 << 20
GIB = 1 << 30
TI = "NVIDIA GeForce RTX 4060 Ti"
RUNNER = RunnerFacts(title="the runner /opt/llama-server", libraries=None)
CPU_RUNNER = RunnerFacts(title="the embedded runner (package xllamacpp)", libraries=frozenset())


def lines(*rows: str, messages: str = "") -> tuple[Listed, ...]:
    found = parse_listing("Available devices:\n" + "".join(f"  {row}\n" for row in rows), messages)
    assert len(found) == len(rows)
    return found


def nvidia(index: int = 0, name: str = TI, mib: int = 16380, **more: Any) -> VendorDevice:
    known: dict[str, Any] = {
        "uuid": f"GPU-{index}",
        "pci_id": f"0000:0{index + 1}:00.0",
        "total": mib * MIB,
        "free": mib * MIB,
        "compute": (8, 9),
        "driver": (12, 8),
        "nvidia_driver": 570,
    }
    return VendorDevice(source="nvml", index=index, library="CUDA", name=name, **(known | more))


def outcome(
    *passes: Pass,
    survey: tuple[VendorDevice, ...] = (),
    runner: RunnerFacts = RUNNER,
    notes: tuple[Note, ...] = (),
    **rules: Any,
) -> Outcome:
    rules_ = Rules(platform="linux", **rules)
    known = Survey(survey, notes)
    found, said = candidates(passes, known, rules_, runner)
    return chosen(found, passes, known, rules_, runner, said)


def texts(found: Outcome) -> str:
    return "\n".join(f"{note.level}: {note.text} | {note.hint}" for note in found.notes)


# --- what a device is -----------------------------------------------------------------------------


def test_a_device_with_all_that_is_known() -> None:
    listed = lines(f"CUDA0: {TI} (16107 MiB, 15000 MiB free)")
    found = outcome(
        Pass(
            backend=Backend(variant="cuda_v13", directories=(Path("/l"), Path("/l/cuda_v13"))),
            devices=listed,
        ),
        survey=(nvidia(free=14000 * MIB, integrated=False),),
    )
    assert found.devices == (
        Device(
            id="0",
            library="CUDA",
            name="CUDA0",
            description=TI,
            filter_id="0",
            uuid="GPU-0",
            pci_id="0000:01:00.0",
            integrated=False,
            total_memory=16107 * MIB,
            free_memory=14000 * MIB,
            compute=(8, 9),
            driver=(12, 8),
            nvidia_driver=570,
            library_path=(Path("/l"), Path("/l/cuda_v13")),
        ),
    )
    assert found.notes == ()
    assert found.vendors == (nvidia(free=14000 * MIB, integrated=False),)


def test_a_device_that_nothing_more_is_known_about() -> None:
    (device,) = outcome(Pass(devices=lines("CUDA0: X (100 MiB, 50 MiB free)"))).devices
    assert (device.compute_text, device.driver_text, device.pci_id) == ("0.0", "0.0", "")
    assert not device.flash_attention


@pytest.mark.parametrize(
    ("free", "vendor", "expected"),
    [
        (50, None, 50),
        (150, None, 100),
        (50, nvidia(mib=0, total=100, free=40), 40),
        (50, nvidia(mib=0, total=100, free=60), 50),
        (50, nvidia(mib=0, total=0, free=0), 50),
        # What a board with shared memory says is the system's matter.
        (50, nvidia(mib=0, total=100, free=1, integrated=True), 50),
    ],
)
def test_free_memory_is_the_smaller_figure(
    free: int, vendor: VendorDevice | None, expected: int
) -> None:
    assert free_memory(free, 100, vendor) == expected


@pytest.mark.parametrize(
    ("capability", "architectures", "kept"),
    [
        ("6.1", "750,800,860,890", False),
        ("8.9", "750,800,860,890", True),
        ("6.1", "", True),
        ("12.0", "1200", True),
        ("", "750,800", True),
        # Code for a newer generation than the runner's: the driver may translate it.
        ("9.0", "750,800,860,890", True),
        ("8.7", "800", True),
    ],
)
def test_compiled_architectures(capability: str, architectures: str, kept: bool) -> None:
    messages = f"Device 0: X, compute capability {capability}, VMM: yes" if capability else ""
    found = outcome(
        Pass(
            devices=lines("CUDA0: X (9000 MiB, 8000 MiB free)", messages=messages),
            architectures=frozenset(filter(None, architectures.split(","))),
        )
    )
    assert bool(found.devices) is kept
    if kept and capability:
        assert found.devices[0].compute_text == capability
    if not kept:
        assert "compute capability is 6.1" in texts(found)
        assert "7.5 and newer" in texts(found)


@pytest.mark.parametrize(
    ("capability", "warns"), [("8.9", False), ("8.7", False), ("9.0", True), ("", True)]
)
def test_a_device_that_may_not_work_is_used_with_a_warning(capability: str, warns: bool) -> None:
    messages = f"Device 0: X, compute capability {capability}, VMM: yes" if capability else ""
    devices = lines("CUDA0: X (9000 MiB, 8000 MiB free)", messages=messages)
    found = outcome(Pass(devices=devices, architectures=frozenset({"800", "890"})))
    assert len(found.devices) == 1
    assert bool(found.notes) is warns


def test_one_of_two_is_too_old() -> None:
    messages = "Device 0: A, compute capability 6.1\nDevice 1: B, compute capability 8.9\n"
    found = outcome(
        Pass(
            devices=lines(
                "CUDA0: A (8000 MiB, 8000 MiB free)",
                "CUDA1: B (8000 MiB, 8000 MiB free)",
                messages=messages,
            ),
            architectures=frozenset({"750", "800", "860", "890"}),
        )
    )
    assert [(d.name, d.id, d.filter_id) for d in found.devices] == [("CUDA1", "0", "1")]


def test_what_the_driver_knows_counts_for_the_architecture() -> None:
    passes = Pass(
        devices=lines(f"CUDA0: {TI} (16107 MiB, 15000 MiB free)"),
        architectures=frozenset({"610", "750", "800"}),
    )
    (device,) = outcome(passes, survey=(nvidia(compute=(6, 1), driver=(12, 0)),)).devices
    assert (device.compute, device.driver, device.nvidia_driver) == ((6, 1), (12, 0), 570)
    assert device.pci_id == "0000:01:00.0"


def test_the_cuda_runtime_stands_in_for_an_unknown_driver() -> None:
    devices = lines("NVIDIA GeForce RTX 4090: NVIDIA CUDA (24564 MiB, 23592 MiB free)")
    (device,) = outcome(
        Pass(backend=Backend(variant="cuda_v12", runtime=(12, 0)), devices=devices)
    ).devices
    assert (device.name, device.driver_text) == ("NVIDIA GeForce RTX 4090", "12.0")


def test_rocm_devices_have_a_target() -> None:
    devices = lines(
        "ROCm0: AMD Radeon RX 6700 XT (12272 MiB, 12000 MiB free)",
        messages="Device 0: AMD Radeon RX 6700 XT, gfx1031 (0x1031), VMM: no",
    )
    (device,) = outcome(Pass(devices=devices)).devices
    assert (device.compute_text, device.gfx_target) == ("gfx1031", "gfx1031")
    (unknown,) = outcome(Pass(devices=lines("HIP0: foo (10 MiB, 5 MiB free)"))).devices
    assert (unknown.library, unknown.compute_text) == ("ROCm", "gfx000")


def test_rocm_needs_kernels_for_the_target() -> None:
    devices = lines(
        "ROCm0: AMD Radeon RX 6700 XT (12272 MiB, 12000 MiB free)",
        messages="Device 0: AMD Radeon RX 6700 XT, gfx1031 (0x1031), VMM: no",
    )
    runner = RunnerFacts(title="it", rocm_targets=frozenset({"gfx1030"}))
    found = outcome(Pass(devices=devices), runner=runner)
    assert found.devices == ()
    assert "no kernels for gfx1031 (it has gfx1030)" in texts(found)
    assert "HSA_OVERRIDE_GFX_VERSION" in texts(found)
    environ = {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}
    (device,) = outcome(Pass(devices=devices), runner=runner, environ=environ).devices
    assert device.gfx_target == "gfx1030"
    silent = lines("ROCm0: AMD Radeon RX 6700 XT (12272 MiB, 12000 MiB free)")
    assert len(outcome(Pass(devices=silent), runner=runner).devices) == 1


@pytest.mark.parametrize(
    ("branch", "runtime", "kept"),
    [
        (535, (12, 8), {"Vulkan0"}),
        (565, (12, 8), {"CUDA1", "Vulkan0"}),
        (570, (12, 8), {"CUDA0", "CUDA1", "Vulkan0"}),
        (535, (12, 2), {"CUDA0", "CUDA1", "Vulkan0"}),
        (535, (13, 0), {"CUDA0", "CUDA1", "Vulkan0"}),
        (0, (12, 8), {"CUDA0", "CUDA1", "Vulkan0"}),
        (0, (12, 2), {"CUDA0", "CUDA1", "Vulkan0"}),
        (549, (12, 4), {"Vulkan0"}),
        (550, (12, 4), {"CUDA0", "CUDA1", "Vulkan0"}),
        (550, (12, 7), {"CUDA0", "CUDA1", "Vulkan0"}),
    ],
)
def test_the_floor_of_nvidias_driver(branch: int, runtime: tuple[int, int], kept: set[str]) -> None:
    devices = lines(
        "CUDA0: A (8000 MiB, 8000 MiB free)",
        "CUDA1: B (8000 MiB, 8000 MiB free)",
        "Vulkan0: C (8000 MiB, 8000 MiB free)",
    )
    survey = (
        nvidia(0, "A", 8000, compute=(6, 1), nvidia_driver=branch),
        nvidia(1, "B", 8000, compute=(7, 5), nvidia_driver=branch),
    )
    found = outcome(
        Pass(backend=Backend(variant="cuda_v12", runtime=runtime), devices=devices), survey=survey
    )
    assert {device.name for device in found.devices} == kept
    if branch and len(kept) < 3:
        required = "550" if branch < 550 else "570"
        assert f'required_driver="{required} or newer"' in texts(found)
    doubted = "the version of NVIDIA's driver is unknown" in texts(found)
    assert doubted is (not branch and (12, 4) <= runtime < (13, 0))
    other = outcome(
        Pass(backend=Backend(variant="cuda_v13", runtime=runtime), devices=devices), survey=survey
    )
    assert len(other.devices) == 3


IGPUS = (
    Listed(name="CUDA0", description="c", library="CUDA", ordinal=0, total=GIB, free=0),
    Listed(name="MTL0", description="m", library="Metal", ordinal=0, total=GIB, free=0),
    Listed(name="Vulkan0", description="v", library="Vulkan", ordinal=0, total=GIB, free=0),
    Listed(
        name="ROCm0", description="r", library="ROCm", ordinal=0, total=GIB, free=0, gfx="gfx1103"
    ),
    Listed(
        name="ROCm1", description="s", library="ROCm", ordinal=1, total=GIB, free=0, gfx="gfx1151"
    ),
    Listed(
        name="Vulkan1",
        description="d",
        library="Vulkan",
        ordinal=1,
        total=GIB,
        free=0,
        integrated=False,
    ),
)


@pytest.mark.parametrize(
    ("setting", "apple", "kept"),
    [
        (None, False, {"CUDA0", "ROCm1", "Vulkan1"}),
        (True, False, {"CUDA0", "MTL0", "Vulkan0", "ROCm0", "ROCm1", "Vulkan1"}),
        (False, False, {"Vulkan1"}),
        (False, True, {"CUDA0", "MTL0", "Vulkan0", "ROCm0", "ROCm1", "Vulkan1"}),
    ],
)
def test_integrated_gpus(setting: bool | None, apple: bool, kept: set[str]) -> None:
    listed = [replace(d, integrated=d.integrated is None) for d in IGPUS]
    found = outcome(Pass(devices=tuple(listed)), igpu_enable=setting, apple_silicon=apple)
    assert {device.name for device in found.devices} == kept
    if setting is None and not apple:
        assert "dropping integrated GPU" in texts(found)
        assert "to enable, set OLLAMA_IGPU_ENABLE=1" in texts(found)


def test_who_says_that_memory_is_shared() -> None:
    listed = lines(f"CUDA0: {TI} (16107 MiB, 15000 MiB free)", "MTL0: Apple (9 MiB, 9 MiB free)")
    found = outcome(Pass(devices=listed), survey=(nvidia(integrated=True),), apple_silicon=True)
    assert [device.integrated for device in found.devices] == [True, True]
    found = outcome(Pass(devices=listed))
    assert [device.integrated for device in found.devices] == [False, False]


# --- directories of backends ----------------------------------------------------------------------

VARIANTS = ("vulkan", "mlx_cuda_v13", "cuda_v12", "cuda_v13", "cuda_jetpack5")


@pytest.mark.parametrize(
    ("rules", "jetpack", "expected"),
    [
        ({}, "", ["cuda_v12", "cuda_v13", "mlx_cuda_v13", "vulkan"]),
        ({"llm_library": "cuda_v12"}, "", ["cuda_v12"]),
        ({"llm_library": "cpu_avx2"}, "", []),
        ({"llm_library": "vulkan", "vulkan": False}, "", []),
        ({"vulkan": False}, "", ["cuda_v12", "cuda_v13", "mlx_cuda_v13"]),
        ({"llm_library": "mlx_x"}, "", ["cuda_v12", "cuda_v13", "mlx_cuda_v13", "vulkan"]),
        ({}, "jetpack5", ["cuda_jetpack5"]),
        ({}, "jetpack6", ["cuda_v12", "cuda_v13", "mlx_cuda_v13", "vulkan"]),
        ({"llm_library": "cuda_v12"}, "jetpack5", []),
    ],
)
def test_which_directories_are_asked(
    rules: dict[str, Any], jetpack: str, expected: list[str]
) -> None:
    assert admitted(VARIANTS, Rules(**rules), jetpack) == expected


def variant(name: str, *numbers: int) -> Pass:
    rows = [f"CUDA{n}: GPU {n} (8000 MiB, 8000 MiB free)" for n in numbers]
    return Pass(backend=Backend(variant=name, directories=(Path(name),)), devices=lines(*rows))


@pytest.mark.parametrize(
    ("passes", "kept"),
    [
        ([variant("v12", 0, 1), variant("v13", 0, 1)], {("v13", "CUDA0"), ("v13", "CUDA1")}),
        ([variant("v13", 0), variant("v12", 0, 1)], {("v12", "CUDA0"), ("v12", "CUDA1")}),
        ([variant("v13", 0), variant("v12", 1)], {("v13", "CUDA0"), ("v12", "CUDA1")}),
    ],
)
def test_one_directory_for_each_device(passes: list[Pass], kept: set[tuple[str, str]]) -> None:
    found = outcome(*passes)
    assert {(d.library_path[0].name, d.name) for d in found.devices} == kept
    assert [device.id for device in found.devices] == [str(i) for i in range(len(kept))]


def test_all_directories_know_the_same_device() -> None:
    found = outcome(*(variant(name, 0) for name in ("cuda_v12", "cuda_v13", "mlx_x", "vulkan")))
    assert [device.library_path for device in found.devices] == [(Path("vulkan"),)]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("cpu", set()),
        ("CPU_avx2", set()),
        ("cuda_v12", {"CUDA0"}),
        ("vulkan", {"Vulkan0"}),
        ("rocm", set()),
        ("nonsense", {"CUDA0", "Vulkan0"}),
        ("", {"CUDA0", "Vulkan0"}),
    ],
)
def test_the_users_library_without_directories(setting: str, names: set[str]) -> None:
    devices = lines("CUDA0: A (80 MiB, 80 MiB free)", "Vulkan0: B (80 MiB, 80 MiB free)")
    found = outcome(Pass(devices=devices), llm_library=setting)
    assert {device.name for device in found.devices} == names
    assert ("OLLAMA_LLM_LIBRARY is" in texts(found)) is (len(names) < 2)


def test_vulkan_switched_off() -> None:
    found = outcome(Pass(devices=lines("Vulkan0: B (80 MiB, 80 MiB free)")), vulkan=False)
    assert found.devices == ()
    assert "OLLAMA_VULKAN is off" in texts(found)


# --- what selects a device ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "row", "filter_id"),
    [
        ({"CUDA_VISIBLE_DEVICES": "1"}, "CUDA0", "1"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "ROCm0", "1"),
        ({"CUDA_VISIBLE_DEVICES": "1"}, "Vulkan0", "0"),
        ({"CUDA_VISIBLE_DEVICES": " 3 , 4 "}, "CUDA1", "4"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "CUDA1", "1"),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, "ROCm1", "0"),
        ({}, "CUDA3", "3"),
    ],
)
def test_the_users_words(environ: dict[str, str], row: str, filter_id: str) -> None:
    found = outcome(Pass(devices=lines(f"{row}: X (80 MiB, 80 MiB free)")), environ=environ)
    assert [(d.id, d.filter_id) for d in found.devices] == [("0", filter_id)]


def test_a_device_alone_is_asked_for_by_the_same_word() -> None:
    rules = Rules(environ={"CUDA_VISIBLE_DEVICES": "5"}, platform="linux")
    passes = [Pass(devices=lines("CUDA0: X (80 MiB, 80 MiB free)"))]
    (candidate,), _ = candidates(passes, Survey(), rules, RUNNER)
    assert isolated(candidate, rules).filter_id == "5"


def test_each_library_has_its_own_numbers_and_a_gpu_counts_once() -> None:
    devices = lines(
        "Vulkan0: Intel(R) UHD Graphics 770 (8000 MiB, 8000 MiB free)",
        f"Vulkan1: {TI} (16107 MiB, 16000 MiB free)",
        f"CUDA0: {TI} (16380 MiB, 16000 MiB free)",
        "CUDA1: NVIDIA T4 (15000 MiB, 15000 MiB free)",
    )
    found = outcome(Pass(devices=devices), survey=(nvidia(0), nvidia(1, "NVIDIA T4", 15000)))
    assert [(d.library, d.id, d.filter_id) for d in found.devices] == [
        ("Vulkan", "0", "0"),
        ("CUDA", "0", "0"),
        ("CUDA", "1", "1"),
    ]
    assert found.notes == ()


# --- what is said ---------------------------------------------------------------------------------


def test_the_processors_runner_and_a_card() -> None:
    found = outcome(Pass(), survey=(nvidia(),), runner=CPU_RUNNER)
    assert found.devices == ()
    (note,) = found.notes
    assert note.level == "warning"
    assert note.text == (
        f"{TI} (GPU-0) is not used: the embedded runner (package xllamacpp) has no support for CUDA"
    )
    assert "runners/build-llama-server --preset cuda" in note.hint
    assert "OLLAMAD_LLAMA_SERVER" in note.hint


@pytest.mark.parametrize(
    ("runner", "each", "words"),
    [
        (RUNNER, Pass(), "lists no CUDA device for it"),
        (RUNNER, Pass(error="exit status 1"), "could not list its devices"),
        (
            RunnerFacts(title="it", libraries=frozenset({"CUDA"})),
            Pass(),
            "supports CUDA and lists no device",
        ),
        (RUNNER, Pass(complaint="too old"), "lists no CUDA device for it (too old)"),
        (
            RunnerFacts(title="it", libraries=frozenset({"CUDA"})),
            Pass(complaint="too old"),
            "supports CUDA and lists no device for it (too old)",
        ),
        (
            RunnerFacts(title="it", libraries=frozenset({"Vulkan"})),
            Pass(),
            "has no support for CUDA",
        ),
    ],
)
def test_why_a_card_is_idle(runner: RunnerFacts, each: Pass, words: str) -> None:
    assert words in texts(outcome(each, survey=(nvidia(),), runner=runner))


@pytest.mark.parametrize("value", ["-1", "", "1"])
def test_a_card_that_the_user_hid(value: str) -> None:
    found = outcome(Pass(), survey=(nvidia(),), environ={"CUDA_VISIBLE_DEVICES": value})
    (note,) = found.notes
    assert note.level == "info"
    assert f"CUDA_VISIBLE_DEVICES is '{value}'" in note.text


def test_an_amd_card_that_the_user_hid() -> None:
    card = VendorDevice(
        source="amd", index=0, library="ROCm", name="RX 6400", pci_id="0000:03:00.0"
    )
    found = outcome(Pass(), survey=(card,), environ={"ROCR_VISIBLE_DEVICES": "7"})
    assert [note.text for note in found.notes] == [
        "RX 6400 (0000:03:00.0) is not among those of ROCR_VISIBLE_DEVICES=7"
    ]


def test_nothing_is_said_twice() -> None:
    said = Note("warning", "something from the survey")
    devices = lines(
        f"CUDA0: {TI} (16107 MiB, 15000 MiB free)",
        messages="Device 0: X, compute capability 3.5",
    )
    found = outcome(
        Pass(devices=devices, architectures=frozenset({"800"})),
        survey=(nvidia(compute=(3, 5)),),
        notes=(said, said),
    )
    assert found.devices == ()
    assert len(found.notes) == 2
    assert found.notes[0] == said
    assert "compute capability is 3.5" in found.notes[1].text


def test_a_card_used_through_vulkan_is_used() -> None:
    devices = lines(f"Vulkan0: {TI} (16107 MiB, 15000 MiB free)")
    found = outcome(Pass(devices=devices), survey=(nvidia(),))
    assert found.notes == ()
    (device,) = found.devices
    assert (device.pci_id, device.uuid, device.compute_text) == ("0000:01:00.0", "", "0.0")


def test_a_listing_that_failed_is_told() -> None:
    found = outcome(
        Pass(
            backend=Backend(variant="cuda_v12"),
            error="llama-server --list-devices failed: status 1",
        )
    )
    assert texts(found).startswith(
        "warning: failure during llama-server GPU discovery with cuda_v12: "
        "llama-server --list-devices failed: status 1"
    )


def test_candidates_that_failed_their_proof_are_gone() -> None:
    passes = [Pass(devices=lines("CUDA0: A (8 MiB, 8 MiB free)", "CUDA1: B (8 MiB, 8 MiB free)"))]
    rules = Rules(platform="linux")
    found, _ = candidates(passes, Survey(), rules, RUNNER)
    assert [type(c) for c in found] == [Candidate, Candidate]
    result = chosen(found[1:], passes, Survey(), rules, RUNNER)
    assert [(d.id, d.name, d.filter_id) for d in result.devices] == [("0", "CUDA1", "1")]
