"""Asks the makers' libraries about GPUs, at a distance: they hang, crash and lie.

They are loaded by a process of their own, `ollamad.hardware.survey`, which is started when somebody
asks and there is anything to be asked. One that does not answer in time is killed, one that crashes
is forgotten; the source that was being asked then rests for a while, and the others are asked as
ever. The process ends when its standard input does, and so with the daemon.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio
from msgspec.structs import replace

from ollamad.hardware.hints import hints
from ollamad.hardware.sources import sources
from ollamad.hardware.vendor import Note, Survey, VendorDevice, checked, combined, plain_text

_log = logging.getLogger(__name__)

#: Seconds for the interpreter to start and import what it needs, which is no library's fault.
_START_S = 10.0
#: Seconds beyond its limit after which the process ends itself, should the daemon not do it.
_SELF_S = 1.0
#: Seconds that the end of a process is waited for; the kernel holds one that is stuck in a driver.
_END_S = 0.5
#: Seconds for which a source that failed is left alone, at first and at most.
_REST_S = 30.0
_LONGEST_REST_S = 600.0
#: Longest answer, bytes.
_MOST = 1 << 20

_SPOKEN = {
    "nvml": "NVIDIA's management library",
    "cuda": "the CUDA driver",
    "amd": "AMD's driver",
    "rsmi": "AMD's management library",
    "apple": "the system",
}
#: A driver that hangs does so for each of its libraries: who is not asked right after whom.
_SAME_DRIVER = {"cuda": "nvml", "rsmi": "amd"}

#: The daemon may know its package by a path of its own. At the end of the list it hides nothing.
_PACKAGE = str(Path(__file__).parents[2])
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1));from ollamad.hardware.survey import main; main()"
)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a source rests. ``limit`` are the seconds that it had, infinite when it crashed."""

    note: Note
    limit: float
    until: float
    times: int


class _Ended(Exception):
    """The process ended instead of answering."""


class Monitor:
    """What the makers' libraries know, asked without waiting on them.

    ``environ`` is that of the process which loads them, ``root`` is where ``dev``, ``proc`` and
    ``sys`` are. Calls may overlap: they wait for each other. None raises but when it is cancelled.
    """

    def __init__(self, environ: Mapping[str, str], *, root: Path = Path("/")) -> None:
        self._environ = dict(environ)
        self._root = root
        self._lock = trio.Lock()
        self._child: _Child | None = None
        self._failures: dict[str, _Failure] = {}
        self._found: tuple[VendorDevice, ...] = ()

    @property
    def pid(self) -> int | None:
        """The process that loads the libraries, None while there is none."""
        return self._child.process.pid if self._child else None

    async def survey(self, limit: float = 1.0) -> Survey:
        """Every device with all facts, and why others are missing.

        Each source has ``limit`` seconds. One that was too slow is asked again when it has rested,
        or at once when ``limit`` is longer than before (drivers that wake up take their time).
        """
        async with self._lock:
            names = await trio.to_thread.run_sync(sources, self._environ, self._root)
            answers: list[Survey] = []
            hung: set[str] = set()
            for name in names:
                if _SAME_DRIVER.get(name) in hung:
                    continue
                answer, in_time = await self._ask("survey", name, names, limit)
                answers.append(answer)
                if not in_time:
                    hung.add(name)
            result = combined(answers)
            self._found = result.devices
            if not result.devices:
                await self._end_child()
            # After the others: asking CUDA loads a module whose absence is told here.
            more = await trio.to_thread.run_sync(hints, result, self._root)
            return Survey(result.devices, (*result.notes, *more))

    async def memory(self, limit: float = 1.0) -> Survey:
        """The devices of the last survey with their memory as it is now: milliseconds.

        Those whose source fails are missing from the answer, with a note. Without devices nothing
        is started.
        """
        async with self._lock:
            # Apple's figures never change (1.10).
            names = dict.fromkeys(d.source for d in self._found if d.source != "apple")
            fresh: dict[tuple[str, int, str], VendorDevice] = {}
            notes: list[Note] = []
            for name in names:
                answer, _ = await self._ask("memory", name, names, limit)
                fresh |= {_key(device): device for device in answer.devices}
                notes += answer.notes
            devices = []
            for device in self._found:
                if device.source == "apple":
                    devices.append(device)
                elif now := fresh.get(_key(device)):
                    devices.append(
                        replace(device, total=now.total, free=now.free, used_by=now.used_by)
                    )
            return Survey(tuple(devices), tuple(dict.fromkeys(notes)))

    async def aclose(self) -> None:
        """Ends the process, if there is one. The next call would start another."""
        async with self._lock:
            await self._end_child()

    async def _ask(
        self, what: str, name: str, names: Iterable[str], limit: float
    ) -> tuple[Survey, bool]:
        """The answer of one source, and whether it came (or its crash) before ``limit``."""
        failure = self._failures.get(name)
        if failure and trio.current_time() < failure.until and limit <= failure.limit:
            return Survey(notes=(failure.note,)), True
        try:
            while True:
                if self._child and self._child.process.returncode is not None:
                    # It ended while nobody asked: no source is to blame.
                    await self._end_child()
                fresh = self._child is None
                child = self._child or await self._started(names)
                try:
                    with trio.fail_after(limit):
                        line = await child.ask(f"{what} {name} {limit + _SELF_S}\n".encode())
                    answer = checked(msgspec.json.decode(line, type=Survey))
                    break
                except _Ended:
                    story = await self._end_child()
                    # An old process may have ended itself this very moment, for want of work.
                    if fresh or story:
                        raise _Ended(story or "it ended") from None
        except trio.TooSlowError:
            await self._end_child()
            text = f"{_SPOKEN.get(name, name)} does not answer within {limit:g} s"
            hint = "the driver may be starting or stuck: see the kernel's log (`dmesg`)"
            return self._failed(name, Note("warning", text, hint), limit), False
        except _Ended as ended:
            text = f"{_SPOKEN.get(name, name)} crashed: {ended}"
            return self._failed(name, Note("warning", text, "update the driver"), math.inf), True
        except (msgspec.DecodeError, ValueError) as error:
            await self._end_child()
            text = f"{_SPOKEN.get(name, name)} left no answer that can be read: {error}"
            return self._failed(name, Note("warning", text, "update the driver"), math.inf), True
        except OSError as error:
            await self._end_child()
            note = Note("warning", f"the process that asks about GPUs does not start: {error}")
            # Nor will it for the next source.
            for other in names:
                self._failed(other, note, math.inf)
            return Survey(notes=(note,)), True
        except BaseException:
            # Cancelled: the answer would be taken for that of the next question.
            await self._end_child()
            raise
        self._failures.pop(name, None)
        return answer, True

    def _failed(self, name: str, note: Note, limit: float) -> Survey:
        before = self._failures.get(name)
        times = before.times + 1 if before else 0
        rest = min(_REST_S * 2**times, _LONGEST_REST_S)
        self._failures[name] = _Failure(note, limit, trio.current_time() + rest, min(times, 16))
        return Survey(notes=(note,))

    async def _started(self, names: Iterable[str]) -> _Child:
        self._child = child = await _Child.start(self._environ, self._root, names)
        try:
            with trio.fail_after(_START_S):
                await child.line()
        except trio.TooSlowError:
            raise OSError(f"not ready after {_START_S:g} s") from None
        except _Ended:
            raise OSError(await self._end_child() or "it ended at once") from None
        return child

    async def _end_child(self) -> str:
        """Ends the process by force; how it had ended before, empty when it had not or well."""
        child, self._child = self._child, None
        return await child.end() if child else ""


class _Child:
    """One process of `ollamad.hardware.survey`."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._received = bytearray()
        self._over = False

    @classmethod
    async def start(cls, environ: Mapping[str, str], root: Path, names: Iterable[str]) -> _Child:
        """Raises OSError. The process says ``ready`` before anything else."""
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-c", _PROGRAM, _PACKAGE, str(root), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            # A signal of the terminal is for the daemon only.
            start_new_session=sys.platform != "win32",
        )
        _log.debug("process %d asks about GPUs: %s", process.pid, ", ".join(names))
        return cls(process)

    async def ask(self, line: bytes) -> bytes:
        """One line for another. Raises `_Ended`."""
        assert self.process.stdin
        try:
            await self.process.stdin.send_all(line)
        except trio.BrokenResourceError:
            self._over = True
            raise _Ended from None
        return await self.line()

    async def line(self) -> bytes:
        """The next line. Raises `_Ended`, and ValueError for one without an end."""
        assert self.process.stdout
        while b"\n" not in self._received:
            received = await self.process.stdout.receive_some()
            if not received:
                self._over = True
                raise _Ended
            self._received += received
            if len(self._received) > _MOST:
                raise ValueError("too long an answer")
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    async def end(self) -> str:
        """Kills and reaps it. How it had ended by itself; empty when not, or with status 0."""
        with trio.CancelScope(shield=True):
            if self._over:
                # The end of its output comes a moment before its own.
                with trio.move_on_after(_END_S):
                    await self.process.wait()
            story = await self._story() if self.process.returncode else ""
            self.process.kill()
            with trio.move_on_after(_END_S):
                await self.process.wait()
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                assert stream
                await stream.aclose()
        return story

    async def _story(self) -> str:
        """``SIGABRT`` or ``exit status 1``, and the last line of what it had to say."""
        assert self.process.stderr
        status = self.process.returncode or 0
        try:
            how = signal.Signals(-status).name
        except ValueError:
            how = f"exit status {status}"
        said = b""
        # A process that the library started may hold the other end.
        with trio.move_on_after(_END_S), contextlib.suppress(trio.BrokenResourceError):
            while received := await self.process.stderr.receive_some():
                said = (said + received)[-4096:]
        last = plain_text(said.strip().rpartition(b"\n")[2], 200)
        return f"{how} ({last})" if last else how


def _key(device: VendorDevice) -> tuple[str, int, str]:
    # Only instances share an index; another source may have told a GPU's identifier.
    return device.source, device.index, device.uuid if device.mig else ""
