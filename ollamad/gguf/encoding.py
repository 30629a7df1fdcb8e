"""Metadata values as bytes (``modelfile-and-create.md`` 6.2, 8.1 rule 4). Little-endian only."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from ollamad.gguf.errors import GGUFError
from ollamad.gguf.values import FORMATS, ValueType

_U32_MAX = 2**32 - 1
_I32_MIN = -(2**31)


class Typed(msgspec.Struct, frozen=True):
    """A scalar that is to be stored in a certain type."""

    type_id: ValueType
    value: int | float | bool | str | bytes


class TypedArray(msgspec.Struct, frozen=True):
    """An array that is to be stored with a certain element type; also for empty ones."""

    element_type: ValueType
    values: Sequence[int | float | bool | str | bytes]


class EncodedArray(msgspec.Struct, frozen=True):
    """An array whose elements are encoded already: ``data`` holds ``count`` of them."""

    element_type: ValueType
    count: int
    data: bytes


#: What can be written. Bare integers become u32 if they fit (i32 if negative, 64 bits if large),
#: floats f32, bytes a string as it is, lists an array of what their elements have in common.
Writable = (
    int
    | float
    | bool
    | str
    | bytes
    | Typed
    | TypedArray
    | EncodedArray
    | Sequence[int]
    | Sequence[float]
    | Sequence[bool]
    | Sequence[str]
    | Sequence[bytes]
)


def encode_string(value: str | bytes) -> bytes:
    """Length and bytes."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def encode_key(key: str, value: Writable) -> bytes:
    """A whole key: its name, type and value.

    Raises GGUFError ``improper type for 'K'`` for a value that its type cannot hold.
    """
    try:
        if isinstance(value, TypedArray):
            payload = _array(value)
        elif isinstance(value, EncodedArray):
            payload = _array_head(value.element_type, value.count) + value.data
        elif isinstance(value, Typed):
            payload = struct.pack("<I", value.type_id) + _scalar(value.type_id, value.value)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            payload = _array(TypedArray(_common_type(value), value))
        else:
            type_id = _natural_type(value)
            payload = struct.pack("<I", type_id) + _scalar(type_id, value)
    except (struct.error, OverflowError, TypeError, UnicodeEncodeError) as error:
        raise GGUFError(f"improper type for '{key}'") from error
    return encode_string(key) + payload


def _array_head(element_type: ValueType, count: int) -> bytes:
    return struct.pack("<IIQ", ValueType.ARRAY, element_type, count)


def _array(array: TypedArray) -> bytes:
    head = _array_head(array.element_type, len(array.values))
    if array.element_type in FORMATS and array.element_type is not ValueType.BOOL:
        return head + struct.pack(
            f"<{len(array.values)}{FORMATS[array.element_type]}", *array.values
        )
    return head + b"".join(_scalar(array.element_type, value) for value in array.values)


def _scalar(type_id: ValueType, value: int | float | bool | str | bytes) -> bytes:
    if type_id is ValueType.STRING:
        if not isinstance(value, str | bytes):
            raise TypeError(type_id)
        return encode_string(value)
    if type_id is ValueType.BOOL:
        return b"\1" if value else b"\0"
    if type_id is ValueType.ARRAY:
        raise TypeError(type_id)
    return struct.pack("<" + FORMATS[type_id], value)


def _natural_type(value: object) -> ValueType:
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        return _integer_type(value, value)
    if isinstance(value, float):
        return ValueType.F32
    if isinstance(value, str | bytes):
        return ValueType.STRING
    raise TypeError(type(value))


def _integer_type(smallest: int, largest: int) -> ValueType:
    if smallest >= 0:
        return ValueType.U32 if largest <= _U32_MAX else ValueType.U64
    if smallest >= _I32_MIN and largest < -_I32_MIN:
        return ValueType.I32
    return ValueType.I64


def _common_type(values: Sequence[object]) -> ValueType:
    """The type of a list's elements; an empty list is one of i32."""
    kinds = {_natural_type(value) for value in values}
    if not kinds:
        return ValueType.I32
    if len(kinds) == 1 and not kinds & {ValueType.U32, ValueType.I32}:
        return kinds.pop()
    integers = [value for value in values if isinstance(value, int)]
    if len(integers) == len(values) and ValueType.BOOL not in kinds:
        smallest, largest = min(integers), max(integers)
        # Arrays of token ids, types and counts are i32 everywhere; u32 only if they must be.
        if smallest >= _I32_MIN and largest < -_I32_MIN:
            return ValueType.I32
        return _integer_type(smallest, largest)
    if kinds <= {ValueType.U32, ValueType.I32, ValueType.U64, ValueType.I64, ValueType.F32}:
        return ValueType.F32
    raise TypeError("mixed array")
