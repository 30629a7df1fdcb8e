"""A runner asked for its devices, runners-and-scheduling.md 1.2, 1.3, 2.16 and the cases of 8.2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio

from ollamad.hardware.finding import Backend
from ollamad.hardware.listing import parse_architectures, parse_listing
from ollamad.runners.devices import RunnerDevices, cuda_runtime, runner_facts
from ollamad.runners.kinds import Found, RunnerKind, embedded_kind

LIST = "Available devices:\n  CUDA0: NVIDIA T4 (15000 MiB, 14000 MiB free)\n"

MakeRunner = Callable[[str], RunnerKind]


@pytest.fixture
def runner(tmp_path: Path) -> MakeRunner:
    def make(script: str) -> RunnerKind:
        path = tmp_path / "llama-server"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return RunnerKind(name="configured", program=(str(path),), origin="a test")

    return make


def asked(kind: RunnerKind, **environ: str) -> RunnerDevices:
    return RunnerDevices(Found((kind,), ()), {"PATH": os.environ["PATH"], **environ})


def lay(root: Path, *files: str) -> None:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def gone(pid: int) -> bool:
    try:
        # Its end is somebody else's to notice.
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def until(done: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not done():  # noqa: ASYNC110 - another process tells nobody
            await trio.sleep(0.01)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "files", "version"),
    [
        ("cuda_v12", ["libcudart.so.12.8.90", "libggml-cuda.so"], (12, 8)),
        ("cuda_v13", ["libcudart.so.13"], (13, 0)),
        ("x", ["cudart64_128.dll"], (12, 8)),
        ("x", ["cudart64_110.dll"], (11, 0)),
        ("x", ["cudart64_12.dll"], (0, 0)),
        ("cuda_v13", [], (13, 0)),
        ("cuda_v12", ["libcudart.so.11.0", "libcudart.so.12.2", "libcudart.so"], (12, 2)),
        ("vulkan", ["libggml-vulkan.so"], (0, 0)),
        ("cuda_jetpack6", [], (0, 0)),
    ],
)
def test_the_version_of_cudas_runtime(
    variant: str, files: list[str], version: tuple[int, int]
) -> None:
    assert cuda_runtime(variant, files) == version


def test_directories_of_backends(runner: MakeRunner, tmp_path: Path) -> None:
    lay(
        tmp_path,
        "cuda_v12/libcudart.so.12.8.90",
        "cuda_v12/libggml-base.so",
        "cuda_v12/libggml-cuda.so",
        "vulkan/libggml-vulkan.so",
        "rocm_v7_2/libggml-hip.so",
        "rocm_v7_2/rocblas/library/TensileLibrary_lazy_gfx1030.dat",
        "rocm_v7_2/rocblas/library/TensileLibrary_lazy_gfx90a.dat",
        "rocm_v7_2/rocblas/library/TensileLibrary_gfx900.dat",
        "empty_v1/readme.txt",
    )
    facts = runner_facts(runner("exit 0"))
    assert [backend.variant for backend in facts.backends] == ["cuda_v12", "rocm_v7_2", "vulkan"]
    cuda, rocm, _ = facts.backends
    assert cuda.directories == (tmp_path, tmp_path / "cuda_v12")
    assert cuda.file == tmp_path / "cuda_v12/libggml-cuda.so"
    assert (cuda.runtime, cuda.rocm_only) == ((12, 8), False)
    assert rocm.rocm_only
    assert facts.libraries == frozenset({"CUDA", "ROCm", "Vulkan"})
    assert facts.rocm_targets == {"gfx1030", "gfx90a"}


@pytest.mark.parametrize(
    ("files", "libraries", "rocm_only"),
    [
        ([], None, False),
        (["libggml-base.so", "libggml-cpu-haswell.so"], (), False),
        (["libggml-base.so", "libggml-cuda.so"], {"CUDA"}, False),
        (["libggml-base.so.0", "libggml-hip.so.0.9.1"], {"ROCm"}, True),
        (["libggml-metal.dylib"], {"Metal"}, False),
        (["ggml-vulkan.dll", "ggml-base.dll"], {"Vulkan"}, False),
    ],
)
def test_libraries_beside_the_program(
    runner: MakeRunner,
    tmp_path: Path,
    files: list[str],
    libraries: Iterable[str] | None,
    rocm_only: bool,
) -> None:
    lay(tmp_path, *files)
    facts = runner_facts(runner("exit 0"))
    assert facts.libraries == (None if libraries is None else frozenset(libraries))
    assert facts.backends == (Backend(directories=(tmp_path,), rocm_only=rocm_only),)


def test_a_link_leads_to_the_libraries(runner: MakeRunner, tmp_path: Path) -> None:
    lay(tmp_path, "libggml-cuda.so")
    kind = runner("exit 0")
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "llama-server"
    link.symlink_to(kind.program[0])
    facts = runner_facts(RunnerKind(name="path", program=(str(link),), origin="a test"))
    assert facts.libraries == frozenset({"CUDA"})


def test_without_any_runner() -> None:
    assert RunnerDevices(Found((), ()), {}).facts() is None


# --- listings -------------------------------------------------------------------------------------


async def test_a_list(runner: MakeRunner) -> None:
    kind = runner(f"echo \"$@\" >&2; printf '{LIST}'")
    answer = await asked(kind).devices(Backend(), {}, 30)
    assert (answer.output, answer.error) == (LIST, "")
    assert answer.messages.split() == ["--verbose", "--offline", "--list-devices"]


async def test_the_environment_of_a_list(runner: MakeRunner, tmp_path: Path) -> None:
    kind = runner("env")
    lister = asked(
        kind, LD_LIBRARY_PATH="/usr/lib/foo", HF_TOKEN="secret", CUDA_VISIBLE_DEVICES="7"
    )
    backend = Backend(
        variant="cuda_v12", directories=(tmp_path, tmp_path / "cuda_v12"), file=tmp_path / "x.so"
    )
    answer = await lister.devices(backend, {"CUDA_VISIBLE_DEVICES": "0"}, 30)
    environ = dict(line.split("=", 1) for line in answer.output.splitlines())
    assert environ["LD_LIBRARY_PATH"] == f"{tmp_path}:{tmp_path}/cuda_v12:/usr/lib/foo"
    assert environ["GGML_BACKEND_PATH"] == f"{tmp_path}/x.so"
    assert environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "HF_TOKEN" not in environ
    plain = await lister.devices(Backend(directories=(tmp_path,)), {}, 30)
    assert "GGML_BACKEND_PATH" not in plain.output


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 1", "exit status 1"),
        ("kill -9 $$", "signal 9"),
        ("exec sleep 60", "no answer within 0.2 s"),
        # What it started holds its output.
        ("sleep 60 & exec sleep 60", "no answer within 0.2 s"),
    ],
)
async def test_a_runner_that_fails(runner: MakeRunner, script: str, error: str) -> None:
    limit = 0.2 if "sleep" in script else 30
    answer = await asked(runner(script)).devices(Backend(), {}, limit)
    assert answer.error == f"llama-server --list-devices failed: {error}"


async def test_what_hangs_is_gone_when_nobody_waits(runner: MakeRunner, tmp_path: Path) -> None:
    kind = runner(
        f"sleep 60 & echo $$ $! > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pids; wait"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked(kind).devices, Backend(), {}, 60)
        await until(lambda: (tmp_path / "pids").exists())
        nursery.cancel_scope.cancel()
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        await until(partial(gone, pid))


async def test_a_child_that_keeps_the_output_open_holds_up_nobody(
    runner: MakeRunner, tmp_path: Path
) -> None:
    kind = runner(f"sleep 60 & echo $! > {tmp_path}/child; printf '{LIST}'")
    try:
        answer = await asked(kind).devices(Backend(), {}, 30)
    finally:
        psutil.Process(int((tmp_path / "child").read_text())).kill()
    assert (answer.output, answer.error) == (LIST, "")


async def test_endless_talk_is_not_kept(runner: MakeRunner) -> None:
    answer = await asked(runner("exec yes")).devices(Backend(), {}, 0.3)
    assert answer.error.endswith("no answer within 0.3 s")
    assert len(answer.output) < 2_000_000


async def test_a_program_that_is_not_there() -> None:
    kind = RunnerKind(name="configured", program=("/nowhere/llama-server",), origin="a test")
    answer = await asked(kind).devices(Backend(), {}, 30)
    assert "No such file" in answer.error


async def test_bytes_that_are_no_text(runner: MakeRunner) -> None:
    kind = runner("printf 'Available devices:\\n  CUDA0: \\377\\001x (10 MiB, 5 MiB free)\\n'")
    answer = await asked(kind).devices(Backend(), {}, 30)
    (device,) = parse_listing(answer.output)
    assert device.description == "\ufffd x"


async def test_what_it_was_built_for(runner: MakeRunner, tmp_path: Path) -> None:
    kind = runner(
        f'echo $$ > {tmp_path}/pid; echo "$@" > {tmp_path}/flags\n'
        "echo 'system_info: n_threads = 8 | CUDA : ARCHS = 750,890 | CPU : SSE3 = 1' >&2\n"
        "exec sleep 60"
    )
    answer = await asked(kind).system_info(Backend(), {}, 30)
    assert answer.error == ""
    assert parse_architectures(answer.messages) == {"750", "890"}
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
    assert "--verbose" in (tmp_path / "flags").read_text().split()


async def test_the_server_in_the_package() -> None:
    pytest.importorskip("xllamacpp", reason="the package xllamacpp is missing")
    kind = embedded_kind()
    facts = runner_facts(kind)
    assert facts.embedded
    (backend,) = facts.backends
    answer = await RunnerDevices(Found((kind,), ()), dict(os.environ)).devices(backend, {}, 60)
    assert answer.error == ""
    assert answer.output.startswith("Available devices:")
    if sys.platform == "linux":
        assert [d for d in parse_listing(answer.output) if d.library == "CUDA"] == []
