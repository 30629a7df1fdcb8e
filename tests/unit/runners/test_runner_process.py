"""Starting, watching and stopping, with the stand-in behind the real shim (2.9-2.13, 8.4)."""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from ollamad.errors import LoadError, RunnerError
from ollamad.hardware.device import Device
from ollamad.runners import process
from ollamad.runners.address import TcpAddress, UnixAddress
from ollamad.runners.command import Launch
from ollamad.runners.health import State
from ollamad.runners.kinds import RunnerKind
from ollamad.runners.process import Runner, start_runner
from ollamad.runners.rundir import RunDirectory

FAKE = Path(__file__).parents[2] / "fake_runner.py"


async def start(starter: Any, script: dict[str, Any] | None = None, **options: Any) -> Runner:
    runner = await starter(script, **options)
    assert isinstance(runner, Runner)
    return runner


def state(pid: int) -> str:
    """The kernel's letter for the process; ``X`` when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "X"


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that waits for its parent does not."""
    return state(pid) not in "ZX"


async def halt(pid: int) -> None:
    """Stops the process, and returns when it does not run any more: signals cross each other."""
    os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(30):
        while state(pid) != "T":  # noqa: ASYNC110 - it is no child of ours: nothing to wait on
            await trio.sleep(0.002)


def exists(path: str) -> bool:
    return Path(path).exists()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def gone(pid: int) -> None:
    with trio.fail_after(30):
        while alive(pid):  # noqa: ASYNC110
            await trio.sleep(0.002)  # it is no child of ours: nothing to wait on


async def test_a_runner_becomes_ready_and_ends_when_asked(start_fake: Any) -> None:
    ended: list[Runner] = []
    runner = await start(start_fake, on_exit=ended.append)
    assert isinstance(runner.address, UnixAddress)
    assert alive(runner.pid)
    assert os.getpgid(runner.pid) == runner.pid
    assert (await runner.client.health()).state is State.READY
    assert runner.load_timings.spawn_ns > 0
    assert runner.load_timings.load_ns > 0
    assert runner.exit_text is None
    await runner.stop()
    assert runner.exited.is_set()
    assert runner.exit_text == "signal: terminated"
    assert ended == [runner]
    assert not alive(runner.pid)
    assert not exists(runner.address.path)
    await runner.stop()  # again is harmless


async def test_a_runner_on_a_port(start_fake: Any) -> None:
    runner = await start(start_fake, tcp=True)
    assert isinstance(runner.address, TcpAddress)
    status, _ = await runner.client.request_json("/props")
    assert status == 200


async def test_the_key_is_in_no_command_line(start_fake: Any) -> None:
    runner = await start(start_fake)
    (key,) = (
        line.removeprefix("Authorization: Bearer ")
        for line in runner.client._headers
        if line.startswith("Authorization")
    )
    assert len(key) >= 32
    assert key not in command_line(runner.pid)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ({"exit": 0}, "OK"),
        ({"exit": 1}, "exit status 1"),
        (
            {"exit": 1, "log": ["srv  load: error: bad thing   ", "x CUDA error: something"]},
            "exit status 1: error: bad thing\nCUDA error: something",
        ),
        ({"exit": 0, "log": ["error: bad thing"]}, "error: bad thing"),
        ({"signal": 9}, "signal: killed"),
        ({"signal": 11}, "signal: segmentation fault"),
        ({"signal": 9, "log": ["error: bad thing"]}, "signal: killed: error: bad thing"),
    ],
)
async def test_a_runner_that_ends_while_loading(
    start_fake: Any, script: dict[str, Any], text: str
) -> None:
    with pytest.raises(LoadError) as caught:
        await start_fake(script)
    assert str(caught.value) == f"llama-server process has terminated: {text}"


async def test_an_unknown_architecture_gets_the_hint(start_fake: Any) -> None:
    last = "error loading model: error loading model architecture: unknown model architecture: 'f'"
    with pytest.raises(LoadError, match=r"may be incompatible.*`ollama pull smollm2`"):
        await start_fake({"exit": 1, "log": [last]})


async def test_out_of_memory_while_loading(start_fake: Any) -> None:
    oom = "cudaMalloc failed: out of memory"
    with pytest.raises(LoadError) as caught:
        await start_fake({"exit": 1, "log": [oom]})
    assert caught.value.out_of_memory
    with pytest.raises(LoadError) as caught:
        await start_fake({"log": [oom], "health": [{"status": 500, "body": {"status": "error"}}]})
    assert str(caught.value) == f"llama-server reported out-of-memory during startup: {oom}"
    assert caught.value.out_of_memory


async def test_stale_out_of_memory_is_forgotten(start_fake: Any) -> None:
    retry = "compute buffer allocation failed, retrying without pipeline parallelism"
    error = {"status": 500, "body": {"status": "error"}, "times": 1}
    runner = await start(start_fake, {"log": [retry], "health": [error, {}]})
    assert runner.last_error() == ""


async def test_health_errors_then_ready(start_fake: Any) -> None:
    weird = {"status": 500, "body": {"status": "error", "message": "weird"}, "times": 3}
    loading = {"status": 503, "body": {"error": {"message": "Loading model"}}, "times": 2}
    await start(start_fake, {"health": [weird, loading, {}]})


@pytest.mark.parametrize(
    "script",
    [
        {"listen_ms": 60_000},
        {"health": [{"status": 503, "body": {"status": "loading model"}}]},
        {"health": [{"status": 500, "body": {"status": "error", "message": "weird"}}]},
    ],
)
async def test_a_stall(start_fake: Any, script: dict[str, Any]) -> None:
    ended: list[Runner] = []
    with pytest.raises(LoadError) as caught:
        await start_fake(script, load_timeout_ns=200_000_000, on_exit=ended.append)
    assert str(caught.value) == "timed out waiting for llama-server to start - "
    assert not alive(ended[0].pid)


async def test_a_program_that_cannot_be_started(
    rundir: RunDirectory, nursery: trio.Nursery, tmp_path: Path
) -> None:
    missing = RunnerKind(name="configured", program=(str(tmp_path / "none"),), origin="")
    with pytest.raises(LoadError, match=r"^error starting llama-server: "):
        await start_runner(
            nursery,
            missing,
            Launch(model_path="/blob", num_ctx=256),
            rundir=rundir,
            load_timeout_ns=10**10,
        )
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(LoadError, match=r"error: cannot start .*broken: "):
        await start_runner(
            nursery,
            RunnerKind(name="configured", program=(str(broken),), origin=""),
            Launch(model_path="/blob", num_ctx=256),
            rundir=rundir,
            load_timeout_ns=10**10,
        )


async def test_cancelling_a_load_kills_it(start_fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = trio.Event()
    wait_ready = Runner._wait_ready

    async def wait(runner: Runner, timeout_ns: int) -> None:
        waits.set()
        await wait_ready(runner, timeout_ns)

    monkeypatch.setattr(Runner, "_wait_ready", wait)
    ended: list[Runner] = []

    async def load() -> None:
        await start_fake({"listen_ms": 60_000, "ignore_term": True}, on_exit=ended.append)

    async with trio.open_nursery() as tasks:
        tasks.start_soon(load)
        await waits.wait()
        tasks.cancel_scope.cancel()
    assert len(ended) == 1
    assert not alive(ended[0].pid)


async def test_a_runner_that_ignores_the_polite_signal_is_killed(start_fake: Any) -> None:
    runner = await start(start_fake, {"ignore_term": True})
    await runner.stop(grace=0.05)
    assert runner.exit_text == "signal: killed"


async def test_a_stopped_runner_is_killed(start_fake: Any) -> None:
    runner = await start(start_fake)
    await halt(runner.pid)
    await runner.stop(grace=0.05)
    assert runner.exit_text == "signal: killed"
    assert not alive(runner.pid)


async def test_a_hanging_shim_does_not_save_the_runner(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ollamad.runners.process._KILL_GRACE_S", 0.05)
    runner = await start(start_fake)
    assert runner._process is not None
    await halt(runner._process.pid)
    await runner.stop(grace=0)
    assert runner.exited.is_set()
    await gone(runner.pid)


async def test_a_runner_dies_with_its_shim(start_fake: Any) -> None:
    runner = await start(start_fake)
    assert runner._process is not None
    os.kill(runner._process.pid, signal.SIGKILL)
    with trio.fail_after(30):
        await runner.exited.wait()
    await gone(runner.pid)


async def test_a_crash_is_noticed_at_once_and_named(start_fake: Any) -> None:
    ended: list[str | None] = []
    runner = await start(start_fake, on_exit=lambda r: ended.append(r.exit_text))
    os.kill(runner.pid, signal.SIGKILL)
    with trio.fail_after(30):
        await runner.exited.wait()
    assert ended == ["signal: killed"]
    assert not runner.stopping
    assert runner.termination_text() == "llama-server process has terminated: signal: killed"


async def test_cancelling_the_nursery_kills_and_reaps(
    rundir: RunDirectory, fake_kind: RunnerKind
) -> None:
    async with trio.open_nursery() as nursery:
        launch = Launch(
            model_path="/b", num_ctx=256, environment={"FAKE_RUNNER": '{"ignore_term": true}'}
        )
        runner = await start_runner(
            nursery, fake_kind, launch, rundir=rundir, load_timeout_ns=10**10
        )
        nursery.cancel_scope.cancel()
    assert runner.exited.is_set()
    assert not alive(runner.pid)


async def test_the_daemons_end_of_the_socket_is_all_that_keeps_a_runner(start_fake: Any) -> None:
    # What happens when the daemon is killed: the kernel closes its end.
    runner = await start(start_fake, {"ignore_term": True})
    assert runner._control is not None
    runner._control.shutdown(socket.SHUT_RDWR)
    await gone(runner.pid)


async def ask(runner: Runner) -> None:
    async with runner.client.stream("/completion", b'{"stream":true}') as response:
        async for _ in response.batches():
            pass


async def test_a_refusal_carries_what_was_logged_before_it(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without being hurried nobody would read the log for so long.
    monkeypatch.setattr(process, "_LOG_GATHERING_S", 3600)
    answer = {"answers": {"/completion": [500, "no"]}, "answer_log": "error: out of memory"}
    runner = await start(start_fake, answer)
    for _ in range(20):
        with pytest.raises(RunnerError, match="out of memory"):
            await ask(runner)
        runner._log.clear_error()


async def test_last_words_are_read_at_once(
    start_fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LOG_GATHERING_S", 3600)
    script = {"after": "crash", "after_tokens": 1, "crash_log": "error: something broke"}
    runner = await start(start_fake, script)
    with pytest.raises(RunnerError, match="something broke"):
        await ask(runner)
    assert "something broke" in runner.termination_text()


async def test_memory_from_the_log(start_fake: Any) -> None:
    lines = [
        "load_tensors:   CPU_Mapped model buffer size =    92.00 MiB",
        "llama_kv_cache:        CPU KV buffer size =    45.00 MiB",
    ]
    runner = await start(start_fake, {"log": lines}, launch={"projector_bytes": 1024})
    memory = runner.memory()
    assert (memory.total, memory.vram) == (137 * 1024 * 1024 + 1024, 0)


CUDA1 = Device(id="1", library="CUDA", name="CUDA1")


async def test_memory_on_a_device_that_the_runner_calls_otherwise(start_fake: Any) -> None:
    lines = [
        "load_tensors: offloaded 33/33 layers to GPU",
        "load_tensors:        CUDA0 model buffer size =    80.00 MiB",
    ]
    launch = {"devices": (CUDA1,), "projector": "/p", "projector_bytes": 1 << 20}
    memory = (await start(start_fake, {"log": lines}, launch=launch)).memory()
    assert memory.per_device == {"CUDA1": 81 << 20}
    assert memory.total == memory.vram == 81 << 20
    launch["projector_offload"] = False
    memory = (await start(start_fake, {"log": lines}, launch=launch)).memory()
    assert (memory.total, memory.vram) == (81 << 20, 80 << 20)


async def test_a_runner_that_does_not_tell_its_memory(
    start_fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runner = await start(start_fake, launch={"model_bytes": 7})
    assert (runner.memory().total, runner.memory().vram) == (7, 0)
    assert "a guess" not in caplog.text
    runner = await start(start_fake, launch={"model_bytes": 7, "devices": (CUDA1,)})
    assert (runner.memory().total, runner.memory().vram) == (7, 7)
    assert "a guess" in caplog.text


async def test_the_environment_of_a_runner_with_a_device(
    rundir: RunDirectory, nursery: trio.Nursery, tmp_path: Path
) -> None:
    """8.3, last rows: where libraries are looked for, and which backend is loaded."""
    own, variant = tmp_path / "bin", tmp_path / "bin" / "cuda_v13"
    variant.mkdir(parents=True)
    for name in ("libggml-base.so", "libggml-cpu.so", "libggml-futuregpu.so"):
        (variant / name).touch()
    (own / "libggml-cuda.so").touch()
    program = own / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {FAKE} "$@"\n')
    program.chmod(0o755)
    kind = RunnerKind(name="configured", program=(str(program),), origin="test")
    journal = tmp_path / "journal"
    environ = {"LD_LIBRARY_PATH": "/usr/lib", "FAKE_RUNNER": json.dumps({"journal": str(journal)})}
    for number, directories in enumerate([(str(variant),), (str(own),), ()]):
        launch = Launch(
            model_path="/blob",
            num_ctx=256,
            backend_dirs=directories,
            environment={"CUDA_VISIBLE_DEVICES": "0"} if directories else {},
        )
        runner = await start_runner(
            nursery, kind, launch, rundir=rundir, load_timeout_ns=0, environ=environ
        )
        await runner.stop()
        told = json.loads(journal.read_text().splitlines()[number])["environ"]
        paths = dict.fromkeys([str(own), *directories, "/usr/lib"])
        assert told["LD_LIBRARY_PATH"] == ":".join(paths)
        assert told.get("CUDA_VISIBLE_DEVICES") == ("0" if directories else None)
        backend = str(variant / "libggml-futuregpu.so") if number == 0 else None
        assert told.get("GGML_BACKEND_PATH") == backend


async def test_a_record_lives_as_long_as_the_runner(start_fake: Any, rundir: RunDirectory) -> None:
    runner = await start(start_fake)
    record = rundir.path / f"runner-{runner.pid}.json"
    assert exists(str(record))
    await runner.stop()
    assert not exists(str(record))


async def test_many_at_once_leave_nothing(start_fake: Any) -> None:
    runners: list[Runner] = []

    async def one() -> None:
        runner = await start(start_fake)
        runners.append(runner)
        await runner.stop()

    before = open_files()
    async with trio.open_nursery() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
    assert len({runner.pid for runner in runners}) == 4
    assert not any(alive(runner.pid) for runner in runners)
    assert open_files() <= before + 1


async def test_stop_that_is_cancelled_still_ends_the_runner(start_fake: Any) -> None:
    runner = await start(start_fake, {"ignore_term": True})
    with trio.move_on_after(0.02):
        await runner.stop(grace=60)
    assert runner.exited.is_set()


async def test_a_nursery_that_is_closed_takes_no_runner(
    rundir: RunDirectory, fake_kind: RunnerKind
) -> None:
    async with trio.open_nursery() as closed:
        pass
    ended: list[Runner] = []
    with pytest.raises(RuntimeError, match="closed"):
        await start_runner(
            closed,
            fake_kind,
            Launch(model_path="/b", num_ctx=256, environment={"FAKE_RUNNER": "{}"}),
            rundir=rundir,
            load_timeout_ns=10**10,
            on_exit=ended.append,
        )
    assert [runner.exit_text for runner in ended] == ["signal: killed"]
