"""Metadata values: their types in the file, and arrays that are only read when asked for."""

from __future__ import annotations

import enum
import re
import struct
from typing import Protocol

import msgspec

from ollamad.gguf.errors import unexpected_end_of_file


class ValueType(enum.IntEnum):
    """The type ids of 6.2."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


#: ``struct`` codes of the types of fixed size. A bool is read as a byte: any non-zero one is true.
FORMATS: dict[int, str] = {
    ValueType.U8: "B",
    ValueType.I8: "b",
    ValueType.U16: "H",
    ValueType.I16: "h",
    ValueType.U32: "I",
    ValueType.I32: "i",
    ValueType.F32: "f",
    ValueType.BOOL: "B",
    ValueType.U64: "Q",
    ValueType.I64: "q",
    ValueType.F64: "d",
}
INTEGER_TYPES = frozenset(
    {
        ValueType.U8,
        ValueType.I8,
        ValueType.U16,
        ValueType.I16,
        ValueType.U32,
        ValueType.I32,
        ValueType.U64,
        ValueType.I64,
    }
)
FLOAT_TYPES = frozenset({ValueType.F32, ValueType.F64})


def fixed_size(type_id: int) -> int:
    """Bytes of one value of a type of fixed size."""
    return struct.calcsize("<" + FORMATS[type_id])


_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def text(raw: bytes) -> str:
    """``raw`` as text; each byte that is not UTF-8 becomes its own U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        # "replace" would make one mark of several bytes.
        return _ESCAPED_BYTE.sub("\ufffd", raw.decode("utf-8", "surrogateescape"))


class Source(Protocol):
    """Where the bytes of a file come from."""

    @property
    def size(self) -> int: ...

    def read(self, count: int, offset: int) -> bytes:
        """Up to ``count`` bytes at ``offset``; fewer only at the end of the file."""
        ...


class Span(msgspec.Struct, frozen=True):
    """A piece of a file, [start, end)."""

    source: Source
    start: int
    end: int

    def read(self) -> bytes:
        """All its bytes. Raises GGUFError if the file got shorter meanwhile."""
        raw = self.source.read(self.end - self.start, self.start)
        if len(raw) != self.end - self.start:
            raise unexpected_end_of_file()
        return raw


Scalar = int | float | bool | str


class Array(msgspec.Struct, frozen=True):
    """An array in the file. ``element_type`` is never ARRAY, ``span`` holds the elements.

    ``order`` is ``<`` or ``>``, the byte order.
    """

    element_type: ValueType
    count: int
    span: Span
    order: str

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of the elements in the file."""
        return self.span.end - self.span.start

    def read(self) -> list[Scalar]:
        """The elements. Reads the file; costs memory in proportion to ``count``."""
        raw = self.span.read()
        if self.element_type is ValueType.STRING:
            return [text(item) for item in self._split(raw)]
        values = struct.unpack(f"{self.order}{self.count}{FORMATS[self.element_type]}", raw)
        if self.element_type is ValueType.BOOL:
            return [value != 0 for value in values]
        return list(values)

    def read_bytes(self) -> bytes:
        """The elements as they are in the file."""
        return self.span.read()

    def read_raw_strings(self) -> list[bytes]:
        """The elements of an array of strings, undecoded: vocabularies are often not UTF-8."""
        if self.element_type is not ValueType.STRING:
            raise TypeError("not an array of strings")
        return self._split(self.span.read())

    def _split(self, raw: bytes) -> list[bytes]:
        length_at = struct.Struct(self.order + "Q").unpack_from
        strings: list[bytes] = []
        at = 0
        # The reader walked the same lengths; they can only differ if the file was changed since.
        for _ in range(self.count):
            if at + 8 > len(raw):
                raise unexpected_end_of_file()
            (length,) = length_at(raw, at)
            at += 8 + length
            if at > len(raw):
                raise unexpected_end_of_file()
            strings.append(raw[at - length : at])
        return strings


Value = Scalar | Array
