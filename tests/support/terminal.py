"""A program on a terminal of its own: what it shows, keys for it, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

LIMIT = 30.0


class Terminal:
    """``seen`` is everything that the program wrote; `until` looks at what it has not yet."""

    def __init__(self, process: subprocess.Popen[bytes], parent: int) -> None:
        self.process = process
        self.seen = b""
        self._looked = 0
        self._parent = parent
        self._modes = termios.tcgetattr(parent)

    def until(self, pattern: bytes) -> bytes:
        """Wait for ``pattern`` in what is new, and return that as far as the pattern's end."""
        while True:
            found = re.search(pattern, self.seen[self._looked :], re.DOTALL)
            if found:
                self._looked += found.end()
                return found[0]
            assert self._read(LIMIT), (pattern, self.seen[self._looked :])

    def press(self, keys: bytes) -> None:
        os.write(self._parent, keys)

    def wait(self) -> int:
        """The exit status; everything that was written is in ``seen`` then."""
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen[self._looked :]
            self._read(0.05)
        while self._read(0):
            pass
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal is in the modes it was in at the start."""
        return termios.tcgetattr(self._parent) == self._modes

    def _read(self, limit: float) -> bool:
        if not select.select([self._parent], [], [], limit)[0]:
            return False
        with suppress(OSError):
            self.seen += os.read(self._parent, 1 << 16)
            return True
        return False


@contextmanager
def on_terminal(
    words: Sequence[str],
    env: Mapping[str, str],
    *,
    columns: int = 80,
    rows: int = 24,
    redirect: Mapping[str, int] | None = None,
) -> Iterator[Terminal]:
    """Run ``words`` as the foreground program of a new terminal, so that Ctrl-C reaches it.

    ``redirect`` has files or pipes for some of ``stdin``, ``stdout``, ``stderr``.
    """
    # The program's end stays open here, so that its last words are not lost when it ends.
    parent, child = os.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    streams = {"stdin": child, "stdout": child, "stderr": child, **(redirect or {})}
    # A pipe as stdin is no terminal that could be controlling.
    session = ["setsid"] if streams["stdin"] != child else ["setsid", "--ctty"]
    process = subprocess.Popen(
        [*session, *words],
        env={"TERM": "xterm", **env},
        stdin=streams["stdin"],
        stdout=streams["stdout"],
        stderr=streams["stderr"],
    )
    try:
        yield Terminal(process, parent)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(child)
        os.close(parent)


def screen(written: bytes, columns: int = 80) -> list[str]:
    """What lines a terminal shows after ``written``: the few codes that the program uses."""
    text = written.decode()
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\??[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]", text):
        if part == "\n":
            row += 1
            while len(lines) <= row:
                lines.append("")
        elif part in ("\r", "\x1b[1G"):
            column = 0
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                row = max(row - int(part[2:-1] or 1), 0)
        else:
            assert column < columns, f"a line wraps: {lines[row]!r}"
            lines[row] = lines[row].ljust(column)[:column] + part + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
