"""AMD's management library through pyrsmi, as a stub in C, beside the kernel's files.

pyrsmi looks for the kernel's module on the machine itself, with ``cat``: the tests bring their own.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace
from support.file_tree import unpack
from support.stub_libraries import stub_library

from ollamad.hardware.monitor import Monitor
from ollamad.hardware.vendor import Survey, VendorDevice

GIB = 1 << 30
TREE = (Path(__file__).parent / "trees/rx7900_and_apu.tree").read_text()
#: The card's address is the stub's; no name and no memory in files.
PLAIN = TREE.replace("744C,", "744D,")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pyrsmi") is None, reason="the package pyrsmi is missing"
)

Make = Callable[..., Monitor]


@pytest.fixture
async def monitor(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Monitor] = []

    def make(tree: str, **variables: object) -> Monitor:
        unpack(tree, tmp_path / "root")
        state = variables.pop("state", "live")
        cat = tmp_path / "bin/cat"
        cat.parent.mkdir(exist_ok=True)
        cat.write_text(f"#!/bin/sh\necho {state}\n")
        cat.chmod(0o755)
        environ = dict(os.environ)
        environ["PATH"] = f"{cat.parent}:{environ['PATH']}"
        environ["ROCM_PATH"] = str(stub_library("rocm"))
        environ |= {name: str(value) for name, value in variables.items()}
        made.append(Monitor(environ, root=tmp_path / "root"))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


def figures(found: Survey) -> list[tuple[str, str, int, int]]:
    return [(d.source, d.name, d.total >> 20, d.free >> 20) for d in found.devices]


VRAM = 25753026560
FREE = VRAM - 6 * GIB
GRAPHICS = ("amd", "AMD GPU 164e", 32512, 32332)


async def test_the_library_knows_names(monitor: Make) -> None:
    found = await monitor(PLAIN).survey()
    assert figures(found) == [
        ("amd", "Stub Radeon RX 7900", VRAM >> 20, FREE >> 20),
        GRAPHICS,
    ]
    assert found.devices[0].gfx == "gfx1100"


async def test_names_in_files_are_kept(monitor: Make) -> None:
    found = await monitor(TREE).survey()
    assert figures(found)[0] == ("amd", "AMD Radeon RX 7900 XTX", VRAM >> 20, FREE >> 20)


async def test_the_library_knows_memory_that_the_files_do_not_tell(monitor: Make) -> None:
    tree = TREE.replace("03:00.0/mem_info", "03:00.0/other_info")
    found = await monitor(tree, STUB_AMD_USED=3 * GIB).survey()
    assert figures(found)[0] == ("amd", "AMD Radeon RX 7900 XTX", 24 * 1024, 21 * 1024)


async def test_more_in_use_than_there_is(monitor: Make) -> None:
    tree = TREE.replace("03:00.0/mem_info", "03:00.0/other_info")
    found = await monitor(tree, STUB_AMD_USED=25 * GIB).survey()
    assert figures(found)[0][2:] == (24 * 1024, 0)
    assert "cannot be right: -1073741824 bytes free" in found.notes[-1].text


async def test_a_gpu_that_only_the_library_knows_is_no_second_one(monitor: Make) -> None:
    found = await monitor(PLAIN, STUB_AMD_GPUS=3).survey()
    assert len(found.devices) == 2


async def test_without_files_the_library_stands_in(monitor: Make) -> None:
    found = await monitor("/sys/module/amdgpu/", STUB_AMD_GPUS=2).survey()
    assert figures(found) == [("rsmi", "Stub Radeon RX 7900", 24 * 1024, 23 * 1024)] * 2
    assert [d.pci_id for d in found.devices] == ["0000:03:00.0", "0000:04:00.0"]
    assert (await monitor("/sys/module/amdgpu/", STUB_AMD_GPUS=2).memory()).devices == ()


async def test_a_name_that_is_no_text_is_no_loss(monitor: Make) -> None:
    found = await monitor(PLAIN, STUB_AMD_NAME="latin1").survey()
    # pyrsmi gives up on it.
    assert figures(found)[0][1] == "AMD GPU 744c"
    assert found.notes == ()


async def test_a_library_that_does_not_start(monitor: Make) -> None:
    found = await monitor(PLAIN, STUB_AMD_INIT=34).survey()
    assert figures(found)[0][:2] == ("amd", "AMD GPU 744c")
    (note,) = found.notes
    assert note.level == "info"
    assert note.text.startswith("AMD's management library cannot be used: AMD SMI")


async def test_a_module_that_is_not_loaded(monitor: Make) -> None:
    found = await monitor(PLAIN, state="coming").survey()
    assert len(found.devices) == 2
    assert "Please ensure amdgpu driver is loaded" in found.notes[0].text


@pytest.mark.parametrize("place", ["load", "init", "memory"])
async def test_a_library_that_hangs_costs_its_own_part_only(monitor: Make, place: str) -> None:
    one = monitor(PLAIN, STUB_AMD_TROUBLE="hang", STUB_AMD_AT=place)
    found = await one.survey(0.4)
    assert figures(found)[0] == ("amd", "AMD GPU 744c", VRAM >> 20, FREE >> 20)
    (note,) = found.notes
    assert note.text == "AMD's management library does not answer within 0.4 s"
    # Fresh figures do without it.
    assert figures(await one.memory()) == figures(found)


@pytest.mark.parametrize("trouble", ["abort", "exit"])
async def test_a_library_that_crashes(monitor: Make, trouble: str) -> None:
    found = await monitor(PLAIN, STUB_AMD_TROUBLE=trouble, STUB_AMD_AT="init").survey()
    assert len(found.devices) == 2
    assert found.notes[0].text.startswith("AMD's management library crashed")


async def test_fresh_memory_comes_from_the_files(monitor: Make, tmp_path: Path) -> None:
    one = monitor(
        TREE, STUB_AMD_TROUBLE="hang", STUB_AMD_AT="memory", STUB_AMD_WHILE=tmp_path / "w"
    )
    before = await one.survey()
    (tmp_path / "w").touch()
    unpack(f"/sys/class/drm/renderD129/device/mem_info_vram_used = {20 * GIB}", tmp_path / "root")
    after = await one.memory()
    assert after.notes == ()
    assert [d.free for d in after.devices] == [VRAM - 20 * GIB, before.devices[1].free]


def test_calls_that_fail_return_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrsmi import rocml

    from ollamad.hardware import rsmi

    answers = {"count": 1, "name": "", "pci_id": -1, "memory_total": -1, "memory_used": -1}
    for what, answer in answers.items():
        monkeypatch.setattr(rocml, f"smi_get_device_{what}", lambda *_, value=answer: value)
    monkeypatch.setattr(rocml, "smi_initialize", lambda: None)
    monkeypatch.setattr(rocml, "smi_shutdown", lambda: None)
    nothing = VendorDevice(source="rsmi", index=0, library="ROCm")
    assert rsmi.devices() == Survey((nothing,))
    monkeypatch.setattr(rocml, "smi_get_device_memory_total", lambda _: GIB)
    assert rsmi.devices() == Survey((replace(nothing, total=GIB),))
    monkeypatch.setattr(rocml, "smi_get_device_count", lambda: -1)
    assert rsmi.devices() == Survey()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0x0300, "0000:03:00.0"),
        (0xC1A5, "0000:c1:14.5"),
        ((2 << 32) | 0x0300, "0002:03:00.0"),
        ((2 << 16) | 0x0300, "0002:03:00.0"),
        (-1, ""),
        (1 << 48, ""),
        ("0000:03:00.0", ""),
    ],
)
def test_addresses(number: object, expected: str) -> None:
    from ollamad.hardware.rsmi import bus_address

    assert bus_address(number) == expected
