"""runners-and-scheduling 2.4."""

import pytest

from ollamad.hardware.device import Device
from ollamad.runners.flash import cache_type, driver_warning


def gpu(library: str, major: int = 0, minor: int = 0, driver: int = 0) -> Device:
    return Device(id="0", library=library, name="x", compute=(major, minor), driver=(driver, 0))


@pytest.mark.parametrize(
    ("devices", "warns"),
    [
        ([], False),
        ([gpu("CUDA", 8, 9, 12)], False),
        ([gpu("CUDA", 8, 9, 12), gpu("CUDA", 8, 9)], True),
        ([gpu("CUDA", 5, 2)], False),
        ([gpu("Vulkan")], False),
    ],
)
def test_an_unknown_driver_is_told(devices: list[Device], warns: bool) -> None:
    assert bool(driver_warning(devices)) is warns


@pytest.mark.parametrize(
    ("setting", "flash", "expected", "warns"),
    [
        ("", "auto", "", False),
        ("Q8_0", "auto", "q8_0", False),
        (" q8_0 ", "on", "q8_0", False),
        ("q8_0", "off", "", True),
        ("bf16", "off", "bf16", False),
        (" foo ", "auto", "", True),
    ],
)
def test_cache_types(setting: str, flash: str, expected: str, warns: bool) -> None:
    chosen, warning = cache_type(setting, flash)
    assert chosen == expected
    assert bool(warning) is warns
