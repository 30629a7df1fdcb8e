"""The record of one GPU, runners-and-scheduling.md 1.1, 2.4 and the cases of 8.2."""

import pytest

from ollamad.hardware.device import Device, split_gfx


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("gfx1030", (0x10, 0x30)),
        ("gfx90a", (0x9, 0x0A)),
        ("gfx1100", (0x11, 0x00)),
        ("gfx906", (9, 6)),
        ("gfx90", (0, 0)),
        ("gfx", (0, 0)),
        ("gfxzzz", (0, 0)),
        ("sm_90a", (0, 0)),
        ("1030", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_a_gfx_name_has_two_parts(target: str, expected: tuple[int, int]) -> None:
    assert split_gfx(target) == expected


@pytest.mark.parametrize(
    ("library", "compute", "expected"),
    [
        ("CUDA", (8, 9), "8.9"),
        ("CUDA", (12, 0), "12.0"),
        ("CUDA", (0, 0), "0.0"),
        ("Vulkan", (0, 0), "0.0"),
        ("ROCm", split_gfx("gfx90a"), "gfx90a"),
        ("ROCm", split_gfx("gfx1100"), "gfx1100"),
        ("ROCm", (0, 0), "gfx000"),
    ],
)
def test_compute_as_text(library: str, compute: tuple[int, int], expected: str) -> None:
    assert Device(id="0", library=library, name="x", compute=compute).compute_text == expected


def test_driver_as_text() -> None:
    assert Device(id="0", library="CUDA", name="x", driver=(12, 8)).driver_text == "12.8"
    assert Device(id="0", library="CUDA", name="x").driver_text == "0.0"


@pytest.mark.parametrize(
    ("library", "compute", "driver", "expected"),
    [
        ("CUDA", (5, 0), (12, 8), False),
        ("CUDA", (6, 0), (12, 8), True),
        ("CUDA", (6, 1), (12, 8), True),
        ("CUDA", (6, 2), (12, 8), True),
        ("CUDA", (7, 0), (12, 8), True),
        ("CUDA", (7, 2), (12, 8), False),
        ("CUDA", (7, 5), (12, 8), True),
        ("CUDA", (0, 0), (12, 8), False),
        ("CUDA", (-1, 0), (12, 8), False),
        ("CUDA", (8, 9), (0, 0), True),
        ("CUDA", (8, 9), (6, 5), False),
        ("CUDA", (8, 9), (7, 0), True),
        ("Metal", (0, 0), (0, 0), True),
        ("ROCm", (0, 0), (0, 0), True),
        ("Vulkan", (0, 0), (0, 0), True),
        ("cpu", (0, 0), (0, 0), True),
        ("Mystery Accelerator", (9, 0), (12, 0), False),
    ],
)
def test_flash_attention(
    library: str, compute: tuple[int, int], driver: tuple[int, int], expected: bool
) -> None:
    device = Device(id="0", library=library, name="x", compute=compute, driver=driver)
    assert device.flash_attention is expected
