"""AMD's GPUs from the files of Linux: KFD's topology and the driver's memory counters.

``runners-and-scheduling.md`` 1.7 and 1.12. No library is loaded and no device is opened; all of it
takes milliseconds to read, so that fresh memory figures are had by asking again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from msgspec.structs import replace

from ollamad.hardware.device import split_gfx
from ollamad.hardware.files import (
    Look,
    denial,
    entries,
    gpus_on_bus,
    group_name,
    identity,
    in_container,
    link_name,
    look,
    number,
    read,
    read_if_possible,
    resolved,
)
from ollamad.hardware.gfx import gfx_of_version, numbered_overrides, override
from ollamad.hardware.vendor import MOST_DEVICES, Note, Survey, VendorDevice, pci_id, plain_text

VENDOR = "0x1002"
_NODES = "sys/class/kfd/kfd/topology/nodes"
_PROCESSES = "sys/class/kfd/kfd/proc"
_NAMES = ("usr/share/libdrm/amdgpu.ids", "opt/amdgpu/share/libdrm/amdgpu.ids")
_GIB = 1 << 30


class _Unusable(Exception):
    """Why a node of KFD's is not a GPU that can be used."""


class Node(NamedTuple):
    """One GPU of KFD's topology; ``number`` counts processors too."""

    number: int
    render_minor: int
    #: Empty when unknown.
    gfx: str = ""
    #: 0 when unknown.
    unique_id: int = 0


class _Found(NamedTuple):
    node: Node
    device: VendorDevice


def devices(
    root: Path = Path("/"),
    environ: Mapping[str, str] | None = None,
    look_at: Look = look,
    user: tuple[int, Sequence[int]] | None = None,
) -> Survey:
    """The GPUs that the driver offers for computing, in KFD's order, and why others are not there.

    ``environ`` has the overrides of the gfx version. ``look_at`` and ``user`` (number and groups)
    decide what may be opened; by default this process does. Raises nothing.
    """
    environ = os.environ if environ is None else environ
    found: list[_Found] = []
    notes: list[Note] = []
    for number_, directory in _node_directories(root):
        try:
            node = _node(number_, directory)
            if node:
                found.append(_Found(node, _device(root, directory, node, len(found))))
        except PermissionError:
            # In a container: a GPU of the host's that was not passed to it.
            text = f"an AMD GPU (KFD node {number_}) is there, but this process may not see it"
            notes.append(Note("info", text, "pass it to the container with --device"))
        except (OSError, _Unusable) as error:
            notes.append(Note("warning", f"KFD node {number_} is not used: {error}"))
    found = list(_overridden(found, environ, notes))
    notes += _unoffered(root, [entry.device.pci_id for entry in found])
    notes += _access_notes(root, found, look_at, user or identity())
    return Survey(tuple(entry.device for entry in found), tuple(notes))


def parse_properties(text: str) -> dict[str, int]:
    """The lines ``key value`` of a node's properties; what is no such line is left out."""
    pairs = (line.split() for line in text.splitlines())
    return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and number(p[1]) is not None}


def is_integrated(marks: bool, vram: int | None, gtt: int | None) -> bool | None:
    """Whether a GPU has no memory of its own; None when unknown (1.7 rule 4).

    ``marks`` says that it has what only cards have; ``vram`` and ``gtt`` are bytes that are its own
    and that it may take of the system.
    """
    if marks:
        return False
    if vram and gtt and vram <= 4 * _GIB and gtt >= max(8 * _GIB, 4 * vram):
        return True
    return None


def market_name(table: str, device: str, revision: str) -> str:
    """The name for ids such as ``0x744c`` and ``0xc8`` in libdrm's table; empty when not there."""
    wanted = (device.removeprefix("0x").lower(), revision.removeprefix("0x").lower())
    for line in table.splitlines():
        fields = [field.strip() for field in line.split(",", 2)]
        if len(fields) == 3 and (fields[0].lower(), fields[1].lower().zfill(2)) == wanted:
            return plain_text(fields[2], 128)
    return ""


def _node_directories(root: Path) -> list[tuple[int, Path]]:
    """By number: the names sort as ``1``, ``10``, ``2``."""
    numbered = [(number(path.name), path) for path in entries(root / _NODES)]
    return sorted((n, path) for n, path in numbered if n is not None)[: 2 * MOST_DEVICES]


def _node(number_: int, directory: Path) -> Node | None:
    """The GPU in this directory; None when it is a processor. Raises `OSError` and `_Unusable`."""
    text = read(directory / "properties")
    properties = parse_properties(text)
    render_minor = properties.get("drm_render_minor", 0)
    if all(properties.get(key, 0) for key in ("vendor_id", "device_id")) and render_minor:
        gfx = gfx_of_version(properties.get("gfx_target_version", 0))
        return Node(number_, render_minor, gfx, properties.get("unique_id", 0))
    if not properties or properties.get("simd_count", 0):
        raise _Unusable("its properties make no sense" if text else "it has no properties")
    return None


def _device(root: Path, directory: Path, node: Node, index: int) -> VendorDevice:
    """Raises `OSError` and `_Unusable`."""
    render = f"renderD{node.render_minor}"
    path = resolved(root / "sys/class/drm" / render / "device")
    vendor, driver = read(path / "vendor").lower(), link_name(path / "driver")
    if not vendor:
        there = path.is_dir()
        raise _Unusable(f"{render} is not on the PCI bus" if there else f"there is no {render}")
    if vendor != VENDOR or driver != "amdgpu":
        raise _Unusable(f"{render} belongs to {plain_text(driver, 32) or 'no driver'}, not amdgpu")

    vram, used = (_bytes(path, f"mem_info_vram_{what}") for what in ("total", "used"))
    gtt, gtt_used = (_bytes(path, f"mem_info_gtt_{what}") for what in ("total", "used"))
    marks = any((path / name).exists() for name in ("mem_info_vram_vendor", "board_info"))
    integrated = is_integrated(marks, vram, gtt)
    total, in_use = vram or 0, used or 0
    if integrated:
        total, in_use = total + (gtt or 0), in_use + (gtt_used or 0)
    return VendorDevice(
        source="amd",
        index=index,
        library="ROCm",
        name=_name(root, path),
        uuid=f"GPU-{node.unique_id:016x}" if node.unique_id else "",
        pci_id=pci_id(path.name),
        total=total,
        # Without a figure of what is in use, none may be taken for free.
        free=total - in_use if used is not None else 0,
        integrated=integrated,
        compute=split_gfx(node.gfx),
        gfx=node.gfx,
        used_by=_used_by(root, number(read_if_possible(directory / "gpu_id")) or 0),
    )


def _bytes(device: Path, name: str) -> int | None:
    return number(read_if_possible(device / name))


def _name(root: Path, device: Path) -> str:
    product = plain_text(read_if_possible(device / "product_name"), 128)
    if product:
        return product
    ids = [read_if_possible(device / name).lower() for name in ("device", "revision")]
    for table in _NAMES:
        named = market_name(read_if_possible(root / table), *ids)
        if named:
            return named
    return f"AMD GPU {ids[0].removeprefix('0x')}" if re.fullmatch("0x[0-9a-f]{4}", ids[0]) else ""


def _used_by(root: Path, gpu_id: int) -> dict[int, int]:
    """Bytes of the GPU's own memory by process, as far as KFD tells."""
    held = {}
    for process in entries(root / _PROCESSES) if gpu_id else ():
        pid, used = number(process.name), _bytes(process, f"vram_{gpu_id}")
        if pid and used:
            held[pid] = used
    return held


def _overridden(
    found: Sequence[_Found], environ: Mapping[str, str], notes: list[Note]
) -> Iterator[_Found]:
    """The devices as the user wants ROCm to take them; ``notes`` gets what there is to say."""
    invalid = set()
    for node, device in found:
        wanted = override(environ, node.number)
        if not wanted or wanted.gfx == device.gfx:
            yield _Found(node, device)
            continue
        if not wanted.gfx:
            invalid.add((wanted.variable, plain_text(wanted.value, 40)))
            yield _Found(node, device)
            continue
        text = (
            f"AMD GPU {device.index} ({device.gfx or 'of unknown generation'}) is taken for "
            f"{wanted.gfx}, as {wanted.variable} says"
        )
        notes.append(Note("info", text))
        yield _Found(node, replace(device, gfx=wanted.gfx, compute=split_gfx(wanted.gfx)))
    for variable, value in sorted(invalid):
        text = f'{variable}="{value}" is no gfx version'
        hint = "write it as in 10.3.0; with another value ROCm may find no GPU at all"
        notes.append(Note("warning", text, hint))
    numbers = [node.number for node, _ in found]
    for unknown in sorted(set(numbered_overrides(environ)) - set(numbers)) if numbers else ():
        there = ", ".join(map(str, numbers))
        text = f"HSA_OVERRIDE_GFX_VERSION_{unknown} is for no GPU"
        hint = f"ROCm counts processors too; the GPUs here have the numbers: {there}"
        notes.append(Note("warning", text, hint))


def driver_notes(root: Path = Path("/")) -> list[Note]:
    """About GPUs on the bus that have another driver than amdgpu, or none. Raises nothing."""
    notes = []
    for gpu in gpus_on_bus(root, VENDOR):
        name = f"the AMD GPU {gpu.pci_id}"
        if gpu.driver == "radeon":
            notes.append(Note("info", f"{name} is too old for ROCm (its driver is radeon)"))
        elif not gpu.driver:
            hint = "load the driver: sudo modprobe amdgpu; if that fails, see: sudo dmesg"
            notes.append(Note("warning", f"{name} has no driver", hint))
        elif gpu.driver != "amdgpu":
            driver = plain_text(gpu.driver, 32)
            notes.append(Note("info", f"{name} belongs to the driver {driver}, not to amdgpu"))
    return notes


def _unoffered(root: Path, used: Sequence[str]) -> Iterator[Note]:
    """About GPUs of amdgpu's that KFD does not offer."""
    reason = "does not offer it" if (root / _NODES).is_dir() else "has no such interface (KFD)"
    for gpu in gpus_on_bus(root, VENDOR):
        if gpu.driver == "amdgpu" and gpu.pci_id not in used:
            text = (
                f"the AMD GPU {gpu.pci_id} cannot be used through ROCm: the kernel {reason} for "
                "computing"
            )
            yield Note("info", text, "Vulkan may still be able to use it")


def _access_notes(
    root: Path, found: Sequence[_Found], look_at: Look, user: tuple[int, Sequence[int]]
) -> Iterator[Note]:
    """About device files that are missing or may not be opened."""
    if not found:
        return
    names = ["dev/kfd", *(f"dev/dri/renderD{node.render_minor}" for node, _ in found)]
    accesses = {name: look_at(root / name) for name in names}
    denied = {name: denial(access, *user) for name, access in accesses.items()}
    # An integrated GPU alone is seldom meant to be used.
    integrated = all(device.integrated for _, device in found)
    level: Literal["info", "warning"] = "info" if integrated else "warning"
    container = in_container(root)
    for reason in ("missing", "group", "owner", "policy"):
        those = [name for name, why in denied.items() if why == reason]
        if not those:
            continue
        files = ", ".join(f"/{name}" for name in those)
        groups = sorted({accesses[name].gid for name in those})
        if reason == "missing":
            text = f"the AMD GPU cannot be used: there is no {files}"
            hint = "load the driver anew: sudo modprobe -r amdgpu; sudo modprobe amdgpu"
            if container:
                hint = "start the container with --device /dev/kfd --device /dev/dri"
        elif reason == "group":
            named = ", ".join(map(group_name, groups))
            text = f"no permission to use the AMD GPU: {files} may be opened by group {named} only"
            hint = (
                "add the daemon's user to the groups render and video, and start the daemon again "
                "after a new login: sudo usermod -aG render,video USER"
            )
            if container:
                added = " ".join(f"--group-add {gid}" for gid in groups)
                hint = f"start the container with {added}"
        elif reason == "owner":
            text = f"no permission to use the AMD GPU: {files} may be opened by its owner only"
            hint = "reinstall the driver's udev rules; usually group render may use these files"
        else:
            text = f"no permission to use the AMD GPU: something forbids to open {files}"
            hint = "a security module does; see: sudo dmesg"
            if container:
                hint = (
                    "start the container with --device /dev/kfd --device /dev/dri; where SELinux "
                    "is on, on the host: sudo setsebool container_use_devices=1"
                )
        yield Note(level, text, hint)
