"""Names of AMD's generations, overrides and matching, runners-and-scheduling.md 1.7 and 8.2."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollamad.hardware.gfx import (
    Override,
    Seen,
    gfx_of_override,
    gfx_of_version,
    match,
    numbered_overrides,
    override,
    reordered,
)
from ollamad.hardware.vendor import VendorDevice


@pytest.mark.parametrize(
    ("version", "name"),
    [
        (90012, "gfx90c"),
        (100601, "gfx1061"),
        (110003, "gfx1103"),
        (90402, "gfx942"),
        (100300, "gfx1030"),
        (90010, "gfx90a"),
        (120001, "gfx1201"),
        (115001, ""),  # minor 50
        (110501, "gfx1151"),
        (0, ""),
        (110016, ""),
        (111600, ""),
        (7, ""),
        (10**18, ""),
    ],
)
def test_versions_of_kfd(version: int, name: str) -> None:
    assert gfx_of_version(version) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("9.0.10", "gfx90a"),
        ("11.0.0", "gfx1100"),
        ("10.3.0", "gfx1030"),
        ("11.5.1", "gfx1151"),
        ("gfx90a", "gfx90a"),
        ("10.3", ""),
        ("16.0.0", ""),
        ("10.16.0", ""),
        ("10.3.16", ""),
        ("10.3.0.1", ""),
        ("a.b.c", ""),
        ("-1.0.0", ""),
        ("10. 3.0", ""),
        ("GFX1030", ""),
        ("gfx", ""),
        ("gfx1030\n", ""),
        ("٣.0.0", ""),
        ("9" * 5000 + ".0.0", ""),
        ("", ""),
    ],
)
def test_values_of_overrides(value: str, name: str) -> None:
    assert gfx_of_override(value) == name


ALL = "HSA_OVERRIDE_GFX_VERSION"


@pytest.mark.parametrize(
    ("environ", "node", "expected"),
    [
        ({}, 1, None),
        ({ALL: " "}, 1, None),
        ({ALL: "10.3.0"}, 1, Override(ALL, "10.3.0", "gfx1030")),
        ({ALL: ' "10.3.0" '}, 1, Override(ALL, "10.3.0", "gfx1030")),
        ({ALL: "10.3.0", f"{ALL}_1": "11.0.0"}, 1, Override(f"{ALL}_1", "11.0.0", "gfx1100")),
        ({ALL: "10.3.0", f"{ALL}_1": "11.0.0"}, 2, Override(ALL, "10.3.0", "gfx1030")),
        ({f"{ALL}_1": "11.0.0"}, 2, None),
        ({f"{ALL}_None": "11.0.0", f"{ALL}_0": "11.0.0"}, None, None),
        ({ALL: "10.3.0"}, None, Override(ALL, "10.3.0", "gfx1030")),
        # One that says nothing is not replaced by the general one: ROCm does not do so either.
        ({ALL: "10.3.0", f"{ALL}_1": "eleven"}, 1, Override(f"{ALL}_1", "eleven", "")),
    ],
)
def test_which_override_is_in_force(
    environ: dict[str, str], node: int | None, expected: Override | None
) -> None:
    assert override(environ, node) == expected


def test_numbers_of_overrides() -> None:
    names = {f"{ALL}_2": "11.0.0", f"{ALL}_0": "x", f"{ALL}_": "1", f"{ALL}_b": "1", f"{ALL}_3": ""}
    assert numbered_overrides({ALL: "10.3.0", **names}) == [0, 2]


@pytest.mark.parametrize("name", ["HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_what_may_change_the_order(name: str) -> None:
    assert reordered({name: "0"})
    assert not reordered({name: " ", "CUDA_VISIBLE_DEVICES": "1", "GGML_VK_VISIBLE_DEVICES": "1"})


def test_another_variable_that_may_change_the_order() -> None:
    assert reordered({"GPU_DEVICE_ORDINAL": "1,0"})


def card(index: int, gfx: str = "", pci_id: str = "") -> VendorDevice:
    return VendorDevice(source="amd", index=index, library="ROCm", gfx=gfx, pci_id=pci_id)


A, B, C = "0000:03:00.0", "0000:c1:00.0", "0000:c2:00.0"


def matched(
    seen: list[Seen], physical: list[VendorDevice], *, order_kept: bool = True
) -> list[int | None]:
    found = match(seen, physical, order_kept=order_kept)
    return [device and device.index for device in found]


@pytest.mark.parametrize(
    ("seen", "physical", "kept", "expected"),
    [
        # The visible order is reversed, but PCI ids are known.
        ([Seen(B), Seen(A)], [card(0, "", A), card(1, "", B)], True, [1, 0]),
        ([Seen(B.upper()), Seen()], [card(0, "", A), card(1, "", B)], True, [1, None]),
        # A PCI id is certain, whatever the counts.
        ([Seen(B)], [card(0, "", A), card(1, "", B)], False, [1]),
        ([Seen(B), Seen(A), Seen(C)], [card(0, "", A)], True, [None, 0, None]),
        # PCI ids unknown, generations unique.
        (
            [Seen(gfx="gfx1036"), Seen(gfx="gfx1100")],
            [card(0, "gfx1100", A), card(1, "gfx1036", B)],
            False,
            [1, 0],
        ),
        # Fewer are visible than there are: a generation that is unique is still certain …
        ([Seen(gfx="gfx1036")], [card(0, "gfx1100", A), card(1, "gfx1036", B)], False, [1]),
        # … one that is not is nobody's, nor is any position.
        ([Seen(gfx="gfx942")], [card(0, "gfx942", A), card(1, "gfx942", B)], True, [None]),
        ([Seen()], [card(0, "gfx942", A), card(1, "gfx942", B)], True, [None]),
        # Two that say to be the one.
        ([Seen(gfx="gfx1100")] * 2, [card(0, "gfx1100"), card(1, "gfx1036")], False, [None] * 2),
        # More than KFD knows: it does not know them all.
        ([Seen(gfx="gfx1100"), Seen(gfx="gfx1036")], [card(0, "gfx1100")], True, [None, None]),
        # By position.
        ([Seen(gfx="gfx942")] * 2, [card(0, "gfx942", A), card(1, "gfx942", B)], True, [0, 1]),
        ([Seen(), Seen()], [card(0, "gfx942"), card(1)], True, [0, 1]),
        # … not where the generations disagree,
        (
            [Seen(gfx="gfx90a"), Seen(gfx="gfx942")],
            [card(0, "gfx942", A), card(1, "gfx942", B)],
            True,
            [None, 1],
        ),
        # … and not when the user chose devices.
        ([Seen(gfx="gfx942")] * 2, [card(0, "gfx942", A), card(1, "gfx942", B)], False, [None] * 2),
        # A PCI id contradicts.
        ([Seen(C, "gfx1100")], [card(0, "gfx1100", A)], True, [None]),
        # An id that one device took is gone for the others.
        ([Seen(A), Seen(A)], [card(0, "", A), card(1, "", B)], True, [0, None]),
        # No KFD.
        ([Seen(gfx="gfx1100")], [], True, [None]),
        ([], [card(0)], True, []),
    ],
)
def test_matching(
    seen: list[Seen], physical: list[VendorDevice], kept: bool, expected: list[int | None]
) -> None:
    assert matched(seen, physical, order_kept=kept) == expected


GFX = st.sampled_from(["", "gfx942", "gfx1100", "gfx1036"])
PCI = st.sampled_from(["", A, B, C])


@given(
    st.lists(st.builds(Seen, PCI, GFX), max_size=5),
    st.lists(st.tuples(GFX, PCI), max_size=5),
    st.booleans(),
)
def test_no_device_is_matched_twice_or_against_what_is_known(
    seen: list[Seen], facts: list[tuple[str, str]], kept: bool
) -> None:
    physical = [card(index, *fact) for index, fact in enumerate(facts)]
    found = match(seen, physical, order_kept=kept)
    assert len(found) == len(seen)
    taken = [device.index for device in found if device]
    assert len(taken) == len(set(taken))
    for one, device in zip(seen, found, strict=True):
        if device and not (one.pci_id and one.pci_id == device.pci_id):
            assert not (one.pci_id and device.pci_id)
            assert not one.gfx or not device.gfx or one.gfx == device.gfx
