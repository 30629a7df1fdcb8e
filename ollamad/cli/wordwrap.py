"""Wrapping text that is on the screen already when its line turns out too long (``cli.md`` 5.9).

Pure: text in, text with cursor movements out.
"""

from __future__ import annotations

from ollamad.cli.width import character_width, width

_MARGIN = 5
_LONGEST_WORD_MARGIN = 10
_NARROWEST = 10


class WordWrap:
    """Moves the word that meets the right margin of ``columns`` to the next line."""

    def __init__(self, columns: int) -> None:
        self._columns = columns or 80
        self._active = self._columns >= _NARROWEST
        self.reset()

    def reset(self) -> None:
        """The cursor is at the start of a line."""
        self._used = 0
        self._word = ""

    def feed(self, text: str) -> str:
        if not self._active:
            return text
        return "".join(map(self._character, text))

    def _character(self, character: str) -> str:
        if character in "\r\n":
            self.reset()
            return character
        size = character_width(character)
        out = character
        if self._used + 1 > self._columns - _MARGIN:
            word = width(self._word)
            if word > self._columns - _LONGEST_WORD_MARGIN:
                # Too long for any line: the terminal breaks it.
                self.reset()
                return character
            back = f"\x1b[{word}D" if self._word else ""
            out = f"{back}\x1b[K\n{self._word}{character}"
            self._used = word
        self._used += size
        self._word = "" if size >= 2 or character in " \t" else self._word + character
        return out
