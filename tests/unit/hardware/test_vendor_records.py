"""What is believed of what a library tells, and how two libraries' views become one."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ollamad.hardware.vendor import (
    MOST_DEVICES,
    MOST_MEMORY,
    Note,
    Survey,
    VendorDevice,
    checked,
    combined,
    pci_id,
    plain_text,
)

GIB = 1 << 30
GPU = VendorDevice(
    source="nvml",
    index=0,
    library="CUDA",
    name="NVIDIA GeForce RTX 4090",
    uuid="GPU-8c2d0c5f-8b3e-4b43-9d13-5b9a2e0c5c11",
    pci_id="0000:01:00.0",
    total=24 * GIB,
    free=23 * GIB,
    compute=(8, 9),
    driver=(12, 8),
    nvidia_driver=570,
    used_by={4242: GIB},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:01:00.0", "0000:01:00.0"),
        ("0000:C1:00.0", "0000:c1:00.0"),
        (" 0:0a:1f.7\n", "0000:0a:1f.7"),
        ("00010000:01:00.0", "10000:01:00.0"),
        ("", ""),
        ("01:00.0", ""),
        ("0000:01:00.8", ""),
        ("0000:01:00.0,0000:02:00.0", ""),
        ("GPU-1", ""),
    ],
)
def test_a_pci_id_has_one_spelling(text: str, expected: str) -> None:
    assert pci_id(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"NVIDIA RTX\0rubbish", "NVIDIA RTX"),
        (b"Stub \xb5 4090", "Stub \ufffd 4090"),
        ("a\nb\x1b[31m\tc\u2028d", "a b [31m c d"),
        ("日本", "日本"),
        ("x" * 500, "x" * 400),
        ("  ", ""),
    ],
)
def test_a_name_is_one_line_of_text(value: str | bytes, expected: str) -> None:
    assert plain_text(value) == expected


def test_what_is_plausible_stays_as_it_is() -> None:
    whole = replace(GPU, integrated=False, cuda_ordinal=1, mig=True)
    amd = VendorDevice(source="amd", index=1, library="ROCm", gfx="gfx90a", integrated=True)
    survey = Survey((whole, amd), (Note("info", "text", "hint"),))
    assert checked(survey) == survey


@pytest.mark.parametrize(
    ("total", "free", "expected", "complaint"),
    [
        (8 * GIB, 9 * GIB, (8 * GIB, 8 * GIB), "9663676416 bytes free of 8589934592"),
        (8 * GIB, -1, (8 * GIB, 0), "-1 bytes free of 8589934592"),
        (0, 5, (0, 0), ""),
        (-5, 5, (0, 0), "-5 bytes of memory"),
        (MOST_MEMORY + 1, 5, (0, 0), "70368744177665 bytes of memory"),
        (2**64 - 1, 2**64 - 1, (0, 0), "18446744073709551615 bytes of memory"),
    ],
)
def test_memory_that_cannot_be_is_bounded_and_said(
    total: int, free: int, expected: tuple[int, int], complaint: str
) -> None:
    result = checked(Survey((replace(GPU, total=total, free=free),)))
    assert (result.devices[0].total, result.devices[0].free) == expected
    start = "the driver's figures for NVIDIA GeForce RTX 4090 cannot be right: "
    assert [n.text for n in result.notes] == ([start + complaint] if complaint else [])


def test_what_would_end_up_in_variables_and_lines_is_nothing_else() -> None:
    wild = replace(
        GPU,
        index=-1,
        name="a\nb",
        uuid="GPU-1,0\nX",
        pci_id="01",
        gfx="gfx1100; rm",
        library="CUDA\n",
        compute=(-1, 5),
        driver=(12, 99999),
        nvidia_driver=-3,
        cuda_ordinal=-7,
        used_by={-1: 5, 7: -5, 8: MOST_MEMORY + 1, 9: 3},
    )
    note = Note("warning", "two\nlines", "\x1b[0m")
    result = checked(Survey((wild,), (note,)))
    assert result.notes == (Note("warning", "two lines", "[0m"),)
    assert result.devices == (
        VendorDevice(
            source="nvml",
            index=0,
            library="",
            name="a b",
            total=GPU.total,
            free=GPU.free,
            used_by={9: 3},
        ),
    )


def test_there_are_never_more_devices_than_any_machine_has() -> None:
    result = checked(Survey((GPU,) * (MOST_DEVICES + 1)))
    assert len(result.devices) == MOST_DEVICES
    assert result.notes == (Note("warning", "257 GPUs reported, 256 are used"),)


_ints = st.integers(-(2**65), 2**65)
_texts = st.text(max_size=600)
_devices = st.builds(
    VendorDevice,
    source=_texts,
    index=_ints,
    library=_texts,
    name=_texts,
    uuid=_texts,
    pci_id=_texts,
    total=_ints,
    free=_ints,
    integrated=st.sampled_from([None, True, False]),
    compute=st.tuples(_ints, _ints),
    gfx=_texts,
    driver=st.tuples(_ints, _ints),
    nvidia_driver=_ints,
    mig=st.booleans(),
    cuda_ordinal=_ints,
    used_by=st.dictionaries(_ints, _ints, max_size=3),
)


@given(st.lists(_devices, max_size=3))
def test_whatever_is_told_what_is_believed_is_within_bounds(devices: list[VendorDevice]) -> None:
    result = checked(Survey(tuple(devices)))
    for device in result.devices:
        assert 0 <= device.free <= device.total <= MOST_MEMORY
        assert 0 <= device.index < MOST_DEVICES
        assert all(pid > 0 and 0 <= held <= MOST_MEMORY for pid, held in device.used_by.items())
        words = (device.source, device.library, device.uuid, device.pci_id, device.gfx)
        assert all(c.isascii() and c.isprintable() and c not in ", " for w in words for c in w)
        assert device.name.isprintable()
    assert checked(result).devices == result.devices
    assert msgspec.json.decode(msgspec.json.encode(result), type=Survey) == result


CUDA = VendorDevice(
    source="cuda",
    index=1,
    cuda_ordinal=1,
    library="CUDA",
    pci_id="0000:01:00.0",
    total=24 * GIB,
    free=24 * GIB,
    integrated=False,
    compute=(9, 0),
    driver=(13, 0),
)


def test_what_one_library_lacks_comes_from_the_other() -> None:
    result = combined([Survey((GPU,)), Survey((CUDA,))])
    assert result.devices == (replace(GPU, integrated=False, cuda_ordinal=1),)
    bare = replace(GPU, compute=(0, 0), driver=(0, 0), total=0, free=0)
    assert combined([Survey((bare,)), Survey((CUDA,))]).devices == (
        replace(
            GPU,
            integrated=False,
            cuda_ordinal=1,
            compute=(9, 0),
            driver=(13, 0),
            free=24 * GIB,
        ),
    )


def test_what_it_does_not_know_takes_nothing_away() -> None:
    unified = replace(GPU, integrated=True)
    unsure = replace(CUDA, integrated=None)
    assert combined([Survey((unified,)), Survey((unsure,))]).devices[0].integrated is True


def test_another_device_completes_nothing() -> None:
    other = replace(CUDA, pci_id="0000:02:00.0")
    assert combined([Survey((GPU,)), Survey((other,))]).devices == (GPU,)
    two = (replace(GPU, pci_id=""), replace(GPU, pci_id="", index=1))
    assert combined([Survey(two), Survey((CUDA,))]).devices == two


def test_boards_without_a_pci_bus_have_one_gpu() -> None:
    board = replace(GPU, pci_id="")
    found = combined([Survey((board,)), Survey((replace(CUDA, pci_id="", integrated=True),))])
    assert found.devices == (replace(board, integrated=True, cuda_ordinal=1),)


def test_a_library_alone_speaks_for_itself() -> None:
    note = Note("info", "NVML is not installed")
    amd = VendorDevice(source="amd", index=0, library="ROCm")
    result = combined([Survey((), (note,)), Survey((CUDA,), (note,)), Survey((amd,))])
    assert result == Survey((CUDA, amd), (note,))
