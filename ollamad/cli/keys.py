"""Which keys the bytes of a terminal in raw mode mean. Pure."""

from __future__ import annotations

from enum import Enum

_ESCAPE = 0x1B


class Key(Enum):
    LEFT = "left"
    RIGHT = "right"
    ENTER = "enter"
    ESCAPE = "escape"
    INTERRUPT = "interrupt"
    OTHER = "other"


_SINGLE = {0x03: Key.INTERRUPT, 0x0A: Key.ENTER, 0x0D: Key.ENTER}
_FINAL = {ord("C"): Key.RIGHT, ord("D"): Key.LEFT}


class Keys:
    """Bytes in, keys out. A sequence may come in pieces."""

    def __init__(self) -> None:
        self._pending = b""

    @property
    def is_waiting(self) -> bool:
        """Whether a sequence has begun: the next bytes, or their absence, tell which key it is."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[Key]:
        data = self._pending + data
        self._pending = b""
        found = []
        position = 0
        while position < len(data):
            if data[position] != _ESCAPE:
                found.append(_SINGLE.get(data[position], Key.OTHER))
                position += 1
                continue
            end, key = _sequence(data, position)
            if key is None:
                self._pending = data[position:]
                break
            found.append(key)
            position = end
        return found

    def pause(self) -> list[Key]:
        """Nothing came for a while: a lone escape was the key itself."""
        waited, self._pending = self._pending, b""
        return [Key.ESCAPE] if waited == b"\x1b" else []


def _sequence(data: bytes, start: int) -> tuple[int, Key | None]:
    """Where the escape sequence at ``start`` ends and its key; None as the key: it goes on."""
    position = start + 1
    if position == len(data):
        return position, None
    if data[position] == ord("O"):  # cursor keys in application mode
        if position + 1 == len(data):
            return position, None
        return position + 2, _FINAL.get(data[position + 1], Key.OTHER)
    if data[position] != ord("["):
        # Escape and another key: Alt held down, or two keys.
        return (position, Key.ESCAPE) if data[position] == _ESCAPE else (position + 1, Key.OTHER)
    position += 1
    while position < len(data) and 0x20 <= data[position] <= 0x3F:
        position += 1
    if position == len(data):
        return position, None
    plain = position == start + 2
    return position + 1, _FINAL.get(data[position], Key.OTHER) if plain else Key.OTHER
