"""What the files of NVIDIA's driver tell when no GPU of NVIDIA's can be used.

After the troubleshooting part of the user's documentation. Only files are looked at; what the
libraries themselves say is told by `ollamad.hardware.nvml` and `ollamad.hardware.cuda_driver`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ollamad.hardware.files import (
    BusGpu,
    Denial,
    Look,
    denial,
    entries,
    gpus_on_bus,
    group_name,
    identity,
    in_container,
    in_wsl,
    look,
)
from ollamad.hardware.vendor import Note, plain_text

VENDOR = "0x10de"
#: Files of boards whose GPU is part of the processor, with a driver of another make.
_JETSON = ("etc/nv_tegra_release", "dev/nvhost-ctrl-gpu", "dev/nvhost-gpu")
_CONTAINER_HINT = (
    "install the NVIDIA Container Toolkit on the host and start the container with --gpus=all "
    "(Podman: --device nvidia.com/gpu=all)"
)


def notes(
    root: Path = Path("/"),
    *,
    found: bool = False,
    look_at: Look = look,
    user: tuple[int, Sequence[int]] | None = None,
) -> list[Note]:
    """Where device files, modules and the bus do not fit together, and what to do about it.

    ``found`` says that a library lists NVIDIA's GPUs all the same; then only what keeps programs
    from computing on them is of interest. ``look_at`` and ``user`` as with `amd.devices`. Raises
    nothing.
    """
    if in_wsl(root):
        return [] if found else list(_in_windows(root))
    if any((root / name).exists() for name in _JETSON):
        return []
    gpus = gpus_on_bus(root, VENDOR)
    loaded = any((root / name).exists() for name in ("sys/module/nvidia", "proc/driver/nvidia"))
    if not loaded:
        return [] if found else list(_without_driver(root, gpus))
    if not gpus and not found:
        text = "NVIDIA's driver is loaded, but no GPU of NVIDIA's is on the PCI bus"
        return [Note("info", text, "a GPU that was there may have failed; see: sudo dmesg")]
    files = [
        path.name
        for path in entries(root / "dev")
        if re.fullmatch(r"nvidia([0-9]+|ctl|-uvm)", path.name)
    ]
    container = in_container(root)
    if not found and not any(re.fullmatch("nvidia[0-9]+", name) for name in files):
        return [_without_files(container)]
    result = list(_denied(root, files, look_at, user or identity(), container))
    if not (root / "sys/module/nvidia_uvm").exists() or "nvidia-uvm" not in files:
        result.append(_without_uvm(container))
    return result


def _in_windows(root: Path) -> Iterator[Note]:
    if not (root / "dev/dxg").exists():
        text = "Windows passes no GPU to this Linux: there is no /dev/dxg"
        yield Note("info", text, "use WSL 2, and update it: wsl --update")
    elif not (root / "usr/lib/wsl/lib/libcuda.so.1").exists():
        text = "Windows has no driver of NVIDIA's that this Linux could use"
        hint = "with a GPU of NVIDIA's, install its driver in Windows; none is needed in WSL"
        yield Note("info", text, hint)


def _without_driver(root: Path, gpus: Sequence[BusGpu]) -> Iterator[Note]:
    for gpu in gpus:
        name = f"the NVIDIA GPU {gpu.pci_id}"
        if gpu.driver == "nouveau":
            hint = "install NVIDIA's driver and restart the machine"
            yield Note("warning", f"{name} has the driver nouveau, which cannot run CUDA", hint)
        elif gpu.driver:
            driver = plain_text(gpu.driver, 32)
            yield Note("info", f"{name} belongs to the driver {driver}, not to NVIDIA's")
        else:
            hint = (
                "load the driver: sudo modprobe nvidia; if that fails, install it anew: it has to "
                "fit the running kernel"
            )
            yield Note("warning", f"{name} has no driver", hint)
    # Where sysfs is hidden (some sandboxes do so), nothing can be said of modules.
    if not gpus and (root / "dev/nvidiactl").exists() and (root / "sys/module").is_dir():
        text = "there are device files of NVIDIA's, but its driver is not loaded"
        yield Note("warning", text, "load it (outside of any container): sudo modprobe nvidia")


def _without_files(container: bool) -> Note:
    if container:
        text = "the host has a GPU of NVIDIA's, but this container was started without it"
        return Note("warning", text, _CONTAINER_HINT)
    text = "NVIDIA's driver is loaded, but there is no /dev/nvidia0"
    return Note("warning", text, "make the device files: sudo nvidia-modprobe -c 0 -u")


def _without_uvm(container: bool) -> Note:
    hint = (
        "load it: sudo nvidia-modprobe -u; if CUDA fails after the machine has slept: "
        "sudo rmmod nvidia_uvm; sudo modprobe nvidia_uvm"
    )
    if container:
        hint = "load it on the host: sudo nvidia-modprobe -u; then start the container again"
    return Note("warning", "the module nvidia_uvm is not loaded, without which CUDA fails", hint)


def _denied(
    root: Path,
    files: Sequence[str],
    look_at: Look,
    user: tuple[int, Sequence[int]],
    container: bool,
) -> Iterator[Note]:
    accesses = {name: look_at(root / "dev" / name) for name in files}
    reasons: dict[Denial, list[str]] = {}
    for name, access in accesses.items():
        reason = denial(access, *user)
        if reason and reason != "missing":
            reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        shown = ", ".join(f"/dev/{name}" for name in names)
        if reason == "policy":
            text = f"no permission to use the NVIDIA GPU: something forbids to open {shown}"
            hint = "a security module does; see: sudo dmesg"
            if container:
                hint = (
                    'start the container again; if it recurs, add "exec-opts": '
                    '["native.cgroupdriver=cgroupfs"] to /etc/docker/daemon.json on the host; '
                    "where SELinux is on: sudo setsebool container_use_devices=1"
                )
        elif reason == "group":
            groups = ", ".join(group_name(gid) for gid in sorted({accesses[n].gid for n in names}))
            text = f"no permission to use the NVIDIA GPU: {shown} may be opened by group {groups}"
            hint = "add the daemon's user to that group: sudo usermod -aG GROUP USER"
        else:
            text = f"no permission to use the NVIDIA GPU: {shown} may be opened by its owner only"
            hint = "let everybody use the GPU: the option NVreg_DeviceFileMode=0666 of the module"
        yield Note("warning", text, hint)
