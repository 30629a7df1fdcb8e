"""How settings and hardware become what the scheduler goes by."""

from pathlib import Path

import pytest

from ollamad.assembly import defaults, limits, log_hardware, log_runner
from ollamad.hardware.device import Device
from ollamad.hardware.discovery import Hardware
from ollamad.hardware.memory import SystemMemory
from ollamad.hardware.vendor import Note
from ollamad.log import TextFormatter
from ollamad.runners.kinds import Found, RunnerKind
from ollamad.settings import FOREVER, Settings

GIB = 1 << 30
NO_GPU = Hardware(SystemMemory(16 * GIB, 8 * GIB))


def settings(**environ: str) -> Settings:
    return Settings.from_environ({"HOME": "/home/user", **environ})


def gpus(*sizes: int) -> Hardware:
    devices = (
        Device(id=str(i), library="CUDA", name=f"CUDA{i}", total_memory=size * GIB)
        for i, size in enumerate(sizes)
    )
    return Hardware(SystemMemory(), tuple(devices))


def test_limits() -> None:
    found = limits(
        settings(
            OLLAMA_MAX_QUEUE="7",
            OLLAMA_MAX_LOADED_MODELS="2",
            OLLAMA_NUM_PARALLEL="4",
            OLLAMA_KEEP_ALIVE="-1",
            OLLAMA_FLASH_ATTENTION="1",
            OLLAMA_KV_CACHE_TYPE="q8_0",
            OLLAMAD_REQUIRE_GPU="1",
        ),
        gpus(8, 8),
    )
    assert (found.max_queue, found.max_loaded, found.parallel) == (7, 2, 4)
    assert found.keep_alive == FOREVER
    assert (found.flash_attention, found.kv_cache_type) == (True, "q8_0")
    assert (found.device_count, found.require_gpu) == (2, True)


@pytest.mark.parametrize(
    ("environ", "used", "words"),
    [
        ({"OLLAMA_KV_CACHE_TYPE": "Q8_0"}, "q8_0", ""),
        ({"OLLAMA_KV_CACHE_TYPE": " foo "}, "", "unknown OLLAMA_KV_CACHE_TYPE 'foo'"),
        (
            {"OLLAMA_KV_CACHE_TYPE": "q8_0", "OLLAMA_FLASH_ATTENTION": "0"},
            "",
            "needs flash attention",
        ),
        ({"OLLAMA_KV_CACHE_TYPE": "f16", "OLLAMA_FLASH_ATTENTION": "0"}, "f16", ""),
    ],
)
def test_a_cache_type_that_cannot_work_is_left_out(
    caplog: pytest.LogCaptureFixture, environ: dict[str, str], used: str, words: str
) -> None:
    assert limits(settings(**environ), NO_GPU).kv_cache_type == used
    assert words in caplog.text
    assert bool(words) == bool(caplog.records)


def test_a_model_has_at_least_one_slot() -> None:
    assert limits(settings(OLLAMA_NUM_PARALLEL="0"), NO_GPU).parallel == 1


def test_the_default_context_goes_by_the_devices_less_the_overhead() -> None:
    assert defaults(settings(), NO_GPU).tier == 4096
    assert defaults(settings(), gpus(12, 12)).tier == 32768
    assert defaults(settings(OLLAMA_GPU_OVERHEAD=str(2 * GIB)), gpus(12, 12)).tier == 4096
    assert defaults(settings(OLLAMA_CONTEXT_LENGTH="2048"), NO_GPU).context_length == 2048


def program(tmp_path: Path, script: str) -> Found:
    path = tmp_path / "llama-server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    kind = RunnerKind(name="configured", program=(str(path),), origin="a test")
    return Found((kind,), ())


@pytest.mark.parametrize(
    ("script", "words", "warnings"),
    [
        ("echo 'version: 11434 (abc)' >&2", "version=11434", 0),
        ("echo 'version: 10000 (abc)' >&2", "version=10000", 1),
        ("echo 'version: 0 (unknown)' >&2", "version=0", 0),
        ("exit 3", "version=unknown", 0),
    ],
)
async def test_the_log_tells_the_runners_version(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    script: str,
    words: str,
    warnings: int,
) -> None:
    with caplog.at_level("INFO"):
        await log_runner(program(tmp_path, script))
    formatter = TextFormatter()
    assert words in formatter.format(caplog.records[0])
    assert sum(record.levelname == "WARNING" for record in caplog.records) == warnings


async def test_the_log_tells_when_there_is_no_runner(caplog: pytest.LogCaptureFixture) -> None:
    await log_runner(Found((), ("/nowhere/llama-server",)))
    assert "llama-server binary not found (checked: /nowhere/llama-server)" in caplog.text


def test_notes_about_gpus_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    notes = (Note("warning", "a card is idle", "do this"), Note("info", "another one too"))
    with caplog.at_level("INFO"):
        log_hardware(Hardware(SystemMemory(), (), notes), 4096)
    lines = [TextFormatter().format(record) for record in caplog.records]
    assert [line.partition("msg=")[2] for line in lines[1:3]] == [
        '"a card is idle" hint="do this"',
        '"another one too"',
    ]
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO", "INFO"]
    assert "library=cpu" in lines[0]
    assert lines[3].endswith(
        'msg="vram-based default context" total_vram="0 B" default_num_ctx=4096'
    )
