"""Libraries that hang, crash and talk cost their own devices and a second, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from support.stub_libraries import MakeMonitor, stub_library

from ollamad.hardware import monitor as monitor_module
from ollamad.hardware import survey as survey_module
from ollamad.hardware.monitor import Monitor
from ollamad.hardware.vendor import Note, Survey

#: Seconds after which a stub hangs for good.
LIMIT = 1.0
HUNG = "NVIDIA's management library does not answer within 1 s"
LONG = 60.0


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def _until_gone(pid: int) -> None:
    with trio.fail_after(LONG):
        while _alive(pid):  # noqa: ASYNC110 - a stranger's end sets no event
            await trio.sleep(0.01)


async def test_where_nothing_can_be_no_process_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_args: object, **_kwargs: object) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(trio.lowlevel, "open_process", never)
    monitor = Monitor({}, root=tmp_path)
    assert await monitor.survey() == Survey()
    assert await monitor.memory() == Survey()


async def test_where_nothing_is_found_no_process_stays(monitor: MakeMonitor) -> None:
    asked = monitor("nvml", "cuda", STUB_NVML_INIT=9, STUB_CUDA_INIT=100)
    assert (await asked.survey()).devices == ()
    assert asked.pid is None
    assert await asked.memory() == Survey()
    assert asked.pid is None


async def test_one_process_answers_everything(monitor: MakeMonitor) -> None:
    asked = monitor("nvml", "cuda")
    first = await asked.survey()
    pid = asked.pid
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(asked.memory)
            nursery.start_soon(asked.survey)
    assert await asked.memory() == first
    assert asked.pid == pid
    assert pid
    await asked.aclose()
    assert not _alive(pid)


@pytest.mark.parametrize("place", ["load", "init", "name"])
async def test_a_library_that_hangs_costs_a_second(monitor: MakeMonitor, place: str) -> None:
    asked = monitor("nvml", "cuda", STUB_NVML_TROUBLE="hang", STUB_NVML_AT=place)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.sleep(0.001)
            ticks += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        # The CUDA driver would hang in the same kernel module: it is not asked right after.
        first = await asked.survey(LIMIT)
        nursery.cancel_scope.cancel()
    hint = "the driver may be starting or stuck: see the kernel's log (`dmesg`)"
    assert first == Survey((), (Note("warning", HUNG, hint),))
    assert ticks > 10
    assert asked.pid is None
    # Later the others are, and the one that hung is not.
    second = await asked.survey(LIMIT)
    assert [device.source for device in second.devices] == ["cuda"]
    assert second.notes == first.notes


async def test_a_longer_limit_or_a_rest_gives_it_another_chance(
    monitor: MakeMonitor, tmp_path: Path
) -> None:
    (stuck := tmp_path / "stuck").touch()
    variables = {"STUB_NVML_TROUBLE": "hang", "STUB_NVML_AT": "init", "STUB_NVML_WHILE": stuck}
    asked = monitor("nvml", **variables)
    assert (await asked.survey(0.1)).devices == ()
    stuck.unlink()
    again = await asked.survey(0.1)
    assert again.devices == ()
    assert again.notes[0].text == "NVIDIA's management library does not answer within 0.1 s"
    assert [device.source for device in (await asked.survey(LONG)).devices] == ["nvml"]


async def test_memory_that_hangs_leaves_the_devices_out(
    monitor: MakeMonitor, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    variables = {"STUB_NVML_TROUBLE": "hang", "STUB_NVML_AT": "memory", "STUB_NVML_WHILE": stuck}
    asked = monitor("nvml", "cuda", **variables)
    whole = await asked.survey()
    stuck.touch()
    found = await asked.memory(LIMIT)
    assert found.devices == ()
    assert [note.text for note in found.notes] == [HUNG]
    stuck.unlink()
    assert (await asked.memory(LONG)).devices == whole.devices


@pytest.mark.parametrize("place", ["load", "init", "name", "memory"])
async def test_a_library_that_crashes_costs_its_own_devices(
    monitor: MakeMonitor, place: str
) -> None:
    asked = monitor("nvml", "cuda", STUB_NVML_TROUBLE="abort", STUB_NVML_AT=place)
    found = await asked.survey(LONG)
    assert [device.source for device in found.devices] == ["cuda"]
    assert found.notes == (
        Note(
            "warning",
            f"NVIDIA's management library crashed: SIGABRT (stub: assertion failed in {place})",
            "update the driver",
        ),
    )
    assert [device.source for device in (await asked.memory(LONG)).devices] == ["cuda"]


async def test_a_crash_of_the_second_library_leaves_the_firsts_devices(
    monitor: MakeMonitor,
) -> None:
    asked = monitor("nvml", "cuda", STUB_CUDA_TROUBLE="abort", STUB_CUDA_AT="init")
    found = await asked.survey(LONG)
    assert [(device.source, device.integrated) for device in found.devices] == [("nvml", None)]
    assert asked.pid is None
    assert (await asked.memory(LONG)).devices == found.devices


async def test_what_crashed_is_asked_again_when_it_has_rested(
    machine: Path,
    tmp_path: Path,
    mock_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor_module, "_LONGEST_REST_S", 100.0)
    (ill := tmp_path / "ill").touch()
    environ = os.environ | {
        "LD_LIBRARY_PATH": str(stub_library("nvml")),
        "STUB_NVML_TROUBLE": "abort",
        "STUB_NVML_AT": "init",
        "STUB_NVML_WHILE": str(ill),
    }
    asked = Monitor(environ, root=machine)
    for rest in (30.0, 60.0, 100.0, 100.0):
        assert (await asked.survey()).devices == ()
        # It would work now, but is not asked, even with more time.
        ill.unlink()
        mock_clock.jump(rest - 1)
        answer = await asked.survey(LONG)
        assert answer.devices == ()
        assert answer.notes[0].text.startswith("NVIDIA's management library crashed: SIGABRT")
        ill.touch()
        mock_clock.jump(1)
    ill.unlink()
    assert len((await asked.survey()).devices) == 1
    # It is well again: the next failure is a first one.
    ill.touch()
    await asked.aclose()
    assert (await asked.survey()).devices == ()
    ill.unlink()
    mock_clock.jump(30)
    assert len((await asked.survey()).devices) == 1
    await asked.aclose()


async def test_a_library_that_ends_the_process_politely_has_crashed_too(
    monitor: MakeMonitor,
) -> None:
    asked = monitor("nvml", STUB_NVML_TROUBLE="exit", STUB_NVML_AT="init")
    found = await asked.survey(LONG)
    assert found.devices == ()
    assert found.notes[0].text == "NVIDIA's management library crashed: it ended"


async def test_talk_on_both_outputs_disturbs_nobody(monitor: MakeMonitor) -> None:
    asked = monitor("nvml", "cuda", STUB_NVML_TROUBLE="talk", STUB_NVML_AT="memory")
    found = await asked.survey(LONG)
    assert len(found.devices) == 1
    for _ in range(3):
        assert await asked.memory(LONG) == found


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_a_process_that_somebody_ends_is_replaced(
    monitor: MakeMonitor, signum: signal.Signals
) -> None:
    asked = monitor("nvml", "cuda")
    found = await asked.survey()
    pid = asked.pid
    assert pid
    os.kill(pid, signum)
    await _until_gone(pid)
    assert await asked.memory(LONG) == found
    assert asked.pid not in (None, pid)


async def test_ctrl_c_is_not_for_it(monitor: MakeMonitor) -> None:
    asked = monitor("nvml", "cuda")
    found = await asked.survey()
    pid = asked.pid
    assert pid
    os.kill(pid, signal.SIGINT)
    assert await asked.memory(LONG) == found
    assert asked.pid == pid
    assert os.getsid(pid) == pid


async def test_a_caller_that_leaves_takes_the_process_with_it(monitor: MakeMonitor) -> None:
    asked = monitor("nvml", "cuda", STUB_NVML_TROUBLE="hang", STUB_NVML_AT="init")
    pids: list[int] = []

    async def watch(scope: trio.CancelScope) -> None:
        while asked.pid is None:
            await trio.lowlevel.checkpoint()
        pids.append(asked.pid)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        await asked.survey(LONG)
    assert nursery.cancel_scope.cancelled_caught
    assert asked.pid is None
    assert not _alive(pids[0])


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (
            "print('ready'); input(); print('no JSON')",
            "NVIDIA's management library left no answer that can be read: JSON is malformed",
        ),
        (
            "print('ready'); input(); print('[]')",
            "NVIDIA's management library left no answer that can be read: Expected `object`",
        ),
        (
            "print('ready'); input(); print('x' * 2**21)",
            "NVIDIA's management library left no answer that can be read: too long an answer",
        ),
        (
            "import sys; sys.exit('no such module')",
            "the process that asks about GPUs does not start: exit status 1 (no such module)",
        ),
        ("pass", "the process that asks about GPUs does not start: it ended at once"),
        (
            "import time; time.sleep(600)",
            "the process that asks about GPUs does not start: not ready after 0.2 s",
        ),
    ],
)
async def test_a_process_that_is_none_of_ours_any_more(
    monitor: MakeMonitor, monkeypatch: pytest.MonkeyPatch, program: str, text: str
) -> None:
    if "sleep" in program:
        monkeypatch.setattr(monitor_module, "_START_S", 0.2)
    monkeypatch.setattr(monitor_module, "_PROGRAM", program)
    asked = monitor("nvml")
    found = await asked.survey(LONG)
    assert found.devices == ()
    assert found.notes[0].text.startswith(text)
    assert asked.pid is None


async def test_no_interpreter(monitor: MakeMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    found = await monitor("nvml", "cuda").survey()
    assert found.devices == ()
    assert len(found.notes) == 1
    assert "No such file or directory: '/nowhere/python'" in found.notes[0].text


_DAEMON = """
import sys, trio
from pathlib import Path
from ollamad.hardware.monitor import Monitor

async def show(monitor):
    while monitor.pid is None or not Path(sys.argv[2]).exists():
        await trio.sleep(0.01)
    print(monitor.pid, flush=True)

async def main():
    import os
    monitor = Monitor(os.environ, root=Path(sys.argv[1]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show, monitor)
        await monitor.survey(1.0)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.parametrize("trouble", ["", "hang"])
async def test_it_ends_with_a_daemon_that_is_killed(
    machine: Path, tmp_path: Path, trouble: str
) -> None:
    # Made by the stub when it hangs; otherwise nothing is waited for.
    sign = tmp_path / "sign"
    if not trouble:
        sign.touch()
    environ = os.environ | {
        "LD_LIBRARY_PATH": str(stub_library("nvml")),
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "STUB_NVML_TROUBLE": trouble,
        "STUB_NVML_AT": "init",
        "STUB_NVML_SIGN": str(sign),
    }
    command = [sys.executable, "-c", _DAEMON, str(machine), str(sign)]
    daemon = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)  # noqa: ASYNC220
    with daemon:
        assert daemon.stdout
        pid = int(await trio.to_thread.run_sync(daemon.stdout.readline))
        assert _alive(pid)
        daemon.kill()
    await _until_gone(pid)


async def test_an_idle_process_ends_and_is_replaced(
    monitor: MakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import ollamad.hardware.survey as s; s.IDLE_S = 0.3; "
    original = monitor_module._PROGRAM
    monkeypatch.setattr(
        monitor_module, "_PROGRAM", original.replace("; main()", f"; {program}main()")
    )
    asked = monitor("nvml", "cuda")
    found = await asked.survey(LONG)
    for _ in range(2):
        pid = asked.pid
        assert pid
        await _until_gone(pid)
        assert await asked.memory(LONG) == found
        assert asked.pid != pid


async def test_one_that_ends_while_it_is_asked_is_replaced_too(
    monitor: MakeMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"devices":[{"source":"nvml","index":0,"library":"CUDA"}]}'
    program = f"print('ready', flush=True); input(); print({answer!r}, flush=True); input()"
    monkeypatch.setattr(monitor_module, "_PROGRAM", program)
    # One process answers for NVML, and ends when it is asked for the CUDA driver.
    found = await monitor("nvml").survey(LONG)
    assert (len(found.devices), found.notes) == (2, ())


class _Odd:
    """A source that fails in ways that no library of ours should."""

    def __init__(self, result: object) -> None:
        self._result = result

    def survey(self) -> Survey:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result  # type: ignore[return-value]

    memory = survey


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ValueError("\x1b odd"), r"ValueError('\x1b odd')"),
        (object(), "TypeError("),
        (Survey(notes=(Note("info", "\ud800"),)), "UnicodeEncodeError("),
    ],
)
def test_a_source_that_fails_is_a_note(result: object, text: str) -> None:
    requests, write = os.pipe()
    read, answers = os.pipe()
    os.write(write, b"survey odd 60\nmemory odd 60\n")
    os.close(write)
    survey_module.serve({"odd": _Odd(result)}, requests, answers)
    os.close(answers)
    with open(read) as stream:  # noqa: PTH123 - a descriptor
        lines = stream.read().splitlines()
    os.close(requests)
    assert lines[0] == "ready"
    assert len(lines) == 3
    assert "asking odd about GPUs failed: " in lines[1]
    assert text.replace("\\", "\\\\") in lines[2]


def test_a_module_that_is_not_installed_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delitem(sys.modules, "ollamad.hardware.nvml", raising=False)
    with pytest.raises(ImportError, match="pynvml"):
        survey_module.source("nvml", Path("/"), {}).survey()


def test_only_the_process_of_its_own_knows_the_libraries() -> None:
    code = "import sys, ollamad.hardware.monitor; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(out.stdout.split())
    assert "ollamad.hardware.monitor" in modules
    loaded = {"pynvml", "pyrsmi", "ollamad.hardware.nvml"} & modules
    loaded |= {"ollamad.hardware.cuda_driver", "ollamad.hardware.survey"} & modules
    assert loaded == set()


def test_that_process_is_light() -> None:
    code = "import sys, ollamad.hardware.survey; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(out.stdout.split())
    assert "ollamad.hardware.survey" in modules
    assert modules & {"trio", "asyncio", "httpx", "quart", "pynvml", "ssl", "psutil"} == set()
