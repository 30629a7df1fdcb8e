"""A runner's list of devices, runners-and-scheduling.md 1.4 and the cases of 8.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.hardware.listing import (
    Listed,
    last_complaint,
    library_of,
    parse_architectures,
    parse_listing,
)
from ollamad.hardware.vendor import MOST_DEVICES

MIB = 1 << 20
HEAD = "Available devices:\n"


def one(line: str, messages: str = "") -> Listed:
    (device,) = parse_listing(f"{HEAD}{line}\n", messages)
    return device


def test_a_cuda_device() -> None:
    device = one("  CUDA0: NVIDIA GeForce RTX 4090 (24564 MiB, 23592 MiB free)")
    assert device == Listed(
        name="CUDA0",
        description="NVIDIA GeForce RTX 4090",
        library="CUDA",
        ordinal=0,
        total=24564 * MIB,
        free=23592 * MIB,
    )


@pytest.mark.parametrize(
    ("line", "name", "description", "library"),
    [
        (
            "  NVIDIA GeForce RTX 4090: NVIDIA CUDA (24564 MiB, 23592 MiB free)",
            "NVIDIA GeForce RTX 4090",
            "NVIDIA CUDA",
            "CUDA",
        ),
        ("  Metal: Apple M3 Max (98304 MiB, 98303 MiB free)", "Metal", "Apple M3 Max", "Metal"),
        ("  MTL0: Apple M3 Max (98304 MiB, 98303 MiB free)", "MTL0", "Apple M3 Max", "Metal"),
        (
            "  Vulkan0: AMD Radeon (RADV NAVI24) (4096 MiB, 4000 MiB free)",
            "Vulkan0",
            "AMD Radeon (RADV NAVI24)",
            "Vulkan",
        ),
        (
            "  Future0: Mystery Accelerator (8192 MiB, 8000 MiB free)",
            "Future0",
            "Mystery Accelerator",
            "Mystery Accelerator",
        ),
        (
            "  SYCL0: Intel(R) Arc(TM) A770 Graphics (8192 MiB, 8000 MiB free)",
            "SYCL0",
            "Intel(R) Arc(TM) A770 Graphics",
            "Intel(R) Arc(TM) A770 Graphics",
        ),
        ("  MUSA0: MTT S80 (8192 MiB, 8000 MiB free)", "MUSA0", "MTT S80", "MTT S80"),
        ("  HIP0: foo (10 MiB, 5 MiB free)", "HIP0", "foo", "ROCm"),
        ("  CANN0: Ascend chip (10 MiB, 5 MiB free)", "CANN0", "Ascend chip", "Ascend chip"),
        (
            "  RPC[10.0.0.1:50052]: RPC[10.0.0.1:50052] (100 MiB, 50 MiB free)",
            "RPC[10.0.0.1:50052]",
            "RPC[10.0.0.1:50052]",
            "RPC[10.0.0.1:50052]",
        ),
        ("\tROCm1: AMD Radeon PRO (8192 MiB, 8000 MiB free)\r", "ROCm1", "AMD Radeon PRO", "ROCm"),
    ],
)
def test_names_descriptions_and_libraries(
    line: str, name: str, description: str, library: str
) -> None:
    device = one(line)
    assert (device.name, device.description, device.library) == (name, description, library)


@pytest.mark.parametrize(
    "text", ["Available devices:\n", "", "Available devices:\n  (none)\n", "\0\xff\n"]
)
def test_no_device(text: str) -> None:
    assert parse_listing(text) == ()


@pytest.mark.parametrize(
    "line",
    [
        "CUDA0: flush left is no device (24564 MiB, 23592 MiB free)",
        "  CUDA0: no memory",
        "  CUDA0: memory in another unit (24 GiB, 23 GiB free)",
        "  CUDA0: negative (-1 MiB, 5 MiB free)",
        "  CUDA0: more than there can be (999999999999 MiB, 5 MiB free)",
        "  CUDA0: no number at all (99999999999999999999999 MiB, 5 MiB free)",
        "  : nameless (10 MiB, 5 MiB free)",
        "  CUDA0: " + "long" * 2000 + " (10 MiB, 5 MiB free)",
    ],
)
def test_a_line_that_cannot_be_is_no_device(line: str) -> None:
    assert parse_listing(HEAD + line) == ()


def test_a_device_without_memory_takes_no_number() -> None:
    """The reference calls this CUDA0 device 1, with the capability of device 1."""
    device = one(
        "  BLAS: OpenBLAS (0 MiB, 0 MiB free)\n"
        "  CUDA0: NVIDIA GeForce RTX 4090 (24564 MiB, 23592 MiB free)",
        "  Device 0: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes\n",
    )
    assert (device.name, device.ordinal, device.compute) == ("CUDA0", 0, (8, 9))


def test_more_free_than_total_is_total() -> None:
    assert one("  CUDA0: liar (10 MiB, 50 MiB free)").free == 10 * MIB


def test_numbers_count_by_library() -> None:
    devices = parse_listing(
        HEAD + "  CUDA0: A (10 MiB, 5 MiB free)\n"
        "  CUDA2: B (10 MiB, 5 MiB free)\n"
        "  Vulkan0: C (10 MiB, 5 MiB free)\n"
        "  Box 7: Mystery (10 MiB, 5 MiB free)\n"
        "  Box 9: Mystery (10 MiB, 5 MiB free)\n"
        "  CUDA0: A (10 MiB, 5 MiB free)\n"
    )
    assert [(d.name, d.ordinal) for d in devices] == [
        ("CUDA0", 0),
        ("CUDA2", 2),
        ("Vulkan0", 0),
        ("Box 7", 0),
        ("Box 9", 1),
    ]


CUDA_MESSAGES = """\
0.36.189 I ggml_cuda_init: found 2 CUDA devices (Total VRAM: 32623 MiB):
0.36.190 I   Device 0: NVIDIA GeForce GTX 1080, compute capability 6.1, VMM: yes, VRAM: 8113 MiB
0.36.191 I   Device 1: NVIDIA GeForce RTX 4090, compute capability 8.9, VMM: yes, VRAM: 24510 MiB
0.36.200 I load_backend: loaded CUDA backend from /lib/libggml-cuda.so
"""


def test_compute_capabilities_go_by_number() -> None:
    devices = parse_listing(
        HEAD + "  CUDA0: NVIDIA GeForce GTX 1080 (8113 MiB, 8000 MiB free)\n"
        "  CUDA1: NVIDIA GeForce RTX 4090 (24510 MiB, 24000 MiB free)\n"
        "  Vulkan0: NVIDIA GeForce GTX 1080 (8113 MiB, 8000 MiB free)\n",
        CUDA_MESSAGES,
    )
    assert [device.compute for device in devices] == [(6, 1), (8, 9), (0, 0)]


@pytest.mark.parametrize(
    ("message", "target"),
    [
        ("Device 0: AMD Radeon RX 6700 XT, gfx1031 (0x1031), VMM: no, Wave Size: 32", "gfx1031"),
        ("Device 0: AMD Radeon Pro VII, gfx906:sramecc+:xnack- (0x906), VMM: no", "gfx906"),
        ("Device 0: AMD Instinct MI210, gfx90a", "gfx90a"),
        ("Device 0: AMD something, gfx90axyz (0x0)", ""),
        ("Device 1: AMD Radeon RX 6700 XT, gfx1031 (0x1031)", ""),
        ("AMD Radeon RX 6700 XT, gfx1031 (0x1031)", ""),
    ],
)
def test_rocm_targets(message: str, target: str) -> None:
    assert one("  ROCm0: AMD (10 MiB, 5 MiB free)", message).gfx == target


def test_vulkan_tells_what_shares_memory() -> None:
    messages = (
        "ggml_vulkan: Found 3 Vulkan devices:\n"
        "ggml_vulkan: 0 = Intel(R) Graphics (RPL-P) (Intel driver) | uma: 1 | fp16: 1 | bf16: 0\n"
        "ggml_vulkan: 1 = NVIDIA GeForce RTX 4060 (NVIDIA) | uma: 0 | fp16: 1 | bf16: 0\n"
    )
    devices = parse_listing(
        HEAD + "  Vulkan0: Intel(R) Graphics (RPL-P) (16000 MiB, 15000 MiB free)\n"
        "  Vulkan1: NVIDIA GeForce RTX 4060 (8188 MiB, 8000 MiB free)\n"
        "  Vulkan2: llvmpipe (8188 MiB, 8000 MiB free)\n",
        messages,
    )
    assert [device.integrated for device in devices] == [True, False, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "system_info: n_threads = 8 | CUDA : ARCHS = 750,800,860,890 | USE_GRAPHS = 1 | CPU :",
            {"750", "800", "860", "890"},
        ),
        ("0.00.1 I system_info: | CUDA : ARCHS = 1200 | PEER_MAX_BATCH_SIZE = 128", {"1200"}),
        ("system_info: n_threads = 8 | CPU : SSE3 = 1", set()),
        ("CUDA : ARCHS = ,,", set()),
        ("", set()),
    ],
)
def test_compiled_architectures(text: str, expected: set[str]) -> None:
    assert parse_architectures(text) == expected


def test_the_name_decides_before_the_description() -> None:
    assert library_of("Vulkan0", "NVIDIA CUDA on Apple") == "Vulkan"
    assert library_of("X0", "a chip with hips") == "a chip with hips"
    assert library_of("X0", "HIP device") == "ROCm"


def test_the_last_complaint() -> None:
    text = "all well\nggml_cuda_init: failed to initialize CUDA: no driver\x1b[0m\nbye\n"
    assert last_complaint(text) == "ggml_cuda_init: failed to initialize CUDA: no driver [0m"
    assert last_complaint("all well\n") == ""


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_text_is_read(listing: str, messages: str) -> None:
    parse_architectures(messages)
    assert len(last_complaint(messages)) <= 400
    for device in parse_listing(listing, messages):
        assert 0 <= device.free <= device.total


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["CUDA", "ROCm", "Vulkan", "Odd one "]),
            st.integers(0, 200),
            st.integers(0, 10**20),
            st.integers(0, 10**20),
        ),
        max_size=300,
    )
)
def test_what_is_listed_has_sound_figures(rows: list[tuple[str, int, int, int]]) -> None:
    text = HEAD + "".join(f"  {n}{i}: GPU ({t} MiB, {f} MiB free)\n" for n, i, t, f in rows)
    devices = parse_listing(text)
    assert len(devices) <= MOST_DEVICES
    assert len({device.name for device in devices}) == len(devices)
    assert all(d.total > 0 and 0 <= d.free <= d.total for d in devices)
