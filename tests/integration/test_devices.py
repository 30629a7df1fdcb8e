"""A daemon on a machine with an NVIDIA GPU, as far as a stub of NVML and a scripted runner go: what
it finds, tells and does (runners-and-scheduling.md 1.3 to 1.13, 5.1)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.daemon import Daemon, eventually
from support.stage import Stage, belongs_to, staged
from support.stub_libraries import stub_library

GIB = 1 << 30
MIB = 1 << 20
RTX = "NVIDIA GeForce RTX 4090"
ROW = f"CUDA0: {RTX} (24564 MiB, 24000 MiB free)"


@contextmanager
def card(
    tmp_path: Path, *rows: str, settings: dict[str, str] | None = None, **stub: str
) -> Iterator[Stage]:
    """A daemon whose NVML is the stub, and whose runner lists ``rows``."""
    env = {
        "LD_LIBRARY_PATH": f"{stub_library('nvml')}:{stub_library('cuda')}",
        "STUB_CUDA_GPUS": stub.get("GPUS", "1"),
        "FAKE_DEVICES": "\n".join(rows),
        **{f"STUB_NVML_{name}": value for name, value in stub.items()},
        **(settings or {}),
    }
    with staged(tmp_path / "home", **env) as stage:
        yield stage


def devices(stage: Daemon, *flags: str, url: str = "") -> str:
    """What ``ollamad devices`` prints."""
    env = {**stage.env, "OLLAMA_HOST": url or stage.url}
    done = subprocess.run(
        [sys.executable, "-m", "ollamad", "devices", *flags],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def notes(status: dict[str, Any]) -> str:
    return "\n".join(f"{n['level']}: {n['text']} | {n['hint']}" for n in status["notes"])


def start(stage: Stage, **options: Any) -> Any:
    """The one start of a runner that loading a model causes."""
    stage.add("m")
    stage.post("/api/generate", {"model": "m", "options": options})
    (found,) = stage.starts()
    return found


def test_a_healthy_card(tmp_path: Path) -> None:
    with card(tmp_path, ROW) as stage:
        status = stage.get("/api/status")
        assert status["discovered"] is True
        (device,) = status["devices"]
        uuid = device["uuid"]
        assert uuid.startswith("GPU-")
        assert device == {
            "id": "0",
            "library": "CUDA",
            "name": "CUDA0",
            "description": RTX,
            "compute": "8.9",
            "driver": "12.8",
            "pci_id": "0000:0a:00.0",
            "uuid": uuid,
            "type": "discrete",
            "total": 24564 * MIB,
            "free": 23 * GIB,
        }
        assert status["notes"] == []

        shown = devices(stage)
        assert shown.splitlines()[0].split() == (
            ["ID", "LIBRARY", "NAME", "COMPUTE", "DRIVER", "PCI", "ID", "TYPE", "TOTAL", "FREE"]
        )
        assert f"0     CUDA       {RTX}" in shown
        assert "23.0 GiB" in shown
        content = json.loads(devices(stage, "--json"))
        assert content == {"source": "server", "devices": [device], "notes": []}

        line = next(line for line in stage.log.splitlines() if "inference compute" in line)
        assert line.partition('msg="inference compute" ')[2] == (
            f'id=0 filter_id=0 library=CUDA compute=8.9 name=CUDA0 description="{RTX}" '
            f"libdirs={tmp_path.name} driver=12.8 pci_id=0000:0a:00.0 type=discrete "
            'total="24.0 GiB" available="23.0 GiB"'
        )
        assert 'msg="discovering available GPUs..."' in stage.log
        assert 'msg="vram-based default context" total_vram="24.0 GiB" default_num_ctx=32768' in (
            stage.log
        )

        runner = start(stage)
        assert runner.environ["CUDA_VISIBLE_DEVICES"] == uuid
        assert runner.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        # The tier of the card, cut to what the model was trained on.
        assert runner.value("-c") == "8192"


def test_free_memory_is_that_of_now(tmp_path: Path) -> None:
    free = tmp_path / "free"
    free.write_text(str(20 * GIB))
    with card(tmp_path, ROW, FREE_IN=str(free)) as stage:
        assert stage.get("/api/status")["devices"][0]["free"] == 20 * GIB
        free.write_text(str(3 * GIB))
        assert stage.get("/api/status")["devices"][0]["free"] == 3 * GIB
        assert "3.0 GiB" in devices(stage)


def test_a_library_that_hangs_costs_the_card_its_facts(tmp_path: Path) -> None:
    with card(tmp_path, ROW, TROUBLE="hang", AT="init") as stage:
        # The card is there all the same: the runner says so.
        eventually(lambda: stage.get("/api/status")["discovered"], what="devices are known")
        status = stage.get("/api/status")
        (device,) = status["devices"]
        assert (device["name"], device["uuid"]) == ("CUDA0", "")
        assert "does not answer within" in notes(status)
        assert start(stage).environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_a_missing_library_costs_the_card_its_facts(tmp_path: Path) -> None:
    with staged(tmp_path / "home", FAKE_DEVICES=ROW) as stage:
        (device,) = stage.get("/api/status")["devices"]
        assert (device["uuid"], device["pci_id"], device["compute"]) == ("", "", "")
        assert device["free"] == 24000 * MIB


def test_a_card_that_may_not_be_used(tmp_path: Path) -> None:
    """NVML refuses, the runner finds nothing; with OLLAMAD_REQUIRE_GPU nothing is loaded."""
    with card(tmp_path, INIT="4", settings={"OLLAMAD_REQUIRE_GPU": "1"}) as stage:
        status = stage.get("/api/status")
        assert status["devices"] == []
        assert "NVIDIA's driver may not be used by this user" in notes(status)
        shown = devices(stage)
        assert shown.startswith("No GPU is used: models run on the CPU.\n")
        assert "NVIDIA's driver may not be used by this user" in shown
        assert "NVIDIA's driver may not be used by this user" in stage.log
        stage.add("m")
        code, error = stage.failure("/api/generate", {"model": "m", "prompt": "x"})
        assert code == 500
        assert "OLLAMAD_REQUIRE_GPU is set" in error
        assert "NVIDIA's driver may not be used by this user" in error
        assert stage.starts() == []
        # Who asks for the processor gets it.
        stage.post("/api/generate", {"model": "m", "options": {"num_gpu": 0}})
        assert len(stage.starts()) == 1


def test_a_library_that_lies(tmp_path: Path) -> None:
    with card(tmp_path, ROW, FREE=str(400 * GIB), NAME="control") as stage:
        status = stage.get("/api/status")
        (device,) = status["devices"]
        assert 0 < device["free"] <= device["total"] == 24564 * MIB
        assert "cannot be right" in notes(status)
        assert all(text.isprintable() for text in (stage.log.replace("\n", ""), device["name"]))


def test_a_crash_of_the_library_is_not_the_daemons(tmp_path: Path) -> None:
    with card(tmp_path, ROW, TROUBLE="abort", AT="init") as stage:
        status = stage.get("/api/status")
        assert len(status["devices"]) == 1
        assert "crashed" in notes(status)


def test_two_cards_of_which_the_user_hides_one(tmp_path: Path) -> None:
    """8.2: one device seen; it is told by the user's own word for it."""
    settings = {"CUDA_VISIBLE_DEVICES": "1"}
    with card(tmp_path, ROW, GPUS="2", settings=settings) as stage:
        status = stage.get("/api/status")
        (device,) = status["devices"]
        assert (device["id"], device["pci_id"]) == ("0", "0000:0b:00.0")
        assert "CUDA_VISIBLE_DEVICES is '1'" in notes(status)
        assert 'msg="user overrode visible devices" CUDA_VISIBLE_DEVICES=1' in stage.log
        assert 'msg="if GPUs are not correctly discovered, unset and try again"' in stage.log
        assert "id=0 filter_id=1 library=CUDA" in stage.log
        assert start(stage).environ["CUDA_VISIBLE_DEVICES"] == device["uuid"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"OLLAMA_LLM_LIBRARY": "cpu_avx2"}, "OLLAMA_LLM_LIBRARY is cpu_avx2"),
        ({"OLLAMA_LLM_LIBRARY": "vulkan"}, "OLLAMA_LLM_LIBRARY is vulkan"),
        ({"CUDA_VISIBLE_DEVICES": "-1", "FAKE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES is '-1'"),
    ],
)
def test_who_wants_the_processor_gets_it(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    with card(tmp_path, ROW, settings=settings) as stage:
        status = stage.get("/api/status")
        assert (status["devices"], words in notes(status)) == ([], True)
        assert "library=cpu" in stage.log
        runner = start(stage)
        assert runner.value("--device") == "none"


def test_the_runner_of_the_package_leaves_a_card_idle_and_says_so(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the package xllamacpp is missing")
    daemon = Daemon(
        tmp_path / "home",
        {
            "LD_LIBRARY_PATH": str(stub_library("nvml")),
            "PATH": "/nonexistent",
            "XDG_DATA_HOME": str(tmp_path),
        },
    ).start()
    try:
        status = daemon.get("/api/status")
        assert status["devices"] == []
        assert "(GPU-00000000" in notes(status)
        assert "the embedded runner (package xllamacpp) has no support for CUDA" in notes(status)
        assert "runners/build-llama-server --preset cuda" in devices(daemon)
        assert "has no support for CUDA" in daemon.log
        (child,) = (p for p in daemon.family() if "survey" in " ".join(p.cmdline()))
    finally:
        daemon.stop()
    assert not child.is_running()


def test_nobody_waits_for_a_slow_driver_but_who_needs_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with staged(tmp_path / "home", FAKE_DEVICES=ROW) as stage:
        plain = Path(stage.env["OLLAMAD_LLAMA_SERVER"])
        stage.stop()
        script = plain.read_text().replace(
            "exec",
            f'case "$*" in *--list*) while [ ! -e {gate} ]; do sleep 0.05; done;; esac\nexec',
            1,
        )
        plain.write_text(script)
        stage.start()
        assert stage.get("/api/version")["version"]
        assert stage.get("/api/tags") == {"models": []}
        stage.add("m")
        status = stage.get("/api/status")
        assert (status["discovered"], status["devices"]) == (False, [])
        assert "GPUs are still being looked for" in notes(status)
        load = subprocess.Popen(
            [sys.executable, "-m", "ollamad", "run", "m", "hello"],
            env={"PATH": os.environ["PATH"], "HOME": str(stage.home), "OLLAMA_HOST": stage.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        assert stage.starts() == []
        gate.touch()
        output, _ = load.communicate(timeout=60)
        assert load.returncode == 0, output
        assert stage.starts()[0].environ["CUDA_VISIBLE_DEVICES"] == "0"
        assert stage.get("/api/status")["discovered"] is True


def test_a_daemon_that_stops_while_it_looks_leaves_nothing(tmp_path: Path) -> None:
    with staged(tmp_path / "home") as stage:
        plain = Path(stage.env["OLLAMAD_LLAMA_SERVER"])
        stage.stop()
        plain.write_text("#!/bin/sh\nexec sleep 600\n")
        stage.start()
        eventually(
            lambda: any("sleep" in p.name() for p in stage.family()), what="a runner is asked"
        )
        assert any(belongs_to(p, stage.home) for p in stage.family())


def test_devices_without_a_server(tmp_path: Path) -> None:
    with card(tmp_path, ROW) as stage:
        shown = devices(stage, url="127.0.0.1:1")
        assert shown.startswith("No server is running; one started here would find this:\n")
        assert RTX in shown
        content = json.loads(devices(stage, "--json", url="127.0.0.1:1"))
        assert content["source"] == "this machine"
        assert content["devices"][0]["pci_id"] == "0000:0a:00.0"
