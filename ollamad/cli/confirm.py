"""A question with the answers yes and no (``cli.md`` 11.5).

`Question` is pure; `confirm` asks it on a terminal, which it leaves as it was, whatever happens.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from ollamad.cli.keys import Key, Keys
from ollamad.cli.width import clipped, width

try:
    import termios
    import tty
except ImportError:  # not on Windows: there the answer is typed as a line
    termios = None  # type: ignore[assignment]

FOOTER = "←/→ navigate • enter confirm • esc cancel"
_BOLD, _REVERSED, _GREY, _RESET = "\x1b[1m", "\x1b[7m", "\x1b[38;5;245m", "\x1b[0m"
#: How long the rest of an escape sequence may take, in seconds.
_SEQUENCE = 0.05


class Question:
    """``answer`` is None until there is one; cancelling it is a no with ``cancelled`` set."""

    def __init__(self, prompt: str, default: bool = True) -> None:
        self.prompt = prompt
        self.yes = default
        self.answer: bool | None = None
        self.cancelled = False

    def press(self, key: Key) -> None:
        if self.answer is not None:
            return
        if key in (Key.LEFT, Key.RIGHT):
            self.yes = key is Key.LEFT
        elif key is Key.ENTER:
            self.answer = self.yes
        elif key in (Key.ESCAPE, Key.INTERRUPT):
            self.answer, self.cancelled = False, True

    def lines(self, columns: int) -> list[str]:
        """What the screen shows, in lines that do not wrap."""
        room = columns - 1

        def styled(style: str, text: str) -> str:
            return f"{style}{text}{_RESET}"

        chosen = [styled(_REVERSED, "  Yes  "), styled(_REVERSED, "  No  ")]
        plain = ["  Yes  ", "  No  "]
        yes, no = (chosen[0], plain[1]) if self.yes else (plain[0], chosen[1])
        buttons = f"{yes} {no}" if width(" ".join(plain)) <= room else (yes if self.yes else no)
        return [
            styled(_BOLD, clipped(self.prompt, room)),
            "",
            buttons,
            "",
            styled(_GREY, clipped(FOOTER, room)),
        ]


def typed_answer(line: str, default: bool) -> bool | None:
    """What a typed line answers: empty is the default, None is no answer. Pure."""
    word = line.strip().lower()
    if not word:
        return default
    return {"y": True, "yes": True, "n": False, "no": False}.get(word)


def confirm(prompt: str, default: bool = True) -> bool:
    """Ask on stdin and stdout, which have to be terminals. False for no and for cancelling."""
    if termios is None or os.environ.get("TERM", "dumb") == "dumb":
        return _ask_for_a_line(prompt, default)
    question = Question(prompt, default)
    descriptor = sys.stdin.fileno()
    with _raw(descriptor), _drawn(question, sys.stdout) as redraw:
        keys = Keys()
        while question.answer is None:
            for key in _read(descriptor, keys):
                question.press(key)
            redraw()
    return question.answer


def _ask_for_a_line(prompt: str, default: bool) -> bool:
    choices = "[Y/n]" if default else "[y/N]"
    while True:
        try:
            answer = typed_answer(input(f"{prompt} {choices} "), default)
        except (EOFError, KeyboardInterrupt):
            print()
            return False
        if answer is not None:
            return answer


def _read(descriptor: int, keys: Keys) -> list[Key]:
    if keys.is_waiting and not select.select([descriptor], [], [], _SEQUENCE)[0]:
        return keys.pause()
    data = os.read(descriptor, 64)
    # A terminal that is gone answers nothing any more.
    return keys.feed(data) if data else [Key.ESCAPE]


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Keys come one by one. What was typed before the question is no answer to it."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor, termios.TCSAFLUSH)
        mode = termios.tcgetattr(descriptor)
        # Ctrl-C is a key here, and output stays as it is.
        mode[0] &= ~termios.ICRNL
        mode[3] &= ~(termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def _drawn(question: Question, stream: TextIO) -> Iterator[Callable[[], None]]:
    """The question on the screen, and gone from it afterwards."""
    height = 0

    def draw() -> None:
        nonlocal height
        lines = question.lines(_columns(stream))
        up = f"\x1b[{height - 1}A" if height > 1 else ""
        stream.write(f"{up}\r" + "\n".join(f"{line}\x1b[K" for line in lines))
        stream.flush()
        height = len(lines)

    stream.write("\x1b[?25l")
    draw()
    try:
        yield draw
    finally:
        stream.write(f"\x1b[{height - 1}A\r\x1b[J\x1b[?25h")
        stream.flush()


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80
