"""How many columns of a terminal a text takes, and texts that a terminal only shows. Pure."""

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


def clipped(text: str, columns: int) -> str:
    """As much of the start of ``text`` as ``columns`` can hold."""
    if width(text) <= columns:
        return text
    taken = 0
    for index, character in enumerate(text):
        taken += character_width(character)
        if taken > columns:
            return text[:index]
    return text


def harmless(text: str, keep: str = "\n\t") -> str:
    """``text`` with its control characters, but those in ``keep``, spelled out.

    What registries and servers say is shown to the user; it shall not steer the terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        f"\\x{ord(c):02x}" if unicodedata.category(c) == "Cc" and c not in keep else c for c in text
    )
