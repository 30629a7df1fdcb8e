"""An opened GGUF file: its keys, its tensor infos, and typed access to them (6.7)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Protocol, TypeVar, overload

import msgspec

from ollamad.gguf import names
from ollamad.gguf.values import (
    FLOAT_TYPES,
    INTEGER_TYPES,
    Array,
    Source,
    Span,
    Value,
    ValueType,
    text,
)

T = TypeVar("T")

#: More elements than any list of one number a layer has.
_MOST_INTS = 65536


class TensorInfo(msgspec.Struct, frozen=True, gc=False):
    """One tensor. ``shape`` has the fastest dimension first; ``offset`` is from the data start."""

    name: str
    type_id: int
    shape: tuple[int, ...]
    offset: int

    @property
    def type_name(self) -> str:
        """``F16``, ``Q4_K`` …, ``unknown`` for a type that we do not know."""
        return names.tensor_type_name(self.type_id)

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data; 0 if the type is unknown."""
        return names.tensor_nbytes(self.type_id, self.shape) or 0


class KeyRecord(msgspec.Struct, frozen=True):
    """One key as the file has it: its type, its value (or where that is), all its bytes."""

    type_id: ValueType
    value: Value | Span
    start: int
    end: int


class Metadata(Mapping[str, Value]):
    """The keys in file order; of a repeated one the last. Arrays and long strings are lazy."""

    def __init__(self, records: dict[str, KeyRecord]) -> None:
        self.records = records

    def __getitem__(self, key: str) -> Value:
        value = self.records[key].value
        return text(value.read()) if isinstance(value, Span) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __contains__(self, key: object) -> bool:
        return key in self.records


class FileLike(Source, Protocol):
    """A source that holds something open."""

    def close(self) -> None: ...


class GGUFFile:
    """A file whose header was read. All sizes and offsets in bytes.

    ``data_offset``: where tensor data starts. ``parameter_count``: elements over all tensors.
    ``repeated_keys``: keys that the file has more than once. The file stays open until ``close``,
    the end of a ``with`` block, or until nothing refers to it.
    """

    def __init__(
        self,
        source: FileLike,
        *,
        version: int,
        big_endian: bool,
        metadata: Metadata,
        repeated_keys: tuple[str, ...],
        tensors: tuple[TensorInfo, ...],
        parameter_count: int,
        alignment: int,
        data_offset: int,
    ) -> None:
        self.source = source
        self.size = source.size
        self.version = version
        self.big_endian = big_endian
        self.metadata = metadata
        self.repeated_keys = repeated_keys
        self.tensors = tensors
        self.parameter_count = parameter_count
        self.alignment = alignment
        self.data_offset = data_offset
        arch = metadata.get("general.architecture")
        #: ``general.architecture``, or ``unknown`` when it is absent or no string.
        self.arch = arch if isinstance(arch, str) and arch else names.UNKNOWN

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays and long strings can no longer be read."""
        self.source.close()

    def full_key(self, key: str) -> str:
        """The key under which ``key`` is stored: ``A.key`` unless it is general or tokenizer's."""
        if key.startswith(("general.", "tokenizer.")):
            return key
        return f"{self.arch}.{key}"

    def has(self, key: str) -> bool:
        """Whether the key is there, with any value."""
        return self.full_key(key) in self.metadata

    @overload
    def get_str(self, key: str) -> str | None: ...
    @overload
    def get_str(self, key: str, default: T) -> str | T: ...
    def get_str(self, key: str, default: T | None = None) -> str | T | None:
        value = self._typed(key, {ValueType.STRING})
        return value if isinstance(value, str) else default

    @overload
    def get_int(self, key: str) -> int | None: ...
    @overload
    def get_int(self, key: str, default: T) -> int | T: ...
    def get_int(self, key: str, default: T | None = None) -> int | T | None:
        """An integer of any type; a negative one counts as absent (6.7)."""
        value = self._typed(key, INTEGER_TYPES)
        return value if isinstance(value, int) and value >= 0 else default

    @overload
    def get_float(self, key: str) -> float | None: ...
    @overload
    def get_float(self, key: str, default: T) -> float | T: ...
    def get_float(self, key: str, default: T | None = None) -> float | T | None:
        value = self._typed(key, FLOAT_TYPES)
        return value if isinstance(value, float) else default

    @overload
    def get_bool(self, key: str) -> bool | None: ...
    @overload
    def get_bool(self, key: str, default: T) -> bool | T: ...
    def get_bool(self, key: str, default: T | None = None) -> bool | T | None:
        value = self._typed(key, {ValueType.BOOL})
        return value if isinstance(value, bool) else default

    @overload
    def get_array(self, key: str) -> Array | None: ...
    @overload
    def get_array(self, key: str, default: T) -> Array | T: ...
    def get_array(self, key: str, default: T | None = None) -> Array | T | None:
        """An array, unread."""
        value = self._typed(key, {ValueType.ARRAY})
        return value if isinstance(value, Array) else default

    def get_ints(self, key: str, *, most: int = _MOST_INTS) -> tuple[int, ...]:
        """A scalar as one number, or an array of integers or booleans (6.7 rule 3).

        Empty when absent, of another type, or longer than ``most``; negative numbers become 0.
        """
        if (scalar := self.get_int(key)) is not None:
            return (scalar,)
        array = self.get_array(key)
        if array is None or len(array) > most:
            return ()
        if array.element_type not in INTEGER_TYPES | {ValueType.BOOL}:
            return ()
        return tuple(max(0, int(value)) for value in array.read())

    def tensor_start(self, tensor: TensorInfo) -> int:
        """Where in the file the data of a tensor begins."""
        return self.data_offset + tensor.offset

    def _typed(self, key: str, types: set[ValueType] | frozenset[ValueType]) -> Value | None:
        name = self.full_key(key)
        record = self.metadata.records.get(name)
        if record is None or record.type_id not in types:
            return None
        return self.metadata[name]
