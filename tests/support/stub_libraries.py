"""Stubs of GPU makers' libraries: ``tests/stubs``, compiled once in a run of the tests.

How they behave is told by the environment variables that each of their files lists.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ollamad.hardware.monitor import Monitor

#: ``monitor("nvml", "cuda", STUB_NVML_GPUS=2)``: the stubs to be found, and how they behave.
MakeMonitor = Callable[..., Monitor]

_SOURCES = Path(__file__).parents[1] / "stubs"

#: Directory, file, source and macros of each library.
_LIBRARIES = (
    ("nvml", "libnvidia-ml.so.1", "nvml.c", ()),
    ("nvml-bare", "libnvidia-ml.so.1", "nvml.c", ("-DBARE",)),
    ("nvml-old", "libnvidia-ml.so.1", "nvml.c", ("-DOLD",)),
    ("cuda", "libcuda.so.1", "cuda.c", ()),
    ("rocm/lib", "librocm_smi64.so", "rocm_smi.c", ()),
    ("rocm/lib", "libamd_smi.so", "rocm_smi.c", ()),
)


@functools.cache
def _compiled() -> tempfile.TemporaryDirectory[str]:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is missing: it compiles the stubs of GPU libraries")
    directory = tempfile.TemporaryDirectory(prefix="ollamad-stubs-")
    for place, name, source, macros in _LIBRARIES:
        target = Path(directory.name, place, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        warnings = ("-Wall", "-Wextra", "-Werror")
        command = [gcc, "-std=gnu11", "-O1", "-shared", "-fPIC", *warnings, *macros]
        subprocess.run([*command, "-o", target, _SOURCES / source], check=True)
    return directory


def stub_library(place: str) -> Path:
    """The directory of one compiled library, for ``LD_LIBRARY_PATH``.

    ``nvml``, ``nvml-bare`` (without what old drivers lack), ``nvml-old`` (with the process lists of
    drivers before 510), ``cuda``; ``rocm`` is a directory for ``ROCM_PATH``. Skips without gcc.
    """
    return Path(_compiled().name, place)
