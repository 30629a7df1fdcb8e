"""How many columns of a terminal a text takes. Pure."""

from __future__ import annotations

import unicodedata


def width(text: str) -> int:
    """Columns of ``text`` printed on one line: two for East Asian wide characters."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(map(character_width, text))


def character_width(character: str) -> int:
    """0 for controls and for marks that join the character before, 2 for wide ones, else 1."""
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Cc", "Cf", "Mn", "Me") else 1
