'''Lines that a user types become messages and commands (``cli.md`` 6.2). Pure.

A message may span lines between ``"""``; so may the text of ``/set system``.
'''

from __future__ import annotations

from typing import Literal, NamedTuple

QUOTES = '"""'


class Message(NamedTuple):
    """Send this text."""

    text: str


class Command(NamedTuple):
    """Do what this line, which starts with ``/``, says."""

    line: str


class SystemMessage(NamedTuple):
    """Make this text, which came in a block, the system message."""

    text: str


Entry = Message | Command | SystemMessage


class Input:
    """What was typed and is not complete yet."""

    def __init__(self) -> None:
        self._text = ""
        self._block: Literal["message", "system"] | None = None

    @property
    def is_open(self) -> bool:
        """Whether a block waits for its end."""
        return self._block is not None

    def open_system_block(self, text: str) -> None:
        """``/set system`` began a block with ``text``."""
        self._block, self._text = "system", text

    def drop(self) -> None:
        """Forget what is not complete."""
        self._block, self._text = None, ""

    def feed(self, typed: str) -> list[Entry]:
        """What ``typed`` completes. With line breaks in it, it was pasted: one message."""
        *pasted, last = typed.split("\n")
        entries: list[Entry] = []
        for line in pasted:
            if not self._feed_block(line, entries):
                self._text += f"{line}\n"
        if self._feed_block(last, entries):
            return entries
        if last.startswith("/") and not self._text:
            entries.append(Command(last))
        else:
            self._text += last
            self._complete(entries)
        return entries

    def _feed_block(self, line: str, entries: list[Entry]) -> bool:
        """Whether ``line`` is part of a block, or begins one."""
        if self._block is None:
            if not line.startswith(QUOTES):
                return False
            line = line.removeprefix(QUOTES)
            self._block = "message"
        if line.endswith(QUOTES):
            self._text += line.removesuffix(QUOTES)
            self._complete(entries)
        else:
            self._text += f"{line}\n"
        return True

    def _complete(self, entries: list[Entry]) -> None:
        if self._block == "system":
            entries.append(SystemMessage(self._text))
        elif self._text:
            entries.append(Message(self._text))
        self.drop()
