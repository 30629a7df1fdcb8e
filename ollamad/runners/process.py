"""Starts a runner, watches it and stops it.

A ``Runner`` lives in a nursery of its caller: when that is cancelled, the process is killed and
reaped before the nursery ends. Spec: runners-and-scheduling 2.5 to 2.10 and 2.13.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from ollamad.errors import LoadError
from ollamad.log import RUNNER_OUTPUT
from ollamad.runners import command, environment, health, offload
from ollamad.runners.address import Address, TcpAddress, UnixAddress
from ollamad.runners.client import RunnerClient
from ollamad.runners.command import Launch
from ollamad.runners.kinds import RunnerKind
from ollamad.runners.log import LogReader, MemoryUse
from ollamad.runners.rundir import RunDirectory

_log = logging.getLogger("ollamad.runners")
_output_log = logging.getLogger(RUNNER_OUTPUT)

_SHIM = str(Path(__file__).with_name("shim.py"))
_NS = 1_000_000_000

#: How long the lines of a runner that is ready gather before they are read.
_LOG_GATHERING_S = 0.05

#: How long an answer proves that a runner is fit for the next request.
_FIT_S = 1.0

#: How long the last lines of a dead runner may take to arrive: a grandchild can hold the pipe.
_OUTPUT_GRACE_S = 0.3

#: How long a runner whose connection broke gets to die by itself before it is killed.
_LAST_WORDS_S = 0.5

#: How long the shim gets to carry out a kill before it is killed itself.
_KILL_GRACE_S = 1.0

#: How long a killed runner is waited for: one that is stuck in the kernel must hold up nobody.
_KILL_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class LoadTimings:
    """Nanoseconds from the call of ``start_runner``: ``load_ns`` begins when ``spawn_ns`` ends."""

    spawn_ns: int
    load_ns: int


class Runner:
    """One running llama.cpp server with one model. Made by ``start_runner``."""

    def __init__(
        self,
        kind: RunnerKind,
        launch: Launch,
        address: Address,
        api_key: str,
        media_marker: str,
        *,
        file_size: int,
        on_exit: Callable[[Runner], None] | None,
    ) -> None:
        self.kind = kind
        self.launch = launch
        self.address = address
        self.media_marker = media_marker
        self.client = RunnerClient(
            address, api_key, logged=self.logged, last_words=self._last_words
        )
        #: The runner's own process id, 0 until it is known.
        self.pid = 0
        #: Set when the process has been reaped and its output read.
        self.exited = trio.Event()
        self.returncode: int | None = None
        #: ``exit status 1``, ``signal: killed``, ``OK`` (2.10); None while the process lives.
        self.exit_text: str | None = None
        self.load_timings = LoadTimings(0, 0)
        #: True once somebody asked for the end: the exit is then no accident.
        self.stopping = False
        self.ready = False
        self._on_exit = on_exit
        self._file_size = file_size
        self._log = LogReader(extra_models=1 if launch.draft_path is not None else 0)
        self._memory: MemoryUse | None = None
        self._process: trio.Process | None = None
        self._control: socket.socket | None = None
        self._record: Path | None = None
        self._output_ended = trio.Event()
        #: Set when the output shall be read now; replaced when that was done.
        self._hurry = trio.Event()
        self._on_output: Callable[[], None] = _ignore

    def __repr__(self) -> str:
        return f"<Runner {self.launch.model_name or self.launch.model_path} pid={self.pid}>"

    def last_error(self) -> str:
        """What the runner printed last that looks like an error, ``""`` for nothing (2.7)."""
        return self._log.last_error

    @property
    def refused_schemas(self) -> int:
        """How many schemas of answers it could not compile until now, as its log tells."""
        return self._log.refused_schemas

    @property
    def refusal(self) -> str:
        """Why it could not compile the last of them."""
        return self._log.refusal

    async def logged(self) -> str:
        """``last_error`` after all that the runner has printed until now was read."""
        self._hurry.set()
        # The reader's turns: to find that it has to hurry, to read, and to take what it read.
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        return self.last_error()

    def memory(self) -> MemoryUse:
        """Bytes in use, as its log tells; fixed once the runner is ready (2.7)."""
        if self._memory is not None:
            return self._memory
        return self._measured()

    def _measured(self) -> MemoryUse:
        launch = self.launch
        names = offload.names_in_runner(launch.devices)
        # llama.cpp puts a projector on the first device that it sees.
        first = next(iter(names), "") if launch.projector_offload else ""
        return self._log.memory(
            self._file_size, launch.projector_bytes, names=names, projector_device=first
        )

    def termination_text(self) -> str:
        """The error text for a runner that has ended (2.10)."""
        return health.termination_text(self.returncode, self.last_error())

    async def check(self) -> None:
        """The gate before a request. Raises ``RunnerUnfit`` and ``RunnerError`` (2.8, 4.4).

        A runner that has just answered is as fit as ``/health`` could tell, if it is still there.
        """
        if trio.current_time() - self.client.answered_at < _FIT_S:
            await self.client.check_listening()
        else:
            await self.client.check_ready()

    async def stop(self, grace: float = 2.0) -> None:
        """Asks the process to end, kills its group after ``grace`` seconds, and waits for its exit.

        With a ``grace`` of 0 it is killed at once. If this is cancelled, the runner is killed and
        its exit still awaited: a stopped runner has given its memory back, unless it is stuck in
        the kernel, which is logged.
        """
        self.stopping = True
        try:
            if grace > 0 and not self.exited.is_set():
                self._order(b"T")
                with trio.move_on_after(grace):
                    await self.exited.wait()
        finally:
            with trio.move_on_after(_KILL_LIMIT_S, shield=True) as scope:
                await self._kill()
            if scope.cancelled_caught:
                _log.error("runner does not end, going on without it pid=%d", self.pid)

    async def _kill(self) -> None:
        if self.exited.is_set():
            return
        self._order(b"K")
        with trio.move_on_after(_KILL_GRACE_S):
            await self.exited.wait()
            return
        # The shim does not answer: without it the kernel kills the runner on Linux, and the
        # process group is killed anyhow. Its id cannot be another's, for only the shim reaps it.
        _log.warning("runner's shim does not answer, killing both pid=%d", self.pid)
        self._kill_group()
        if self._process is not None:
            self._process.kill()
        await self.exited.wait()

    def _kill_group(self) -> None:
        if self.pid > 1:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, 9)

    def _order(self, letter: bytes) -> None:
        if self._control is None:
            return
        try:
            self._control.send(letter)
        except OSError:
            # The shim is gone, and the runner with it, or soon: see ``_kill``.
            self._kill_group()

    async def _last_words(self) -> str:
        """The runner's connection broke: let it die, or end it, and say what it printed last."""
        with trio.move_on_after(_LAST_WORDS_S):
            await self.exited.wait()
        if not self.exited.is_set():
            _log.warning("runner broke a connection but lives on, stopping it pid=%d", self.pid)
            self._order(b"K")
            with trio.move_on_after(_LAST_WORDS_S):
                await self.exited.wait()
        return await self.logged()

    async def _spawn(self, child_environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._process = await trio.lowlevel.open_process(
                _shim_argv(self.kind, self.launch, self.address),
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=child_environment,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours

    async def _abandon(self) -> None:
        """Ends a process that nobody supervises."""
        assert self._process is not None
        self._close_control()
        self._finish(await self._process.wait())

    async def _supervise(self, task_status: trio.TaskStatus[None]) -> None:
        process = self._process
        assert process is not None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._contained, self._read_output)
                nursery.start_soon(self._contained, self._read_control)
                nursery.start_soon(self._contained, self._end_when_silent)
                task_status.started()
                await process.wait()
                self._hurry.set()
                with trio.move_on_after(_OUTPUT_GRACE_S):
                    await self._output_ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                if process.returncode is None:
                    self.stopping = True
                    # The shim kills the group when its socket closes; it must not be killed before.
                    self._close_control()
                    with trio.move_on_after(_KILL_GRACE_S):
                        await process.wait()
                    if process.returncode is None:
                        self._kill_group()
                        process.kill()
                        await process.wait()
            self._finish(process.returncode)

    def _finish(self, returncode: int | None) -> None:
        _pass_on(self._log.feed_eof())
        self.client.close()
        self._close_control()
        if self._process is not None and self._process.stdout is not None:
            stdout = self._process.stdout
            assert isinstance(stdout, trio.lowlevel.FdStream)
            stdout.close()
        self.returncode = returncode
        self.exit_text = health.exit_text(returncode)
        if isinstance(self.address, UnixAddress):
            Path(self.address.path).unlink(missing_ok=True)
        if self._record is not None:
            self._record.unlink(missing_ok=True)
        self.exited.set()
        if self.ready and not self.stopping:
            _log.error("runner ended pid=%d: %s", self.pid, self.termination_text())
        if self._on_exit is not None:
            self._on_exit(self)

    def _close_control(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    async def _contained(self, read: Callable[[], Awaitable[None]]) -> None:
        """Nothing that a runner writes may end more than this runner."""
        try:
            await read()
        except Exception:  # noqa: BLE001 - a bug must not end the daemon
            _log.exception("reading from a runner failed, ending it pid=%d", self.pid)
            self._order(b"K")

    async def _end_when_silent(self) -> None:
        await self.client.until_silent()
        _log.error("runner neither works nor answers, ending it pid=%d", self.pid)
        self._order(b"K")

    async def _read_output(self) -> None:
        assert self._process is not None
        stream = self._process.stdout
        assert isinstance(stream, trio.lowlevel.FdStream)
        while True:
            if self.ready and self._process.returncode is None:
                # A request starts with a dozen lines. Reading each as it comes would take the core
                # that its first token needs.
                await trio.lowlevel.wait_readable(stream.fileno())
                with trio.move_on_after(_LOG_GATHERING_S):
                    await self._hurry.wait()
                self._hurry = trio.Event()
            if not (data := await stream.receive_some(65536)):
                break
            self._on_output()
            _pass_on(self._log.feed(bytes(data)))
        self._output_ended.set()

    async def _read_control(self) -> None:
        """The shim sends one line: the runner's process id."""
        control = self._control
        assert control is not None
        line = b""
        while not line.endswith(b"\n"):
            await trio.lowlevel.wait_readable(control)
            try:
                data = control.recv(64)
            except BlockingIOError:
                continue
            except ConnectionError:
                return
            if not data:
                return
            line += data
        self.pid = int(line)

    async def _wait_ready(self, timeout_ns: int) -> None:
        watch = health.LoadWatch(timeout_ns, _now())
        _log.debug("waiting for llama-server to start responding")
        self._on_output = lambda: watch.output(_now())
        try:
            while True:
                if self.exited.is_set():
                    raise health.termination_error(
                        self.returncode, self.last_error(), self.launch.model_name
                    )
                watch.check(self.last_error(), _now())
                before = watch.state
                answer = await self.client.health()
                if self.exited.is_set():
                    continue
                if watch.polled(answer, self.last_error(), _now()):
                    return
                if watch.state is not before:
                    _log.debug(
                        'waiting for llama-server to become available status="%s"',
                        watch.state.value,
                    )
                now = _now()
                wait_ns = min(watch.poll_delay(now), max(watch.deadline - now, 0))
                with trio.move_on_after(wait_ns / _NS):
                    await self.exited.wait()
        finally:
            self._on_output = _ignore

    def _became_ready(self, rundir: RunDirectory, timings: LoadTimings) -> None:
        self.ready = True
        # What was printed while loading says nothing about a later failure.
        self._log.clear_error()
        self._memory = self._measured()
        if self.launch.devices and not self._memory.measured:
            _log.warning("the runner does not tell what it allocated: memory is a guess")
        self.load_timings = timings
        if self.pid > 1:
            self._record = rundir.record(self.pid)


async def start_runner(
    nursery: trio.Nursery,
    kind: RunnerKind,
    launch: Launch,
    *,
    rundir: RunDirectory,
    load_timeout_ns: int,
    on_exit: Callable[[Runner], None] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Runner:
    """Starts a runner in ``nursery`` and returns it when it is ready for requests.

    ``load_timeout_ns`` limits the time without any sign of life (2.9); 0 or less is no limit.
    ``on_exit`` is called once when the process has ended, whatever the reason, also before this
    function raises. ``environ`` is the daemon's environment (default: the process's own).

    Raises ``LoadError`` with a text of 2.10, ``out_of_memory`` set where that was the reason. When
    it raises or is cancelled, the process has been killed and reaped.
    """
    started = _now()
    address = _address(kind, rundir)
    api_key = secrets.token_urlsafe(24)
    marker = f"<__ollama_media_{secrets.token_hex(16)}__>"
    runner = Runner(
        kind,
        launch,
        address,
        api_key,
        marker,
        file_size=launch.model_bytes
        or await trio.to_thread.run_sync(_file_size, launch.model_path),
        on_exit=on_exit,
    )
    child_environment = environment.child_environment(
        os.environ if environ is None else environ,
        overrides=launch.environment,
        library_dirs=_library_dirs(kind, launch),
        api_key=api_key,
        media_marker=marker,
        reads_media=launch.projector is not None,
        backend=_backend(kind, launch),
    )
    try:
        if not kind.embedded and not os.access(kind.program[0], os.X_OK):
            raise PermissionError(f"not an executable file: {kind.program[0]}")
        await runner._spawn(child_environment)
    except OSError as error:
        raise LoadError(f"error starting llama-server: {error}") from error
    _log.info(
        "starting runner kind=%s model=%s argv=%s",
        kind.name,
        launch.model_name or launch.model_path,
        command.build(launch, kind, address).argv,
    )
    _log.debug("runner environment %s", environment.loggable(child_environment))
    spawned = _now()
    try:
        # The shield: from here to the task's first line nobody would kill the process.
        with trio.CancelScope(shield=True):
            await nursery.start(runner._supervise)
    except BaseException:
        # The nursery is closed already: nobody watches the process, so it ends here.
        with trio.CancelScope(shield=True):
            await runner._abandon()
        raise
    try:
        await runner._wait_ready(load_timeout_ns)
    except BaseException:
        with trio.CancelScope(shield=True):
            await runner.stop(grace=0)
        raise
    ready = _now()
    runner._became_ready(rundir, LoadTimings(spawned - started, ready - spawned))
    _log.info("llama-server started in %0.2f seconds pid=%d", (ready - started) / _NS, runner.pid)
    return runner


def _shim_argv(kind: RunnerKind, launch: Launch, address: Address) -> list[str]:
    argv = command.build(launch, kind, address).argv
    if kind.embedded:
        # The shim's interpreter becomes the runner by a fork: one start of Python, not two.
        return [sys.executable, "-P", _SHIM, "--embedded", *argv[len(kind.program) :]]
    return [sys.executable, "-I", "-S", _SHIM, *argv]


def _address(kind: RunnerKind, rundir: RunDirectory) -> Address:
    if kind.unix_socket and (path := rundir.socket_path()) is not None:
        return UnixAddress(path)
    with socket.socket(socket.AF_INET) as probe:
        # Another program can take the port before the runner does; it then ends early.
        probe.bind(("127.0.0.1", 0))
        return TcpAddress("127.0.0.1", probe.getsockname()[1])


def _library_dirs(kind: RunnerKind, launch: Launch) -> list[str]:
    if kind.embedded:
        return list(launch.backend_dirs)
    return [str(Path(kind.program[0]).resolve().parent), *launch.backend_dirs]


def _backend(kind: RunnerKind, launch: Launch) -> str:
    """The GPU's backend, which llama-server does not find in a directory that is not its own."""
    own = [] if kind.embedded else [str(Path(kind.program[0]).resolve().parent)]
    for directory in launch.backend_dirs[:1]:
        if directory in own:
            continue
        if name := environment.pick_backend(os.listdir(directory)):  # noqa: PTH208
            return str(Path(directory) / name)
    return ""


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0  # the runner says what is wrong with it


def _now() -> int:
    return int(trio.current_time() * _NS)


def _pass_on(lines: list[str]) -> None:
    """What a runner prints belongs into the daemon's own output (2.7): one record for all lines
    that came together, for a runner that loads has much to say."""
    if lines and _output_log.isEnabledFor(logging.INFO):
        _output_log.info("\n".join(lines))


def _ignore() -> None:
    pass
