"""The process between the daemon and a runner: it sees to it that no runner outlives the daemon.

Run as a script, with standard input connected to the daemon by a socket pair:

    python -P shim.py --embedded <flags>        the embedded runner, in a fork of this interpreter
    python -I -S shim.py <program> <flags>      any other

It tells the daemon the runner's process id, obeys ``T`` (terminate) and ``K`` (kill), kills the
runner's process group when the daemon's end of the socket closes, for whatever reason, and ends as
the runner ended. It is a process of its own because a runner that hangs or crashes in native code
cannot watch its parent, and because a parent-death signal follows the *thread* that forked: here
that is the main thread of a process that has only one. Spec: runners-and-scheduling 2.13.

It imports little and nothing of ours: every load waits for it.
"""

import contextlib
import os
import select
import signal
import sys

_CONTROL = 0
_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Starts the runner that ``argv`` names and stays until it has ended. Never returns."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    shim = os.getpid()
    child = os.fork()
    if child == 0:
        _become_runner(argv, shim)
    with contextlib.suppress(OSError):
        os.setpgid(child, child)

    def forward(signum: int, _frame: object) -> None:
        _kill(child, signum)

    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)
    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    # The daemon may be gone already: the poll below then ends at once.
    with contextlib.suppress(OSError):
        os.write(_CONTROL, b"%d\n" % child)
    _leave(_watch(child, wake_read))


def _watch(child: int, wake: int) -> int:
    """Waits for the daemon and for the runner; returns the runner's wait status."""
    poll = select.poll()
    poll.register(_CONTROL, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        if (status := _ended(child)) is not None:
            return status
        for descriptor, _ in poll.poll():
            if descriptor == wake:
                os.read(wake, 64)
                continue
            try:
                orders = os.read(_CONTROL, 64)
            except ConnectionError:
                orders = b""
            if orders == b"T":
                _kill(child, signal.SIGTERM)
                continue
            _kill(child, signal.SIGKILL)
            if not orders:
                poll.unregister(_CONTROL)


def _ended(child: int) -> int | None:
    """The runner's wait status, None while it runs. What it started is killed with it."""
    if hasattr(os, "waitid"):
        # Looked at before it is reaped: until then its id, and so its group's, stays its own.
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        _kill(child, signal.SIGKILL)
    pid, status = os.waitpid(child, os.WNOHANG)
    return status if pid else None


def _kill(child: int, signum: int) -> None:
    try:
        os.killpg(child, signum)
    except OSError:
        # Before the group exists, and on systems that refuse it for a group of zombies.
        with contextlib.suppress(OSError):
            os.kill(child, signum)


def _leave(status: int) -> None:
    """Ends this process the way the runner ended, so that the daemon sees the runner's status."""
    if os.WIFSIGNALED(status):
        import resource  # noqa: PLC0415 - only needed here, and a load waits for every import

        # The runner has dumped core if it was to; this process has nothing to show.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signum = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):
            signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
    os._exit(os.WEXITSTATUS(status))


def _become_runner(argv: list[str], shim: int) -> None:
    """In the forked child: never returns."""
    try:
        os.setpgid(0, 0)
        _die_with(shim)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, _CONTROL)
        os.close(null)
        if argv[0] == "--embedded":
            sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
            import embedded  # type: ignore[import-not-found]  # noqa: PLC0415

            del sys.path[0]
            embedded.main(argv[1:])
        for signum in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signum, signal.SIG_DFL)
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"error: cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        # Whatever happened, this must not go on as a second shim.
        os._exit(127)


def _die_with(shim: int) -> None:
    """Asks the kernel to kill this process when the shim dies; only Linux can."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - in the child only

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != shim:
        os._exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
