"""GGUF files byte by byte, sound or broken, without the writer that is under test."""

from __future__ import annotations

import struct
from collections.abc import Sequence

ARCH = ("general.architecture", 8, "llama")

#: Type ids by name.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)

_CODES = dict(enumerate("BbHhIif?")) | {U64: "Q", I64: "q", F64: "d"}

Key = tuple[str, int, object]
#: name, shape, type id, offset
Info = tuple[str, Sequence[int], int, int]


def string(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw)) + raw


def value(type_id: int, content: object, order: str = "<") -> bytes:
    """The bytes of a value; of an array ``content`` is (element type, list)."""
    if isinstance(content, bytes) and type_id != STRING:
        return content  # as it is: for values that no Python object stands for
    if type_id == STRING:
        assert isinstance(content, str | bytes)
        return string(content, order)
    if type_id == ARRAY:
        assert isinstance(content, tuple)
        element_type, elements = content
        head = struct.pack(order + "IQ", element_type, len(elements))
        return head + b"".join(value(element_type, element, order) for element in elements)
    return struct.pack(order + _CODES[type_id], content)


def key(name: str, type_id: int, content: object, order: str = "<") -> bytes:
    return string(name, order) + struct.pack(order + "I", type_id) + value(type_id, content, order)


def info(name: str, shape: Sequence[int], type_id: int, offset: int, order: str = "<") -> bytes:
    return (
        string(name, order)
        + struct.pack(f"{order}I{len(shape)}Q", len(shape), *shape)
        + struct.pack(order + "IQ", type_id, offset)
    )


def header(
    keys: Sequence[Key] = (ARCH,),
    infos: Sequence[Info] = (),
    *,
    version: int = 3,
    magic: bytes = b"GGUF",
    key_count: int | None = None,
    tensor_count: int | None = None,
    order: str = "<",
) -> bytes:
    """A header; the counts are those of ``keys`` and ``infos`` unless they are to be false."""
    counts = (
        len(infos) if tensor_count is None else tensor_count,
        len(keys) if key_count is None else key_count,
    )
    return (
        magic
        + struct.pack(order + "IQQ", version, *counts)
        + b"".join(key(*item, order) for item in keys)
        + b"".join(info(*item, order) for item in infos)
    )


def padded(head: bytes, data: int | bytes = 0, alignment: int = 32) -> bytes:
    """A header, the padding to the data, and ``data`` (or so many zero bytes)."""
    return head + bytes(-len(head) % alignment) + (bytes(data) if isinstance(data, int) else data)
