"""Walks through a header field by field and never believes a length that the file cannot hold."""

from __future__ import annotations

import struct

from ollamad.gguf.errors import GGUFError, end_of_file, unexpected_end_of_file
from ollamad.gguf.values import Source, Span

#: Limits of 6.4.
MAX_STRING = 16 << 20
MAX_HEADER = 512 << 20

_BLOCK = 512 << 10


class Cursor:
    """A position in a file. ``position`` counts bytes from its start.

    Methods raise GGUFError ``EOF`` when the file ends where the field begins, ``unexpected EOF``
    when it ends within, and when the header gets longer than 512 MiB.
    """

    def __init__(self, source: Source, order: str = "<") -> None:
        self.source = source
        self.position = 0
        self._block = b""
        self._block_start = 0
        self.order = order

    @property
    def order(self) -> str:
        """``<`` for little-endian, ``>`` for big-endian; may be set on the way."""
        return self._order

    @order.setter
    def order(self, order: str) -> None:
        self._order = order
        self._u32 = struct.Struct(order + "I")
        self._u64 = struct.Struct(order + "Q")

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        at = self._locate(count)
        self.position += count
        return self._block[at : at + count]

    def u32(self) -> int:
        at = self._locate(4)
        self.position += 4
        value: int = self._u32.unpack_from(self._block, at)[0]
        return value

    def u64(self) -> int:
        at = self._locate(8)
        self.position += 8
        value: int = self._u64.unpack_from(self._block, at)[0]
        return value

    def u64s(self, count: int) -> tuple[int, ...]:
        at = self._locate(8 * count)
        self.position += 8 * count
        return struct.unpack_from(f"{self._order}{count}Q", self._block, at)

    def scalar(self, code: str, size: int) -> int | float:
        """One value of ``size`` bytes with the ``struct`` code ``code``."""
        at = self._locate(size)
        self.position += size
        value: int | float = struct.unpack_from(self._order + code, self._block, at)[0]
        return value

    def string(self, limit: int = MAX_STRING) -> bytes:
        """A string of at most ``limit`` bytes."""
        return self.take(self._string_length(limit))

    def skip_string(self) -> Span:
        """Where the bytes of the string are that begins here."""
        return self.skip(self._string_length(MAX_STRING))

    def skip(self, count: int) -> Span:
        """The next ``count`` bytes, unread."""
        self._check(count)
        start = self.position
        self.position += count
        return Span(self.source, start, self.position)

    def skip_strings(self, count: int) -> Span:
        """The next ``count`` strings; reads their lengths, keeps nothing."""
        start = self.position
        length_at = self._u64.unpack_from
        remaining = count
        while remaining:
            at = self._locate(8)
            block = self._block
            last = len(block) - 8
            # The hot loop of opening a model: half a million strings in a large vocabulary.
            for done in range(remaining):
                if at > last:
                    remaining -= done
                    break
                (length,) = length_at(block, at)
                if length > MAX_STRING:
                    raise _string_too_long(length, MAX_STRING)
                at += 8 + length
            else:
                remaining = 0
            end = self._block_start + at
            self._check(end - self.position)
            self.position = end
        return Span(self.source, start, self.position)

    @property
    def left(self) -> int:
        """Bytes until the end of the file."""
        return self.source.size - self.position

    def _string_length(self, limit: int) -> int:
        length = self.u64()
        if length > limit:
            raise _string_too_long(length, limit)
        return length

    def _check(self, count: int) -> None:
        if self.position + count > self.source.size:
            if self.position == self.source.size:
                raise end_of_file()
            raise unexpected_end_of_file()
        if self.position + count > MAX_HEADER:
            raise GGUFError(f"GGUF header exceeds maximum {MAX_HEADER} bytes")

    def _locate(self, count: int) -> int:
        """Index into the block in memory at which the next ``count`` bytes are."""
        at = self.position - self._block_start
        if at >= 0 and at + count <= len(self._block):
            return at
        self._check(count)
        self._block = self.source.read(max(count, _BLOCK), self.position)
        self._block_start = self.position
        if len(self._block) < count:  # the file got shorter while it was read
            raise unexpected_end_of_file()
        return 0


def _string_too_long(length: int, limit: int) -> GGUFError:
    return GGUFError(f"GGUF string length {length} exceeds maximum {limit}")
