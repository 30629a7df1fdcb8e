"""``python -m ollamad``, and the console scripts ``ollamad`` and ``ollama``."""

from __future__ import annotations

import io
import sys


def main() -> int:
    """Run the command line of this process and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Whatever the locale says: clients read UTF-8, and no character may end the program.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    from ollamad.cli.main import run  # noqa: PLC0415 - errors of imports meet a set-up stderr

    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        return _die("SIGPIPE")
    except KeyboardInterrupt:
        return _die("SIGINT")
    return status


def _die(name: str) -> int:
    """End by the signal itself, so that a calling shell script sees why and stops, too."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415

    number = getattr(signal, name, None)
    if number is not None and sys.platform != "win32":
        # Nothing more can be written; the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 1


if __name__ == "__main__":
    sys.exit(main())
