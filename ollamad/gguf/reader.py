"""Opens a GGUF file: keys, tensor infos, and where the data starts (``modelfile-and-create.md`` 6).

Reads the header once, front to back. Arrays and long strings stay in the file until someone asks
for them; tensor data is never read here.
"""

from __future__ import annotations

from pathlib import Path

from ollamad.errors import quoted
from ollamad.gguf import names
from ollamad.gguf.cursor import Cursor
from ollamad.gguf.errors import GGUFError, unexpected_end_of_file
from ollamad.gguf.file import FileLike, GGUFFile, KeyRecord, Metadata, TensorInfo
from ollamad.gguf.source import BytesSource, FileSource
from ollamad.gguf.values import (
    FORMATS,
    INTEGER_TYPES,
    Array,
    Span,
    Value,
    ValueType,
    fixed_size,
    text,
)

MAGIC = b"GGUF"
SWAPPED_MAGIC = b"FUGG"

#: Limits of 6.4, beside those of ``cursor``.
MAX_ARRAY = 64 << 20
MAX_KEY_LENGTH = 65535
MAX_KEYS = 65536
MAX_TENSORS = 1 << 20
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32

#: Strings longer than this stay in the file until they are asked for.
_EAGER_STRING = 4 << 10

_SIZES = {type_id: fixed_size(type_id) for type_id in FORMATS}


def has_magic(head: bytes) -> bool:
    """Whether a file that begins with these (at least 4) bytes claims to be GGUF, of any order."""
    return head[:4] in {MAGIC, SWAPPED_MAGIC}


def open_gguf(path: Path, *, strict: bool = False) -> GGUFFile:
    """Open a file and read its header.

    ``strict``: refuse tensors of unknown types, as create does; otherwise they are listed as
    ``unknown`` and their size is not checked.

    Raises FileNotFoundError, and GGUFError with a text of 6.5.
    """
    source = FileSource(path)
    try:
        return read_source(source, strict=strict)
    except BaseException:
        source.close()
        raise


def read_bytes(data: bytes, *, strict: bool = False) -> GGUFFile:
    """The same for a file in memory. Raises GGUFError."""
    return read_source(BytesSource(data), strict=strict)


def read_source(source: FileLike, *, strict: bool = False) -> GGUFFile:
    """The same for anything that can be read at positions. Raises GGUFError."""
    cursor = Cursor(source)
    version = _read_version(cursor)
    tensor_count = cursor.u64()
    key_count = cursor.u64()
    if key_count > MAX_KEYS:
        raise GGUFError(f"GGUF key count {key_count} exceeds maximum {MAX_KEYS}")
    records, repeated = _read_keys(cursor, key_count)
    tensors, parameter_count = _read_tensor_infos(cursor, tensor_count)
    alignment = _alignment(records)
    data_offset = -(-cursor.position // alignment) * alignment
    for tensor in tensors:
        _check_extent(tensor, data_offset, source.size, strict=strict)
    return GGUFFile(
        source,
        version=version,
        big_endian=cursor.order == ">",
        metadata=Metadata(records),
        repeated_keys=repeated,
        tensors=tuple(tensors),
        parameter_count=parameter_count,
        alignment=alignment,
        data_offset=data_offset,
    )


def _read_version(cursor: Cursor) -> int:
    """Check magic and version, and set the byte order they tell."""
    magic = cursor.take(4)
    if not has_magic(magic):
        raise GGUFError("invalid file magic")
    if magic == SWAPPED_MAGIC:
        cursor.order = ">"
    version = cursor.u32()
    if cursor.order == "<" and version and not version & 0xFFFF:
        # What the usual tools write on big-endian machines: only the magic is in file order.
        cursor.order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
    if version not in {2, 3}:
        raise GGUFError(f"unsupported GGUF version {version}")
    return version


def _read_keys(cursor: Cursor, count: int) -> tuple[dict[str, KeyRecord], tuple[str, ...]]:
    """The keys by name, and those that were there more than once."""
    records: dict[str, KeyRecord] = {}
    repeated: dict[str, None] = {}
    # Each takes at least 13 bytes, so a false count ends at the end of the file.
    for _ in range(count):
        start = cursor.position
        key = text(cursor.string(MAX_KEY_LENGTH))
        type_id = cursor.u32()
        if type_id > ValueType.F64:
            raise GGUFError(f"invalid type: {type_id}")
        value = _read_value(cursor, ValueType(type_id))
        if key in records:
            repeated[key] = None
        records[key] = KeyRecord(ValueType(type_id), value, start, cursor.position)
    return records, tuple(repeated)


def _read_value(cursor: Cursor, type_id: ValueType) -> Value | Span:
    if type_id is ValueType.STRING:
        span = cursor.skip_string()
        if span.end - span.start > _EAGER_STRING:
            return span
        cursor.position = span.start
        return text(cursor.take(span.end - span.start))
    if type_id is ValueType.ARRAY:
        return _read_array(cursor)
    value = cursor.scalar(FORMATS[type_id], _SIZES[type_id])
    return value != 0 if type_id is ValueType.BOOL else value


def _read_array(cursor: Cursor) -> Array:
    type_id = cursor.u32()
    if type_id > ValueType.F64 or type_id == ValueType.ARRAY:
        raise GGUFError(f"invalid array type: {type_id}")
    element_type = ValueType(type_id)
    count = cursor.u64()
    if count > MAX_ARRAY:
        raise GGUFError(f"GGUF array size {count} exceeds maximum {MAX_ARRAY}")
    if element_type is ValueType.STRING:
        if 8 * count > cursor.left:
            raise unexpected_end_of_file()
        span = cursor.skip_strings(count)
    else:
        span = cursor.skip(count * _SIZES[element_type])
    return Array(element_type, count, span, cursor.order)


def _read_tensor_infos(cursor: Cursor, count: int) -> tuple[list[TensorInfo], int]:
    """The tensor infos and the sum of their elements."""
    tensors: list[TensorInfo] = []
    elements = 0
    if count > MAX_TENSORS and cursor.left:
        raise GGUFError(f"GGUF tensor count {count} exceeds maximum {MAX_TENSORS}")
    # Each takes at least 24 bytes, so a false count ends at the end of the file.
    for _ in range(count):
        field = "name"
        try:
            name = text(cursor.string())
            field = "dimensions"
            dimensions = cursor.u32()
            if dimensions <= MAX_DIMENSIONS:
                field = "shape"
                shape = cursor.u64s(dimensions)
                field = "kind"
                type_id = cursor.u32()
                field = "offset"
                offset = cursor.u64()
        except GGUFError as error:
            raise GGUFError(f"failed to read tensor {field}: {error.message}") from error
        if dimensions > MAX_DIMENSIONS:
            raise GGUFError(
                f"tensor {quoted(name)} dimensions {dimensions} exceeds maximum {MAX_DIMENSIONS}"
            )
        tensor = TensorInfo(name, type_id, shape, offset)
        if tensor.n_elements > names.U64_MAX:
            raise GGUFError(f"tensor {quoted(name)} elements overflow")
        elements += tensor.n_elements
        if elements > names.U64_MAX:
            raise GGUFError("parameter count overflow")
        tensors.append(tensor)
    return tensors, elements


def _alignment(records: dict[str, KeyRecord]) -> int:
    record = records.get("general.alignment")
    if record is None or not isinstance(record.value, int) or record.type_id not in INTEGER_TYPES:
        return DEFAULT_ALIGNMENT
    alignment = record.value
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise GGUFError(f"invalid GGUF alignment: {alignment}")
    return alignment


def _check_extent(tensor: TensorInfo, data_offset: int, file_size: int, *, strict: bool) -> None:
    """Size, end, and end beyond the file, in that order."""
    nbytes = names.tensor_nbytes(tensor.type_id, tensor.shape)
    if nbytes is None:
        if tensor.type_id not in names.TENSOR_TYPES and not strict:
            return
        raise GGUFError(f"tensor {quoted(tensor.name)} size overflow")
    end = data_offset + tensor.offset + nbytes
    if end > names.U64_MAX:
        raise GGUFError(f"tensor {quoted(tensor.name)} offset+size overflows")
    if end > file_size:
        raise GGUFError(
            f"tensor {quoted(tensor.name)} offset+size ({end}) exceeds file size ({file_size})"
        )
