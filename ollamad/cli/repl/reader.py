"""Reading a line with the editing keys of the standard library's readline (``cli.md`` 6.9)."""

from __future__ import annotations

import sys
from typing import Protocol

from ollamad.cli.repl.history import History

try:
    import readline
except ImportError:  # not everywhere
    readline = None  # type: ignore[assignment]


class Reader(Protocol):
    """Asks the user for a line. A line with line breaks was pasted."""

    def read(self, prompt: str) -> str:
        """Raises EOFError at the end of input, KeyboardInterrupt for Ctrl-C."""
        ...


class TerminalReader:
    """Lines from the terminal, with what was typed before at hand."""

    def __init__(self, history: History) -> None:
        self._history = history
        if readline is not None:
            readline.clear_history()
            readline.set_auto_history(False)
            if "libedit" not in (readline.__doc__ or ""):
                # A paste arrives as one text, and its line ends send nothing.
                readline.parse_and_bind("set enable-bracketed-paste on")
                readline.parse_and_bind('"\\t": "        "')
            for entry in history.entries:
                readline.add_history(entry)

    def read(self, prompt: str) -> str:
        line = input(prompt)
        # readline gives bytes that are no UTF-8 as surrogates; JSON cannot carry them.
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        line = line.replace("\r\n", "\n").replace("\r", "\n")
        if line:
            if readline is not None:
                readline.add_history(line)
            try:
                self._history.add(line)
            except OSError as error:
                self._history.saved = False
                print(f"warning: cannot save the history: {error}", file=sys.stderr)
        return line
