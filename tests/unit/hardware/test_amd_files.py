"""AMD's GPUs from trees of files, runners-and-scheduling.md 1.7, 1.12 and 8.2."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.file_tree import unpack

from ollamad.hardware import amd
from ollamad.hardware.files import FileAccess
from ollamad.hardware.vendor import Note, Survey, checked

TREES = Path(__file__).parent / "trees"
GIB = 1 << 30
OVERRIDE = "HSA_OVERRIDE_GFX_VERSION"
USER = (1000, [1000])
OPEN = FileAccess(True, True, 0o666)


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, more: str = "") -> Path:
        return unpack(more, unpack((TREES / f"{name}.tree").read_text(), tmp_path))

    return make


def look_open(path: Path) -> FileAccess:
    return OPEN if path.exists() else FileAccess(False)


def survey(root: Path, environ: dict[str, str] | None = None) -> Survey:
    return amd.devices(root, environ or {}, look_open, USER)


def test_a_card_and_graphics_in_the_processor(tree: Callable[..., Path]) -> None:
    found = survey(tree("rx7900_and_apu"))
    assert found.notes == ()
    # In the order of KFD, not of DRM.
    card, graphics = found.devices
    assert (card.index, card.name) == (0, "AMD Radeon RX 7900 XTX")
    assert (card.source, card.library, card.pci_id) == ("amd", "ROCm", "0000:03:00.0")
    assert (card.gfx, card.compute) == ("gfx1100", (0x11, 0))
    assert card.uuid == "GPU-88964971471a5e9b"
    assert (card.total, card.free) == (25753026560, 25753026560 - 6 * GIB)
    assert card.integrated is False
    assert card.used_by == {4321: 5 * GIB}

    assert (graphics.index, graphics.name) == (1, "AMD GPU 164e")
    assert (graphics.gfx, graphics.compute) == ("gfx1036", (0x10, 0x36))
    assert (graphics.pci_id, graphics.uuid) == ("0000:11:00.0", "")
    assert graphics.integrated is True
    assert graphics.total == 536870912 + 33554432000
    assert graphics.free == graphics.total - 134217728 - 54432000
    assert graphics.used_by == {}
    # All of it passes the check between the child and the daemon.
    assert checked(found) == found


def test_graphics_in_the_processor_alone(tree: Callable[..., Path]) -> None:
    found = survey(tree("apu_only"))
    (graphics,) = found.devices
    assert (graphics.gfx, graphics.integrated) == ("gfx90c", True)
    assert (graphics.total, graphics.free) == (34 * GIB, 31 * GIB)
    assert found.notes == ()


NODE = """\
/sys/class/kfd/kfd/topology/nodes/{node}/gpu_id = {gpu_id}
/sys/class/kfd/kfd/topology/nodes/{node}/properties:
  simd_count 1216
  gfx_target_version 90402
  vendor_id 4098
  device_id 29857
  drm_render_minor {minor}
  unique_id {unique_id}
/sys/class/drm/renderD{minor}/device -> ../../../devices/pci{bus}/{pci}
/sys/devices/pci{bus}/{pci}/vendor = 0x1002
/sys/devices/pci{bus}/{pci}/driver = amdgpu
/sys/devices/pci{bus}/{pci}/product_name = AMD Instinct MI300X OAM
/sys/devices/pci{bus}/{pci}/board_info = type : oam
/sys/devices/pci{bus}/{pci}/mem_info_vram_total = 206141652992
/sys/devices/pci{bus}/{pci}/mem_info_vram_used = {used}
/dev/dri/renderD{minor}:
"""
PROCESSOR = """\
/sys/class/kfd/kfd/topology/nodes/{node}/gpu_id = 0
/sys/class/kfd/kfd/topology/nodes/{node}/properties:
  cpu_cores_count 96
  simd_count 0
  vendor_id 0
  device_id 0
  drm_render_minor 0
"""


def mi300x(root: Path) -> Path:
    """Two processors (nodes 0 and 1) and eight cards (nodes 2 to 9) whose DRM order is reversed."""
    for node in range(2):
        unpack(PROCESSOR.format(node=node), root)
    for card in range(8):
        facts = {
            "node": card + 2,
            "gpu_id": 1000 + card,
            "minor": 128 + 8 * (7 - card),
            "unique_id": 0xA000 + card,
            "bus": "0000:00",
            "pci": f"0000:{0x05 + 0x10 * card:02x}:00.0",
            "used": 297 << 20,
        }
        unpack(NODE.format(**facts), root)
        unpack(f"/sys/class/kfd/kfd/proc/77/vram_{1000 + card} = {card * GIB}", root)
    return unpack("/dev/kfd:", root)


def test_eight_cards_and_two_processors(tmp_path: Path) -> None:
    found = survey(mi300x(tmp_path))
    assert found.notes == ()
    assert [d.index for d in found.devices] == list(range(8))
    assert [d.pci_id for d in found.devices][:3] == ["0000:05:00.0", "0000:15:00.0", "0000:25:00.0"]
    assert {d.gfx for d in found.devices} == {"gfx942"}
    assert {d.name for d in found.devices} == {"AMD Instinct MI300X OAM"}
    assert {d.integrated for d in found.devices} == {False}
    assert {(d.total, d.free) for d in found.devices} == {
        (206141652992, 206141652992 - (297 << 20))
    }
    assert found.devices[5].uuid == "GPU-000000000000a005"
    assert [d.used_by for d in found.devices][:3] == [{}, {77: GIB}, {77: 2 * GIB}]
    assert checked(found) == found


def test_nodes_go_by_number_not_by_name(tmp_path: Path) -> None:
    facts = {"gpu_id": 1, "unique_id": 0, "bus": "0000:00", "used": 0}
    for node, minor in ((10, 129), (9, 128), (100, 130)):
        pci = f"0000:{minor:02x}:00.0"
        unpack(NODE.format(node=node, minor=minor, pci=pci, **facts), tmp_path)
    assert [d.pci_id for d in survey(tmp_path).devices] == [
        "0000:80:00.0",
        "0000:81:00.0",
        "0000:82:00.0",
    ]


def test_a_machine_without_any(tmp_path: Path) -> None:
    assert survey(tmp_path) == Survey()


def test_gpus_that_have_no_driver_of_use(tree: Callable[..., Path]) -> None:
    assert amd.driver_notes(tree("no_driver")) == [
        Note(
            "warning",
            "the AMD GPU 0000:03:00.0 has no driver",
            "load the driver: sudo modprobe amdgpu; if that fails, see: sudo dmesg",
        ),
        Note("info", "the AMD GPU 0000:04:00.0 belongs to the driver vfio-pci, not to amdgpu"),
        Note("info", "the AMD GPU 0000:05:00.0 is too old for ROCm (its driver is radeon)"),
    ]


def test_a_kernel_without_kfd(tree: Callable[..., Path]) -> None:
    note = Note(
        "info",
        "the AMD GPU 0000:06:00.0 cannot be used through ROCm: the kernel has no such "
        "interface (KFD) for computing",
        "Vulkan may still be able to use it",
    )
    assert survey(tree("no_driver")) == Survey((), (note,))


def test_gpus_with_their_driver_need_no_words(tree: Callable[..., Path]) -> None:
    assert amd.driver_notes(tree("rx7900_and_apu")) == []


def test_a_gpu_that_kfd_leaves_out(tree: Callable[..., Path]) -> None:
    more = "/sys/class/kfd/kfd/topology/nodes/0/properties = cpu_cores_count 8"
    text = survey(tree("no_driver", more)).notes[-1].text
    assert text.endswith("the kernel does not offer it for computing")


def test_files_that_lie(tree: Callable[..., Path]) -> None:
    found = survey(tree("broken"))
    (device,) = found.devices
    assert (device.index, device.gfx, device.compute) == (0, "", (0, 0))
    assert (device.total, device.free, device.integrated) == (0, 0, None)
    assert (device.pci_id, device.uuid, device.name, device.used_by) == ("", "", "", {})
    assert [(note.level, note.text) for note in found.notes] == [
        ("warning", f"KFD node {node} is not used: {reason}")
        for node, reason in (
            (1, "it has no properties"),
            (2, "its properties make no sense"),
            (3, "there is no renderD130"),
            (4, "renderD131 belongs to i915, not amdgpu"),
            (5, "renderD132 belongs to vfio-pci, not amdgpu"),
            (6, "device leads in circles"),
            (7, "renderD134 is not on the PCI bus"),
        )
    ]


def test_a_device_of_another_maker(tree: Callable[..., Path]) -> None:
    root = tree("apu_only", "/sys/class/drm/renderD128/device/vendor = 0x1d94")
    assert survey(root).devices == ()


@pytest.mark.parametrize(
    ("device", "revision", "name"),
    [
        ("0x744c", "0xc8", "AMD Radeon RX 7900 XTX"),
        ("0x6608", "0x00", "AMD FirePro W2100"),
        ("0x6608", "0xc8", ""),
        ("", "", ""),
    ],
)
def test_names_of_a_table(device: str, revision: str, name: str) -> None:
    table = "# ids\n1.0.0\n6608,\t0,\tAMD FirePro W2100\n744C,\tC8,\tAMD Radeon RX 7900 XTX\n"
    assert amd.market_name(table, device, revision) == name


def test_more_memory_in_use_than_there_is_is_found_out(tree: Callable[..., Path]) -> None:
    used = "/sys/class/drm/renderD128/device/mem_info_vram_used = 99999999999999"
    found = checked(survey(tree("apu_only", used)))
    assert found.devices[0].free == 0
    assert "cannot be right" in found.notes[0].text


def test_without_a_figure_of_use_nothing_counts_as_free(tree: Callable[..., Path]) -> None:
    root = tree("rx7900_and_apu", "/sys/class/drm/renderD129/device/mem_info_vram_used = ?")
    assert survey(root).devices[0].free == 0


@pytest.mark.parametrize(
    ("marks", "vram", "gtt", "expected"),
    [
        (False, 2 * GIB, 32 * GIB, True),
        (True, 4 * GIB, 32 * GIB, False),
        (False, 4 * GIB, 16 * GIB, True),
        (False, 4 * GIB, 16 * GIB - 1, None),
        (False, 4 * GIB + 1, 64 * GIB, None),
        (False, GIB, 8 * GIB, True),
        (False, GIB, 8 * GIB - 1, None),
        (False, 0, 32 * GIB, None),
        (False, None, 32 * GIB, None),
        (False, 2 * GIB, None, None),
    ],
)
def test_what_is_integrated(
    marks: bool, vram: int | None, gtt: int | None, expected: bool | None
) -> None:
    assert amd.is_integrated(marks, vram, gtt) is expected


@pytest.mark.parametrize("mark", ["mem_info_vram_vendor", "board_info"])
def test_either_mark_of_a_card_will_do(tree: Callable[..., Path], mark: str) -> None:
    root = tree("apu_only", f"/sys/class/drm/renderD128/device/{mark} = x")
    (card,) = survey(root).devices
    assert card.integrated is False
    assert card.total == 2 * GIB


@given(st.text())
def test_properties_of_any_text(text: str) -> None:
    for key, value in amd.parse_properties(text).items():
        assert key
        assert value >= 0


# --- overrides


def test_an_override_for_all(tree: Callable[..., Path]) -> None:
    found = survey(tree("rx7900_and_apu"), {OVERRIDE: "10.3.0"})
    assert [(d.gfx, d.compute) for d in found.devices] == [("gfx1030", (0x10, 0x30))] * 2
    assert [note.text for note in found.notes] == [
        "AMD GPU 0 (gfx1100) is taken for gfx1030, as HSA_OVERRIDE_GFX_VERSION says",
        "AMD GPU 1 (gfx1036) is taken for gfx1030, as HSA_OVERRIDE_GFX_VERSION says",
    ]


def test_an_override_for_one_goes_first(tree: Callable[..., Path]) -> None:
    environ = {OVERRIDE: "11.0.0", f"{OVERRIDE}_2": "10.3.0"}
    found = survey(tree("rx7900_and_apu"), environ)
    assert [d.gfx for d in found.devices] == ["gfx1100", "gfx1030"]
    (note,) = found.notes
    assert note.text.endswith("as HSA_OVERRIDE_GFX_VERSION_2 says")


def test_an_override_for_what_is_no_gpu(tree: Callable[..., Path]) -> None:
    found = survey(tree("rx7900_and_apu"), {f"{OVERRIDE}_0": "10.3.0", f"{OVERRIDE}_1": "11.0.0"})
    assert [d.gfx for d in found.devices] == ["gfx1100", "gfx1036"]
    assert found.notes == (
        Note(
            "warning",
            "HSA_OVERRIDE_GFX_VERSION_0 is for no GPU",
            "ROCm counts processors too; the GPUs here have the numbers: 1, 2",
        ),
    )


def test_an_override_that_means_nothing(tree: Callable[..., Path]) -> None:
    found = survey(tree("rx7900_and_apu"), {OVERRIDE: "navi\x1b"})
    assert [d.gfx for d in found.devices] == ["gfx1100", "gfx1036"]
    assert [note.text for note in found.notes] == [
        'HSA_OVERRIDE_GFX_VERSION="navi" is no gfx version'
    ]


def test_an_override_where_the_version_is_unknown(tree: Callable[..., Path]) -> None:
    found = survey(tree("broken"), {OVERRIDE: "11.0.0"})
    assert found.devices[0].gfx == "gfx1100"
    assert "AMD GPU 0 (of unknown generation) is taken for gfx1100" in found.notes[-1].text


def test_overrides_without_a_gpu_are_nobodys_concern(tmp_path: Path) -> None:
    assert survey(tmp_path, {OVERRIDE: "10.3", f"{OVERRIDE}_7": "10.3.0"}) == Survey()


# --- permissions

GROUP_ONLY = FileAccess(True, False, 0o660, 0, 54321)


def denied(root: Path, access: FileAccess, *names: str) -> list[Note]:
    """The notes when these files (all without names) give this access."""

    def look(path: Path) -> FileAccess:
        return access if not names or path.name in names else OPEN

    return list(amd.devices(root, {}, look, USER).notes)


def test_no_member_of_the_group(tree: Callable[..., Path]) -> None:
    assert denied(tree("rx7900_and_apu"), GROUP_ONLY, "kfd", "renderD129") == [
        Note(
            "warning",
            "no permission to use the AMD GPU: /dev/kfd, /dev/dri/renderD129 may be opened by "
            "group 54321 only",
            "add the daemon's user to the groups render and video, and start the daemon again "
            "after a new login: sudo usermod -aG render,video USER",
        )
    ]


def test_no_member_of_the_group_in_a_container(tree: Callable[..., Path]) -> None:
    (note,) = denied(tree("rx7900_and_apu", "/.dockerenv:"), GROUP_ONLY)
    assert note.hint == "start the container with --group-add 54321"


def test_device_files_that_a_container_lacks(tmp_path: Path, tree: Callable[..., Path]) -> None:
    root = tree("rx7900_and_apu", "/run/.containerenv:")
    (root / "dev/kfd").unlink()
    assert survey(root).notes == (
        Note(
            "warning",
            "the AMD GPU cannot be used: there is no /dev/kfd",
            "start the container with --device /dev/kfd --device /dev/dri",
        ),
    )


def test_device_files_that_a_machine_lacks(tree: Callable[..., Path]) -> None:
    root = tree("rx7900_and_apu")
    (root / "dev/dri/renderD129").unlink()
    (note,) = survey(root).notes
    assert note.text == "the AMD GPU cannot be used: there is no /dev/dri/renderD129"
    assert note.hint.startswith("load the driver anew")


def test_something_else_forbids(tree: Callable[..., Path]) -> None:
    (note,) = denied(tree("rx7900_and_apu"), FileAccess(True, False, 0o666), "kfd")
    assert note.text == "no permission to use the AMD GPU: something forbids to open /dev/kfd"
    assert "dmesg" in note.hint


def test_selinux_in_a_container(tree: Callable[..., Path]) -> None:
    (note,) = denied(tree("rx7900_and_apu", "/.dockerenv:"), FileAccess(True, False, 0o666))
    assert "sudo setsebool container_use_devices=1" in note.hint


def test_the_owner_only(tree: Callable[..., Path]) -> None:
    (note,) = denied(tree("rx7900_and_apu"), FileAccess(True, False, 0o600), "kfd")
    assert note.text.endswith("/dev/kfd may be opened by its owner only")


def test_graphics_in_the_processor_are_no_warning(tree: Callable[..., Path]) -> None:
    (note,) = denied(tree("apu_only"), GROUP_ONLY)
    assert note.level == "info"


def test_a_gpu_that_was_not_passed_to_the_container(
    tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("rx7900_and_apu")
    hidden = root / "sys/class/kfd/kfd/topology/nodes/2/properties"
    actual = Path.open

    def refuse(path: Path, *args: str) -> object:
        if path == hidden:
            # As KFD answers for a GPU that the container's device rules exclude.
            raise PermissionError(1, "Operation not permitted")
        return actual(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    found = survey(root)
    assert [d.gfx for d in found.devices] == ["gfx1100"]
    assert found.notes[0] == Note(
        "info",
        "an AMD GPU (KFD node 2) is there, but this process may not see it",
        "pass it to the container with --device",
    )
