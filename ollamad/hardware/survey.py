"""The process that loads the makers' libraries, so that the daemon need not.

Started as ``survey.py <root> <source>…``; see `ollamad.hardware.monitor`, its only user. It writes
a line when it is ready and then answers each line of standard input, ``survey <source> <seconds>``
or ``memory <source> <seconds>``, with one line of JSON, a `Survey`. It ends when standard input
does, when it has had nothing to do for a minute (an open driver keeps a laptop's GPU awake), and
when an answer takes longer than the seconds: then the system's timer ends it, whatever the library
does and whether or not the daemon still lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from ollamad.hardware.files import gpus_on_bus
from ollamad.hardware.memory import system_memory
from ollamad.hardware.sources import nvidia_files
from ollamad.hardware.vendor import Note, Survey

#: Seconds without a request after which the process ends by itself, with status 0.
IDLE_S = 60.0


class Source(Protocol):
    """One maker's library or files. May hang, crash and raise anything."""

    def survey(self) -> Survey:
        """All devices with all facts."""

    def memory(self) -> Survey:
        """The same devices; only their memory needs to be up to date."""


def main() -> None:
    """Serves standard input to its end. Never returns."""
    root, *names = sys.argv[1:]
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not there on Windows

        # A library that crashes shall not leave a core file behind each time.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Nobody reads this pipe while all is well: a talkative library must not wait for it.
        os.set_blocking(2, False)
    # Ctrl-C is for the daemon, which closes standard input when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Libraries print what they like to standard output; answers have a descriptor of their own.
    answers = os.dup(1)
    os.dup2(2, 1)
    environ = dict(os.environ)
    # Facts are about all devices; who may use which is decided elsewhere.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        serve({name: source(name, Path(root), environ) for name in names}, 0, answers)
    except BrokenPipeError:
        # The daemon is gone.
        pass
    finally:
        # Not by the libraries' own exit handlers, which hang as well as anything else.
        os._exit(0 if sys.exc_info()[0] is None else 1)


def serve(sources: Mapping[str, Source], requests: int, answers: int) -> None:
    """Answers the lines of one descriptor on another, to the end of the former or `IDLE_S`."""
    os.write(answers, b"ready\n")
    pending = b""
    while True:
        # Windows waits for sockets only; there the process stays until the daemon is done with it.
        if sys.platform != "win32" and not select.select([requests], [], [], IDLE_S)[0]:
            return
        received = os.read(requests, 4096)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            what, name, seconds = line.decode().split()
            with _ended_after(float(seconds)):
                answer = _answer(sources[name], what, name)
            view = memoryview(answer + b"\n")
            while view:
                view = view[os.write(answers, view) :]


def _answer(asked: Source, what: str, name: str) -> bytes:
    try:
        survey = asked.memory() if what == "memory" else asked.survey()
        return msgspec.json.encode(survey)
    except Exception as error:  # noqa: BLE001 - one source's mistake costs only its own devices
        note = Note("warning", f"asking {name} about GPUs failed: {error!r}")
        return msgspec.json.encode(Survey(notes=(note,)))


@contextlib.contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    # Without a handler the signal ends the process: no library has to return for that.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class _Broken:
    """Stands for a source whose module cannot be imported."""

    def __init__(self, error: ImportError) -> None:
        self._error = error

    def survey(self) -> Survey:
        raise self._error

    memory = survey


def source(name: str, root: Path, environ: Mapping[str, str]) -> Source:
    """The source called ``name``. Raises KeyError for one that does not exist."""
    try:
        return _SOURCES[name](root, environ)
    except ImportError as error:
        return _Broken(error)


class _Files:
    """A source without a state: all of it is read again for each answer."""

    def __init__(self, read: Callable[[], Survey]) -> None:
        self._read = read

    def survey(self) -> Survey:
        return self._read()

    memory = survey


def _nvml(root: Path, _environ: Mapping[str, str]) -> Source:
    from ollamad.hardware.nvml import Nvml  # noqa: PLC0415

    return Nvml(expected=_nvidia_expected(root), memory_of_system=partial(system_memory, root))


def _cuda(root: Path, _environ: Mapping[str, str]) -> Source:
    from ollamad.hardware.cuda_driver import CudaDriver  # noqa: PLC0415

    return CudaDriver(
        expected=_nvidia_expected(root), memory_of_system=partial(system_memory, root)
    )


def _amd(root: Path, environ: Mapping[str, str]) -> Source:
    from ollamad.hardware import amd  # noqa: PLC0415

    return _Files(partial(amd.devices, root, environ))


def _rsmi(_root: Path, _environ: Mapping[str, str]) -> Source:
    from ollamad.hardware import rsmi  # noqa: PLC0415

    return _Files(rsmi.devices)


def _apple(_root: Path, _environ: Mapping[str, str]) -> Source:
    from ollamad.hardware import apple  # noqa: PLC0415

    return _Files(partial(apple.devices, _printed))


_SOURCES = {"nvml": _nvml, "cuda": _cuda, "amd": _amd, "rsmi": _rsmi, "apple": _apple}


def _nvidia_expected(root: Path) -> bool:
    return nvidia_files(root) or bool(gpus_on_bus(root, "0x10de"))


def _printed(command: Sequence[str]) -> str:
    """What a command prints. Raises OSError and `subprocess.SubprocessError`."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout


if __name__ == "__main__":
    main()
