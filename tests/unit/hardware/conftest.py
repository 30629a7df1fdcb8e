"""Monitors whose process loads stubs of the makers' libraries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.stub_libraries import MakeMonitor, stub_library

from ollamad.hardware.monitor import Monitor


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a machine with NVIDIA's device files and 64 GiB of memory."""
    root = tmp_path / "root"
    for directory in ("dev", "proc", "sys"):
        (root / directory).mkdir(parents=True)
    (root / "dev/nvidiactl").touch()
    (root / "proc/meminfo").write_text("MemTotal: 67108864 kB\nMemAvailable: 33554432 kB\n")
    return root


@pytest.fixture
async def monitor(machine: Path) -> AsyncIterator[MakeMonitor]:
    """Makes monitors whose processes find the named stubs; they end with the test."""
    made: list[Monitor] = []

    def make(*libraries: str, root: Path = machine, **variables: object) -> Monitor:
        environ = dict(os.environ)
        environ["LD_LIBRARY_PATH"] = ":".join(str(stub_library(name)) for name in libraries)
        environ |= {name: str(value) for name, value in variables.items()}
        made.append(Monitor(environ, root=root))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
