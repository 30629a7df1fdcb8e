"""What is going on, on stderr: spinners and bars (``cli.md`` 9).

`Spinner` and `Bar` are lines as functions of the time, frames are pure text; only `Display` has a
thread, and only on a terminal. Elsewhere each line is written when it is final, and that of a bar
every half minute before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from ollamad.cli.width import clipped, width
from ollamad.units import SECOND, human_bytes

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
INTERVAL = 0.1
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"
_SAMPLES = 10
_PLAIN_INTERVAL = 30 * SECOND


class State(Protocol):
    """One line of a `Display`, on a terminal of ``columns``.

    ``now`` is in nanoseconds of any clock that does not step.
    """

    def line(self, now: int, columns: int) -> str: ...

    def stop(self, now: int) -> None: ...


class Spinner:
    """A text with something that moves behind it until it is stopped."""

    def __init__(self, text: str, now: int) -> None:
        self.text = text
        self._started = now
        self._stopped = False

    def stop(self, now: int) -> None:
        self._stopped = True

    def line(self, now: int, columns: int) -> str:
        text = self.text.strip()
        prefix = f"{text} " if text else ""
        if self._stopped:
            return prefix
        frame = (now - self._started) // (SECOND // 10) % len(FRAMES)
        return f"{prefix}{FRAMES[frame]} "


class Bar:
    """How much of ``most`` bytes is done, how fast, and how long the rest takes."""

    def __init__(self, label: str, most: int, now: int, current: int = 0) -> None:
        self.label = label
        self.most = most
        self._initial = current
        self._current = min(current, most)
        self._started = now
        self._samples: list[tuple[int, int]] = []

    @property
    def is_full(self) -> bool:
        return self._current >= self.most

    def set(self, current: int, now: int) -> None:
        """``current`` may be less than before: what was done may prove bad."""
        self._current = min(current, self.most)
        if not self._samples or now - self._samples[-1][0] >= SECOND:
            self._samples = [*self._samples, (now, self._current)][-_SAMPLES:]

    def stop(self, now: int) -> None:
        """A bar does not move by itself."""

    def rate(self, now: int) -> float:
        """Bytes a second, 0 as long as nothing is known."""
        if len(self._samples) > 1:
            (began, first), (ended, last) = self._samples[0], self._samples[-1]
        elif self._samples:
            began, first = self._started, self._initial
            ended, last = now, self._samples[0][1]
        else:
            return 0.0
        # Whole seconds, rounded.
        seconds = (ended - began + SECOND // 2) // SECOND
        return (last - first) / seconds if seconds > 0 else 0.0

    def line(self, now: int, columns: int) -> str:
        percent = self._current / self.most * 100 if self.most > 0 else 0.0
        before = f"{self.label} " if self.label else ""
        before += f"{percent:3.0f}%"
        total = f"{human_bytes(self.most):>6}"
        if self.is_full:
            after = total + " " * 25
        else:
            after = f"{human_bytes(self._current):>6}/{total}{self._speed(now)}"
        room = columns - width(before) - width(after) - 5
        filled = max(int(room * percent / 100), 0)
        return f"{before} ▕{'█' * filled}{' ' * max(room - filled, 0)}▏ {after}"

    def _speed(self, now: int) -> str:
        rate = self.rate(now)
        if rate <= 0:
            return " " * 18
        remaining = remaining_text(int((self.most - self._current) / rate))
        return f"  {human_bytes(int(rate)):>6}/s  {remaining:>6}"


def remaining_text(seconds: int) -> str:
    """``49s``, ``2m3s``, ``1h5m``, ``99h+``."""
    if seconds >= 360_000:
        return "99h+"
    minutes, rest = divmod(seconds, 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def frame(lines: Sequence[str], previous: int) -> str:
    """The bytes that draw ``lines`` over the ``previous`` number of lines. Pure."""
    up = "\x1b[A" * (previous - 1)
    body = "\n".join(f"{line}\x1b[K" for line in lines)
    # Back to the start: behind a full line the echo of Ctrl-C would begin another one, and what is
    # drawn next would be off by a line.
    return f"{_BEGIN}{_HIDE}{up}\x1b[1G{body}\x1b[1G{_SHOW}{_END}"


def erased(count: int) -> str:
    """The bytes that take ``count`` drawn lines away again. Pure."""
    return "\x1b[A".join(["\x1b[2K\x1b[1G"] * max(count, 1)) + _SHOW


class Display:
    """Lines that are redrawn while they change. Leave the block to leave them on the screen.

    With ``transient`` they are erased at the end, and shown on terminals only.
    """

    def __init__(self, *, transient: bool = False, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._transient = transient
        self._states: list[State] = []
        # Without a terminal: when a bar's line was written last.
        self._written: dict[Bar, int] = {}
        self._drawn = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Display:
        if self._live:
            self._thread = threading.Thread(target=self._draw_until_ended, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def spin(self, text: str = "") -> Spinner:
        """Add a spinner below the lines that are there."""
        spinner = Spinner(text, time.monotonic_ns())
        self._add(spinner)
        return spinner

    def bar(self, label: str, most: int, current: int = 0) -> Bar:
        bar = Bar(label, most, time.monotonic_ns(), current)
        self._add(bar)
        return bar

    def stop(self, state: State | None) -> None:
        """The line of ``state`` is final."""
        if state is not None:
            state.stop(time.monotonic_ns())
            with self._lock:
                if not self._live and not self._transient and state in self._states:
                    self._states.remove(state)
                    self._write_plain(state)

    def changed(self, bar: Bar) -> None:
        """``bar`` has been set: where it cannot be redrawn, its line is written now and then."""
        if self._live or self._transient:
            return
        now = time.monotonic_ns()
        with self._lock:
            if bar.is_full:
                if bar in self._states:
                    self._states.remove(bar)
                    self._write_plain(bar)
                return
            if bar not in self._states:
                self._states.append(bar)  # it has gone back since
            if now - self._written.setdefault(bar, now) >= _PLAIN_INTERVAL:
                self._written[bar] = now
                self._write_plain(bar)

    def discard(self) -> None:
        """Nothing of this shall stay on the screen."""
        self._transient = True

    def end(self) -> None:
        """Write the final lines, or erase them. Nothing is written afterwards."""
        if self._ended.is_set():
            return
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            if self._drawn or not self._transient:
                self._draw()
                self._stream.write(erased(self._drawn) if self._transient else "\n")
        elif not self._transient:
            for state in self._states:
                state.stop(time.monotonic_ns())
                self._write_plain(state)
        self._stream.flush()

    def _add(self, state: State) -> None:
        with self._lock:
            self._states.append(state)

    def _write_plain(self, state: State) -> None:
        self._stream.write(state.line(time.monotonic_ns(), _size(self._stream)[0]) + "\n")
        self._stream.flush()

    def _draw_until_ended(self) -> None:
        # The first frame waits: what is over at once shows nothing moving.
        while not self._ended.wait(INTERVAL):
            self._draw()

    def _draw(self) -> None:
        now = time.monotonic_ns()
        columns, rows = _size(self._stream)
        with self._lock:
            if self._ended.is_set():
                for state in self._states:
                    state.stop(now)
            # A line that wraps would not be drawn over, and a full one has no place for its end.
            lines = [clipped(s.line(now, columns), columns - 1) for s in self._states[-rows:]]
            self._stream.write(frame(lines, self._drawn))
            self._stream.flush()
            self._drawn = len(lines)


def _size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the terminal; 80 and 24 when they are unknown."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24
