"""What ``ps`` says of a model's memory, against what its runner printed (8.5, http-api.md 12.2,
cli.md 7.3)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
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
        stage.add("m", **SHAPE)
        yield stage


@pytest.fixture
def stage(blind: Stage) -> Iterator[Stage]:
    yield blind
    blind.clear()


#: What the sizes and layers of the model are made of.
SHAPE = {
    "llama__block_count": 32,
    "llama__attention__head_count": 8,
    "llama__attention__head_count_kv": 2,
    "llama__embedding_length": 64,
}


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


#: As llama-server lists them. No driver of theirs is there, so nobody knows what they can do.
TWO_GPUS = """\
CUDA0: NVIDIA GeForce RTX 4060 Ti (16380 MiB, 15000 MiB free)
CUDA1: NVIDIA GeForce RTX 4090 (24564 MiB, 23592 MiB free)"""


@pytest.fixture(scope="module")
def with_two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("two") / "home", FAKE_DEVICES=TWO_GPUS) as stage:
        stage.add("m", **SHAPE)
        yield stage


@pytest.fixture
def gpus(with_two_gpus: Stage) -> Iterator[Stage]:
    yield with_two_gpus
    with_two_gpus.clear()


def environment(stage: Stage) -> dict[str, str]:
    """Of the variables that choose devices, those that the last runner got."""
    names = ("CUDA_VISIBLE_DEVICES", "LLAMA_ARG_FIT_TARGET")
    return {k: v for k, v in stage.starts()[-1].environ.items() if k in names}


def test_a_model_on_the_better_of_two(gpus: Stage) -> None:
    entry = load(gpus, offloaded(33, 33), buffer("CUDA0", 80), buffer("CPU_Mapped", 20))
    assert environment(gpus) == {"CUDA_VISIBLE_DEVICES": "1", "LLAMA_ARG_FIT_TARGET": "1024"}
    (start,) = gpus.starts()
    assert start.value("--split-mode") == "none"
    assert start.value("--main-gpu") == "0"
    assert start.value("-ngl") is None
    assert start.value("--fit") is None
    assert entry["size"] == entry["size_vram"] == 80 * MIB
    # The runner sees one device only and calls it CUDA0.
    assert entry["devices"] == {"CUDA1": 80 * MIB}
    assert "reason" not in entry
    assert printed(gpus)[3] == "100% GPU"
    assert printed(gpus, "--verbose")[-1] == "CUDA1 83 MB"


def test_a_model_of_which_a_part_is_on_a_gpu(gpus: Stage) -> None:
    entry = load(gpus, offloaded(20, 33), buffer("CUDA0", 60), buffer("CPU", 40))
    assert (entry["size"], entry["size_vram"]) == (100 * MIB, 60 * MIB)
    assert entry["reason"].startswith("20 of 33 layers on CUDA1 (expected: all ")
    assert printed(gpus)[3] == "40%/60% CPU/GPU"
    assert printed(gpus, "--verbose")[-2:] == ["CUDA1 62 MB", entry["reason"]]
    told = [line for line in gpus.log.splitlines() if 'msg="model loaded"' in line]
    assert f'reason="{entry["reason"]}"' in told[-1]


def test_as_many_layers_as_the_user_says(gpus: Stage) -> None:
    entry = load(gpus, offloaded(1, 33), buffer("CUDA0", 60), buffer("CPU", 40), num_gpu=1)
    (start,) = gpus.starts()
    assert (start.value("-ngl"), start.value("--fit")) == ("1", "off")
    assert entry["reason"].startswith("1 of 33 layers on CUDA1")
    assert "num_gpu" in entry["reason"]


def test_no_layers_at_all(gpus: Stage) -> None:
    entry = load(gpus, buffer("CPU", 100), num_gpu=0)
    (start,) = gpus.starts()
    assert (start.value("-ngl"), start.value("--load-mode")) == ("0", "none")
    assert environment(gpus) == {}
    assert (entry["size"], entry["size_vram"]) == (100 * MIB, 0)
    assert entry["reason"].startswith("on the CPU: ")
    assert "num_gpu" in entry["reason"]
    assert "devices" not in entry


def test_the_log_tells_what_is_about_to_happen(tmp_path: Path) -> None:
    overhead = {"OLLAMA_GPU_OVERHEAD": str(1 << 30)}
    cache = {"OLLAMA_KV_CACHE_TYPE": "q8_0"}
    with staged(tmp_path / "h", FAKE_DEVICES=TWO_GPUS, **overhead, **cache) as stage:
        stage.add("m", **SHAPE)
        load(stage, offloaded(33, 33), buffer("CUDA0", 80))
        # What the devices can do is not known: they get no flash attention.
        (start,) = stage.starts()
        assert start.value("--flash-attn") == "off"
        assert "--cache-type-k" not in start.argv
        assert start.environ["LLAMA_ARG_FIT_TARGET"] == "2048"
        assert "'q8_0' needs flash attention and is not used" in stage.log
        for line in (
            'msg="gpu memory" id=1 library=CUDA available="21.6 GiB" free="23.0 GiB" '
            'minimum="457.0 MiB" overhead="1.0 GiB"',
            'where="all 33 layers on CUDA1"',
            'devices="CUDA1 80.0 MiB"',
        ):
            assert line in stage.log


def test_a_model_on_all_gpus(tmp_path: Path) -> None:
    home = tmp_path / "h"
    with staged(home, FAKE_DEVICES=TWO_GPUS, OLLAMA_SCHED_SPREAD="1") as stage:
        stage.add("m", **SHAPE)
        log = [
            offloaded(33, 33),
            buffer("CUDA0", 60),
            buffer("CUDA1", 40),
            buffer("CUDA0", 5, "KV"),
        ]
        entry = load(stage, *log)
        assert environment(stage)["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert stage.starts()[0].value("--main-gpu") is None
        assert entry["devices"] == {"CUDA0": 65 * MIB, "CUDA1": 40 * MIB}
        assert entry["size"] == entry["size_vram"] == 105 * MIB


def test_a_main_gpu_that_there_is_not(tmp_path: Path) -> None:
    warning = 'msg="main_gpu names no GPU that there is" model=m:latest main_gpu=5 devices=2'
    with staged(tmp_path / "h", FAKE_DEVICES=TWO_GPUS) as stage:
        stage.add("m", **SHAPE)
        load(stage, offloaded(33, 33), buffer("CUDA1", 80), main_gpu=1)
        assert "main_gpu names" not in stage.log
        load(stage, offloaded(33, 33), buffer("CUDA0", 80), main_gpu=5)
        assert stage.starts()[-1].value("--main-gpu") == "5"
        assert warning in stage.log


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
