"""Who can be asked about GPUs on this machine, as far as a few names of files tell.

Starting a process that loads the makers' libraries costs a tenth of a second. Most machines without
a GPU have none of the files that are looked for here, and so never pay it.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Device files of NVIDIA's drivers: discrete GPUs, Jetson, and Windows' GPU inside WSL.
_NVIDIA_FILES = (
    "dev/nvidiactl",
    "dev/nvidia0",
    "dev/nvhost-ctrl-gpu",
    "dev/nvhost-gpu",
    "dev/dxg",
    "proc/driver/nvidia",
)
_NVIDIA_LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")
_LIBRARY_PLACES = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu/nvidia",
    "usr/lib/aarch64-linux-gnu/tegra",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
    "usr/local/cuda/compat",
    "run/opengl-driver/lib",
)
_AMD_FILES = ("dev/kfd", "sys/class/kfd", "sys/module/amdgpu")


def sources(
    environ: Mapping[str, str],
    root: Path = Path("/"),
    *,
    system: str = sys.platform,
    machine: str | None = None,
) -> tuple[str, ...]:
    """Names of those that may know a GPU, in the order in which they are asked.

    ``root`` is where ``dev``, ``proc``, ``sys`` and ``usr`` are; ``LD_LIBRARY_PATH`` of ``environ``
    counts as it stands. Looks at files; raises nothing.
    """
    if system == "darwin":
        return ("apple",) if (machine or platform.machine()) == "arm64" else ()
    if system == "win32":
        windows = Path(environ.get("WINDIR", "C:/Windows")) / "System32"
        return _NVIDIA if _any(windows, ("nvml.dll", "nvcuda.dll")) else ()
    found: tuple[str, ...] = ()
    if nvidia_files(root) or _nvidia_libraries(environ, root):
        found += _NVIDIA
    if _any(root, _AMD_FILES):
        found += ("amd",)
        if _amd_library(environ):
            found += ("rsmi",)
    return found


def nvidia_files(root: Path = Path("/")) -> bool:
    """Whether a driver of NVIDIA's has left its files."""
    return _any(root, _NVIDIA_FILES)


_NVIDIA = ("nvml", "cuda")


def _nvidia_libraries(environ: Mapping[str, str], root: Path) -> bool:
    places = [root / place for place in _LIBRARY_PLACES]
    # An empty entry means the current directory, where no driver is.
    places += [Path(p) for p in environ.get("LD_LIBRARY_PATH", "").split(":") if p]
    return any(_any(place, _NVIDIA_LIBRARIES) for place in places)


def _amd_library(environ: Mapping[str, str]) -> bool:
    """Whether pyrsmi is installed, and what it loads is where it looks for it."""
    library = Path(environ.get("ROCM_PATH", "/opt/rocm"))
    if not _any(library, ("lib/libamd_smi.so", "lib64/libamd_smi.so")):
        return False
    return importlib.util.find_spec("pyrsmi") is not None


def _any(directory: Path, names: Iterable[str]) -> bool:
    return any(_exists(directory / name) for name in names)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        # A directory that may not be entered, or a path with a NUL: nothing there for us.
        return False
