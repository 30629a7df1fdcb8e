"""The supervision tree of ``serve``: start, serve, drain, stop.

``runners-and-scheduling.md`` 5.1 and 5.5. Everything that can be wrong with the machine or the
environment shows before the first task runs: one line and status 1. After that one nursery holds
all there is, and stopping is leaving it: first the connections, then the scheduler with its
runners.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from ollamad import log
from ollamad.environment import FOREVER
from ollamad.errors import OllamadError, UsageError
from ollamad.listener import bound_address, is_loopback, listen
from ollamad.notify import notify
from ollamad.settings import Settings, go_map
from ollamad.version import __version__

if TYPE_CHECKING:
    import socket

    from ollamad.api.app import Application
    from ollamad.runners.kinds import Found
    from ollamad.runners.rundir import RunDirectory
    from ollamad.store.store import Store

logger = logging.getLogger(__name__)

#: Seconds after the last request in which runners and tasks must be gone.
STOP_LIMIT = 15.0

_OPEN_FILES = 65536


def serve_main(argv: Sequence[str]) -> int:
    """``serve``: returns the exit status, 0 after a signal and 1 with a line on stderr otherwise.

    A second signal ends the process at once, with 128 and the signal's number.
    """
    try:
        with _stopping_early():
            if argv:
                raise UsageError(f"accepts 0 arg(s), received {len(argv)}")
            return run(prepare(Settings.load(os.environ)))
    except OllamadError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    except _Stopped:
        return 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is ready before anything runs."""

    settings: Settings
    listener: socket.socket
    store: Store
    kinds: Found
    rundir: RunDirectory


def prepare(settings: Settings) -> Prepared:
    """Steps 1 to 7 of 5.1: everything that may refuse to start. Clients can connect afterwards.

    Raises OllamadError with the text for the user.
    """
    # The daemon's own modules come after the socket where they can: clients already wait in line.
    from ollamad.api.guard import Origins  # noqa: PLC0415
    from ollamad.registry.keys import ensure_key_pair  # noqa: PLC0415
    from ollamad.store.errors import os_error_text  # noqa: PLC0415

    _allow_open_files()
    Origins(settings.origins)
    try:
        ensure_key_pair(settings.key_path, _say)
    except OSError as error:
        raise UsageError(os_error_text("open", error)) from error
    listener = listen(settings.host)
    try:
        log.configure(settings.log_level, settings.log_format)
        _log_settings(settings)

        from ollamad.runners.kinds import find  # noqa: PLC0415
        from ollamad.store.store import Store  # noqa: PLC0415

        kinds = find(str(settings.llama_server or ""))
        store = Store(settings.models, prune=not settings.no_prune)
        store.startup_maintenance(time.time_ns())
        rundir = _run_directory()
    except BaseException:
        listener.close()
        raise
    logger.info("Listening on %s (version %s)", bound_address(listener), __version__)
    return Prepared(settings, listener, store, kinds, rundir)


def run(prepared: Prepared) -> int:
    """Serve until a signal, then stop in order. Returns the exit status."""
    try:
        import trio  # noqa: PLC0415 - clients can already connect

        from ollamad import assembly  # noqa: F401, PLC0415 - takes long: not while the loop runs
        from ollamad.api import server  # noqa: F401, PLC0415

        trio.run(_run, prepared)
    except Exception:
        logger.exception("the daemon failed")
        return 1
    finally:
        prepared.rundir.close()
    return 0


async def _run(prepared: Prepared) -> None:
    import trio  # noqa: PLC0415

    from ollamad.api.app import create_app  # noqa: PLC0415
    from ollamad.api.server import Server  # noqa: PLC0415
    from ollamad.assembly import running_services  # noqa: PLC0415

    settings = prepared.settings
    with trio.open_signal_receiver(*_signals()) as signals:
        async with running_services(
            settings, prepared.store, prepared.kinds, prepared.rundir
        ) as services:
            app = create_app(services, checks_host=is_loopback(prepared.listener))
            _keep_records(app, settings, prepared.listener)
            server = Server(app)
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run, prepared.listener)
                notify("READY=1")
                number = await anext(signals)
                for each in _signals():
                    signal.signal(each, _leave_at_once)
                logger.info("stopping", extra={"signal": signal.Signals(number).name})
                notify("STOPPING=1")
                grace = seconds(settings.shutdown_grace)
                nursery.start_soon(services.scheduler.drain, grace)
                await server.stop(grace)
                # From before the end of the first task: one may wait for a thread that hangs.
                watchdog = threading.Timer(STOP_LIMIT, _give_up)
                watchdog.daemon = True
                watchdog.start()
                nursery.cancel_scope.cancel()
        watchdog.cancel()
    logger.info("stopped")


def _keep_records(app: Application, settings: Settings, listener: socket.socket) -> None:
    """Put the logs of requests around ``app``."""
    from ollamad.api.http1 import EXTENSION  # noqa: PLC0415
    from ollamad.host import connectable, parse_host  # noqa: PLC0415
    from ollamad.request_log import AccessLog, start_request_log  # noqa: PLC0415

    handle: Any = app.asgi_app
    if settings.log_requests:
        url = connectable(parse_host(bound_address(listener))).url
        handle = start_request_log(handle, url)
    app.asgi_app = AccessLog(handle, EXTENSION)  # type: ignore[method-assign]


def seconds(nanoseconds: int) -> float:
    """A duration of the settings for trio's clock."""
    return float("inf") if nanoseconds == FOREVER else nanoseconds / 1e9


def _signals() -> list[signal.Signals]:
    names = ["SIGTERM", "SIGINT"]
    # Under nohup a hangup is ignored and stays so; in a terminal that closes it ends the daemon.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        names.append("SIGHUP")
    return [signal.Signals[name] for name in names]


def _leave_at_once(number: int, _frame: object) -> NoReturn:
    """The second signal. Runners end with us: their shims see the pipe from here close."""
    logger.warning("stopping at once", extra={"signal": signal.Signals(number).name})
    os._exit(128 + number)


def _give_up() -> NoReturn:
    logger.error("the daemon does not end in order; leaving", extra={"seconds": STOP_LIMIT})
    os._exit(1)


class _Stopped(BaseException):
    """A signal came before there was anything to stop."""


@contextmanager
def _stopping_early() -> Iterator[None]:
    """Until trio takes over, a signal means: there is nothing yet, just leave."""

    def stop(_number: int, _frame: object) -> NoReturn:
        raise _Stopped

    before = {number: signal.signal(number, stop) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run_directory() -> RunDirectory:
    """A private place for the runners' sockets, after those of dead daemons are cleared away."""
    from ollamad.runners.rundir import RunDirectory, clean_leftovers  # noqa: PLC0415
    from ollamad.store.errors import os_error_text  # noqa: PLC0415

    for pid in clean_leftovers():
        logger.warning("ended a runner that an earlier daemon left behind", extra={"pid": pid})
    try:
        return RunDirectory.create()
    except OSError as error:
        raise UsageError(os_error_text("mkdir", error)) from error


def _allow_open_files() -> None:
    """As many as the administrator lets us have, within reason: every client takes one, and the
    usual 1024 would be gone with as many idle connections."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415 - not on Windows

    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    if limit != resource.RLIM_INFINITY and limit < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _log_settings(settings: Settings) -> None:
    for message, key, value, default in settings.warnings:
        logger.warning(message, extra={"key": key, "value": value, "default": default})
    logger.info("server config", extra={"env": go_map(settings.effective())})
    logger.info("Ollama cloud disabled: %s", "true" if settings.cloud_disabled else "false")
