"""What ``ps`` says of a model's memory, against what its runner printed (8.5, http-api.md 12.2,
cli.md 7.3)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.stage import Stage, staged

MIB = 1 << 20


def buffer(name: str, size: float, kind: str = "model") -> str:
    part = {"model": "load_tensors", "KV": "llama_kv_cache", "compute": "sched_reserve"}[kind]
    return f"{part}: {name} {kind} buffer size = {size:.2f} MiB"


def offloaded(count: int, total: int) -> str:
    return f"load_tensors: offloaded {count}/{total} layers to GPU"


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A daemon that found no device."""
    with staged(tmp_path_factory.mktemp("blind") / "home") as stage:
        stage.add("m")
        yield stage


@pytest.fixture
def stage(blind: Stage) -> Iterator[Stage]:
    yield blind
    blind.clear()


def load(stage: Stage, *log: str, **options: Any) -> dict[str, Any]:
    """The entry of ps for a model whose runner prints ``log``."""
    stage.will(log=list(log))
    stage.post("/api/generate", {"model": "m", "options": options})
    (entry,) = stage.get("/api/ps")["models"]
    return dict(entry)


def printed(stage: Stage, *flags: str) -> list[str]:
    """The cells of the one row of ``ollama ps``."""
    done = subprocess.run(
        [sys.executable, "-m", "ollamad", "ps", *flags],
        env={"PATH": os.environ["PATH"], "HOME": str(stage.home), "OLLAMA_HOST": stage.url},
        capture_output=True,
        text=True,
        check=True,
    )
    _, row = done.stdout.splitlines()
    return re.split(r" {4,}", row.rstrip())


@pytest.mark.parametrize(
    ("log", "size", "vram", "shown"),
    [
        (
            [
                offloaded(31, 31),
                buffer("CUDA0", 80),
                buffer("CPU_Mapped", 20),
                buffer("CUDA0", 40, "KV"),
            ],
            125829120,
            125829120,
            ("125 MB", "100% GPU"),
        ),
        (
            [
                offloaded(20, 33),
                buffer("CUDA0", 60),
                buffer("CPU", 30),
                buffer("CUDA0", 10, "KV"),
            ],
            100 * MIB,
            70 * MIB,
            ("104 MB", "30%/70% CPU/GPU"),
        ),
        ([buffer("CPU", 80), buffer("CPU", 20, "KV")], 100 * MIB, 0, ("104 MB", "100% CPU")),
    ],
)
def test_sizes(stage: Stage, log: list[str], size: int, vram: int, shown: tuple[str, str]) -> None:
    entry = load(stage, *log)
    assert (entry["size"], entry["size_vram"]) == (size, vram)
    cells = printed(stage)
    assert (cells[2], cells[3]) == shown
    assert entry.get("devices", {}) == ({"CUDA0": vram} if vram else {})
    assert ("reason" in entry) == (vram < size)


def test_a_runner_that_does_not_tell_is_on_the_processor(stage: Stage) -> None:
    entry = load(stage)
    assert entry["size"] > 0
    assert entry["size_vram"] == 0
    assert printed(stage)[3] == "100% CPU"


def test_why_without_a_device(stage: Stage) -> None:
    entry = load(stage)
    assert entry["reason"] == "on the CPU: no GPU was found"
    assert printed(stage, "--verbose")[-1] == entry["reason"]
    told = [line for line in stage.log.splitlines() if 'msg="model loaded"' in line]
    assert f'reason="{entry["reason"]}"' in told[-1]
