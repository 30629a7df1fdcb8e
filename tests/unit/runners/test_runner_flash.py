"""runners-and-scheduling 2.4."""

from dataclasses import dataclass

import pytest

from ollamad.runners.flash import Flash, cache_type, flash_attention


@dataclass
class Device:
    library: str
    compute_major: int = 0
    compute_minor: int = 0
    driver_major: int = 0


@pytest.mark.parametrize(
    ("setting", "devices", "expected"),
    [
        (True, [Device("other")], "on"),
        (False, [], "off"),
        (None, [], "auto"),
        (None, [Device("Metal"), Device("ROCm"), Device("Vulkan"), Device("cpu")], "auto"),
        (None, [Device("CUDA", 8, 9, 12)], "auto"),
        (None, [Device("CUDA", 8, 9, 0)], "auto"),
        (None, [Device("CUDA", 8, 9, 6)], "off"),
        (None, [Device("CUDA", 7, 2, 12)], "off"),
        (None, [Device("CUDA", 5, 2, 12)], "off"),
        (None, [Device("CUDA", 0, 0, 12)], "off"),
        (None, [Device("CUDA", -1, 0, 12)], "off"),
        (None, [Device("CUDA", 8, 9, 12), Device("CUDA", 5, 2, 12)], "off"),
        (None, [Device("something")], "off"),
    ],
)
def test_flash_attention(setting: bool | None, devices: list[Device], expected: Flash) -> None:
    assert flash_attention(setting, devices) == expected


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
def test_cache_types(setting: str, flash: Flash, expected: str, warns: bool) -> None:
    chosen, warning = cache_type(setting, flash)
    assert chosen == expected
    assert bool(warning) is warns
