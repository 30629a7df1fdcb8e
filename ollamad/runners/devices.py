"""Asks a runner which devices it can use, in a process of its own: drivers hang and crash.

``runners-and-scheduling.md`` 1.2 (directories of backends), 1.3 and 2.16. What the runner prints is
read by `ollamad.hardware.listing`.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import trio
from msgspec.structs import replace

from ollamad.errors import LoadError
from ollamad.hardware.discovery import Hardware
from ollamad.hardware.finding import Answer, Backend, Rules, RunnerFacts
from ollamad.hardware.machine import Machine
from ollamad.hardware.monitor import Monitor
from ollamad.runners.environment import child_environment, pick_backend
from ollamad.runners.kinds import Found, RunnerKind
from ollamad.settings import Settings

_log = logging.getLogger(__name__)

#: Bytes of its output that are read; what a runner says of devices is a few kilobytes.
_MOST_OUTPUT = 1 << 20
#: Entries of a directory that are looked at.
_MOST_ENTRIES = 4096
#: Seconds that the end of a killed process is waited for; a driver may hold it for ever.
_END_S = 1.0

#: Library by the name of a backend's file, behind ``libggml-`` or ``ggml-``.
_BACKENDS = {
    "cuda": "CUDA",
    "hip": "ROCm",
    "vulkan": "Vulkan",
    "metal": "Metal",
}
_CUDA_RUNTIMES = (
    # libcudart.so.12.8.90, libcudart.so.13
    re.compile(r"libcudart\.so\.(?P<major>\d{1,3})(?:\.(?P<minor>\d{1,3}))?(?:\.\d+)*"),
    # cudart64_128.dll: two digits for the major version, one for the minor
    re.compile(r"cudart64_(?P<major>\d{2})(?P<minor>\d)\.dll"),
)
_VARIANT_RUNTIME = re.compile(r"cuda_v(\d{1,3})")
_ROCM_KERNELS = re.compile(r"TensileLibrary_lazy_(gfx[0-9a-f]{3,6})\.dat")


def runner_facts(kind: RunnerKind) -> RunnerFacts:
    """What the files beside the runner tell. Blocking; raises nothing."""
    if kind.embedded:
        return RunnerFacts(title=f"the embedded runner ({kind.origin})", embedded=True)
    directory = Path(kind.program[0]).resolve().parent
    names = _names(directory)
    own = {library for name in names if (library := _library_of_file(name))}
    backends = tuple(_variants(directory, names))
    libraries: frozenset[str] | None = None
    if any(_is_backend(name) for name in names) or backends:
        for backend in backends:
            for name in _names(backend.directories[-1]):
                own |= {_library_of_file(name)} - {""}
        libraries = frozenset(own)
    rocm_only = libraries is not None and "ROCm" in libraries and "CUDA" not in libraries
    return RunnerFacts(
        title=f"the runner {kind.program[0]}",
        libraries=libraries,
        backends=backends or (Backend(directories=(directory,), rocm_only=rocm_only),),
        rocm_targets=_rocm_targets([directory, *(b.directories[-1] for b in backends)]),
    )


def cuda_runtime(variant: str, files: Iterable[str]) -> tuple[int, int]:
    """The highest version of CUDA's runtime that a backend's directory tells, (0, 0) for none."""
    found = [
        (int(match["major"]), int(match["minor"] or 0))
        for name in files
        for pattern in _CUDA_RUNTIMES
        if (match := pattern.fullmatch(name))
    ]
    if not found and (match := _VARIANT_RUNTIME.fullmatch(variant)):
        return int(match[1]), 0
    return max(found, default=(0, 0))


def machine_of(
    settings: Settings,
    kinds: Found,
    environ: Mapping[str, str],
    *,
    found: Callable[[Hardware], None] = lambda _: None,
) -> Machine:
    """This machine as its owner's settings have it, with the best of the runners."""
    rules = Rules(
        environ=dict(environ),
        llm_library=settings.llm_library,
        vulkan=settings.vulkan,
        igpu_enable=settings.igpu_enable,
        platform=sys.platform,
        apple_silicon=sys.platform == "darwin" and platform.machine() == "arm64",
    )
    return Machine(RunnerDevices(kinds, environ), Monitor(environ), rules, found=found)


class RunnerDevices:
    """What the chosen runner says; ``ollamad.hardware.machine.Lister`` for the daemon."""

    def __init__(self, kinds: Found, environ: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._environ = environ

    def facts(self) -> RunnerFacts | None:
        """Blocking. None when there is no runner at all."""
        try:
            return runner_facts(self._kinds.best())
        except LoadError:
            return None

    async def devices(self, backend: Backend, variables: Mapping[str, str], limit: float) -> Answer:
        """``--list-devices`` with ``variables`` in the environment, for ``limit`` seconds."""
        answer = await self._ask(
            ["--verbose", "--offline", "--list-devices"], backend, variables, limit
        )
        if answer.error:
            text = f"llama-server --list-devices failed: {answer.error}"
            return replace(answer, error=text)
        return answer

    async def system_info(
        self, backend: Backend, variables: Mapping[str, str], limit: float
    ) -> Answer:
        """What it says of itself before it serves anything: started and killed at that line."""
        return await self._ask(
            ["--host", "127.0.0.1", "--port", "0", "--no-webui", "--offline", "--verbose"],
            backend,
            variables,
            limit,
            enough=lambda text: b"system_info:" in text and text.endswith(b"\n"),
        )

    async def _ask(
        self,
        arguments: list[str],
        backend: Backend,
        variables: Mapping[str, str],
        limit: float,
        enough: Callable[[bytes], bool] = lambda _: False,
    ) -> Answer:
        kind = self._kinds.best()
        command = [*kind.program, *arguments]
        environment = child_environment(
            self._environ,
            overrides=variables,
            library_dirs=() if kind.embedded else [str(path) for path in backend.directories],
            backend=str(backend.file) if backend.file else "",
        )
        _log.debug("asking the runner: %s", " ".join(command))
        try:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                # A signal of the terminal is for the daemon only, and all its children go with it.
                start_new_session=sys.platform != "win32",
            )
        except OSError as error:
            return Answer(error=str(error))
        return await _output(process, limit, enough)


async def _output(process: trio.Process, limit: float, enough: Callable[[bytes], bool]) -> Answer:
    """All that it prints until it ends, the limit passes or it is ``enough``; then it is gone."""
    assert process.stdout is not None
    assert process.stderr is not None
    texts = {"out": bytearray(), "err": bytearray()}
    satisfied = False

    async def read(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
        nonlocal satisfied
        while received := await stream.receive_some(65536):
            if len(into) < _MOST_OUTPUT:
                into += received
            if enough(bytes(into)):
                satisfied = True
                nursery.cancel_scope.cancel()

    try:
        with trio.move_on_after(limit) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, process.stdout, texts["out"])
                nursery.start_soon(read, process.stderr, texts["err"])
                await process.wait()
                # A process that it left behind may hold the other ends for as long as it likes.
                nursery.cancel_scope.deadline = trio.current_time() + _END_S
    finally:
        await _end(process)
    status = process.returncode
    error = ""
    if scope.cancelled_caught:
        error = f"no answer within {limit:g} s"
    elif not satisfied and status:
        error = f"exit status {status}" if status > 0 else f"signal {-status}"
    return Answer(
        output=texts["out"].decode("utf-8", "replace"),
        messages=texts["err"].decode("utf-8", "replace"),
        error=error,
    )


async def _end(process: trio.Process) -> None:
    """Kills what it started as well; a scripted program may have children."""
    with trio.move_on_after(_END_S, shield=True):
        if process.returncode is None:
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, 9)
            await process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            await stream.aclose()


def _variants(directory: Path, names: Iterable[str]) -> Iterable[Backend]:
    """The subdirectories that hold backends."""
    for name in names:
        path = directory / name
        files = _names(path) if path.is_dir() else []
        if not any("ggml-" in file for file in files):
            continue
        picked = pick_backend(files)
        yield Backend(
            variant=name,
            directories=(directory, path),
            file=path / picked if picked else None,
            runtime=cuda_runtime(name, files),
            rocm_only="rocm" in name,
        )


def _rocm_targets(directories: Iterable[Path]) -> frozenset[str]:
    return frozenset(
        match[1]
        for directory in directories
        for name in _names(directory / "rocblas" / "library")
        if (match := _ROCM_KERNELS.fullmatch(name))
    )


def _is_backend(name: str) -> bool:
    return re.match(r"(lib)?ggml-\w", name) is not None and (
        ".so" in name or name.endswith((".dll", ".dylib"))
    )


def _library_of_file(name: str) -> str:
    if not _is_backend(name):
        return ""
    word = re.match(r"(?:lib)?ggml-([a-z]+)", name)
    return _BACKENDS.get(word[1], "") if word else ""


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry, _ in zip(entries, range(_MOST_ENTRIES), strict=False)]
    except OSError:
        return []
    return sorted(found)
