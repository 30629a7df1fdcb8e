"""Makes GGUF files: fresh ones, changed copies, and one of many parts (8, 9.3).

Every function here returns an ``Output``, a recipe of bytes and of ranges of other files, whose
``chunks`` the caller writes wherever they belong, hashing, counting or giving up on the way.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from ollamad.errors import quoted
from ollamad.gguf import names
from ollamad.gguf.encoding import Writable, encode_key, encode_string
from ollamad.gguf.errors import GGUFError, unexpected_end_of_file
from ollamad.gguf.file import GGUFFile, KeyRecord
from ollamad.gguf.reader import DEFAULT_ALIGNMENT, MAGIC, MAX_ALIGNMENT
from ollamad.gguf.validate import refuse_big_endian
from ollamad.gguf.values import Span
from ollamad.gguf.weights import block_number

VERSION = 3

_CHUNK = 1 << 20

#: Keys that are written as they are; all others belong to the architecture (8.1 rule 3).
_FOREIGN_PREFIXES = (
    "general.",
    "adapter.",
    "tokenizer.",
    "split.",
    "clip.",
    "quantize.",
    "imatrix.",
)
#: What the parts of a split file say about themselves.
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


class Made(Protocol):
    """Bytes that are computed while they are written; ``size`` says how many before that."""

    @property
    def size(self) -> int: ...

    def blocks(self) -> Iterator[bytes]: ...


#: What a file is put together from.
Piece = bytes | Span | Made


class Tensor(msgspec.Struct, frozen=True):
    """A tensor to write. ``shape`` has the fastest dimension first."""

    name: str
    type_id: int
    shape: tuple[int, ...]
    data: Piece


class Output(msgspec.Struct, frozen=True):
    """A file that can be written: its size in bytes, and where its tensor data starts."""

    pieces: tuple[Piece, ...]
    data_offset: int
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes in order, a megabyte or more at a time save the last.

        Raises GGUFError if a source got shorter or unreadable.
        """
        pending: list[bytes] = []
        count = 0
        for piece in self.pieces:
            for block in _blocks(piece):
                pending.append(block)
                count += len(block)
                if count >= _CHUNK:
                    yield b"".join(pending)
                    pending, count = [], 0
        if pending:
            yield b"".join(pending)


def write_gguf(
    target: Path | BinaryIO, metadata: Mapping[str, Writable], tensors: Iterable[Tensor] = ()
) -> int:
    """Write a fresh file and return its size; see ``fresh``. A path's file is replaced in place."""
    output = fresh(metadata, tensors)
    if isinstance(target, Path):
        with target.open("wb") as file:
            file.writelines(output.chunks())
    else:
        for chunk in output.chunks():
            target.write(chunk)
    return output.size


def fresh(metadata: Mapping[str, Writable], tensors: Iterable[Tensor] = ()) -> Output:
    """A file from scratch (8.1): the architecture first, then keys sorted, then tensors by block.

    Keys of no known prefix get the architecture's. Raises GGUFError ``architecture not set``, and
    for values and tensors that cannot be.
    """
    arch = metadata.get("general.architecture")
    if not isinstance(arch, str) or not arch:
        raise GGUFError("architecture not set")
    prefixes = (f"{arch}.", *_FOREIGN_PREFIXES)
    keys = {
        key if key.startswith(prefixes) else f"{arch}.{key}": value
        for key, value in metadata.items()
    }
    order = sorted(keys, key=lambda key: (key != "general.architecture", key))
    alignment = keys.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int):
        raise GGUFError("improper type for 'general.alignment'")
    return laid_out([encode_key(key, keys[key]) for key in order], _by_block(tensors), alignment)


def rewritten(
    base: GGUFFile,
    *,
    drop: Collection[str] = (),
    add: Mapping[str, Writable] | None = None,
    rename: Mapping[str, str] | None = None,
    tensors: Iterable[Tensor] | None = None,
) -> Output:
    """A copy of ``base`` without the keys in ``drop`` and with those in ``add`` at the end (8.2).

    Every other key keeps its place, type and bytes, and its name unless ``rename`` has another.
    ``tensors`` None: those of ``base``. The copy refers to ``base``, which must stay open. Raises
    GGUFError, also for a big-endian ``base``.
    """
    refuse_big_endian(base)
    added = add or {}
    # A stored parameter count would be wrong for other tensors, and readers compute it anyway.
    dropped = {"general.parameter_count", *drop, *added}
    renamed = rename or {}
    keys: list[Piece] = [
        _renamed(base, record, renamed[key])
        if key in renamed
        else Span(base.source, record.start, record.end)
        for key, record in base.metadata.records.items()
        if key not in dropped
    ]
    keys.extend(encode_key(key, value) for key, value in added.items())
    chosen = tensors_of(base) if tensors is None else list(tensors)
    return laid_out(keys, chosen, base.alignment)


def merged(parts: Sequence[GGUFFile]) -> Output:
    """One file of all parts of a split one, in part order (9.3). The parts must stay open.

    Keys and alignment are those of the first. Raises GGUFError ``duplicate tensor "T"``.
    """
    first = parts[0]
    tensors: dict[str, Tensor] = {}
    for part in parts:
        refuse_big_endian(part)
        for tensor in tensors_of(part):
            if tensor.name in tensors:
                raise GGUFError(f"duplicate tensor {quoted(tensor.name)}")
            tensors[tensor.name] = tensor
    return rewritten(first, drop=split_keys(first), tensors=tensors.values())


def split_keys(file: GGUFFile) -> frozenset[str]:
    """What a part of a split file says of that, and the merged one does not, as written or below
    the architecture (9.1)."""
    return frozenset(name for key in SPLIT_KEYS for name in (key, file.full_key(key)))


def tensors_of(file: GGUFFile) -> list[Tensor]:
    """The tensors of a file, their data still in it."""
    tensors = []
    for info in file.tensors:
        start = file.tensor_start(info)
        data = Span(file.source, start, start + info.nbytes)
        tensors.append(Tensor(info.name, info.type_id, info.shape, data))
    return tensors


class _Joined(msgspec.Struct, frozen=True):
    """A key whose name is new and whose type and value are those of a file."""

    name: bytes
    rest: Span

    @property
    def size(self) -> int:
        return len(self.name) + _length(self.rest)

    def blocks(self) -> Iterator[bytes]:
        yield self.name
        yield from _blocks(self.rest)


def _renamed(base: GGUFFile, record: KeyRecord, name: str) -> _Joined:
    length = int.from_bytes(Span(base.source, record.start, record.start + 8).read(), "little")
    rest = Span(base.source, record.start + 8 + length, record.end)
    return _Joined(encode_string(name), rest)


# --- layout ---------------------------------------------------------------------------------------


def _by_block(tensors: Iterable[Tensor]) -> list[Tensor]:
    """By (block, name), those outside of blocks last; 2 comes before 10."""

    def place(tensor: Tensor) -> tuple[bool, int, str]:
        block = block_number(tensor.name)
        return (block is None, block or 0, tensor.name)

    return sorted(tensors, key=place)


def laid_out(keys: Sequence[Piece], tensors: Sequence[Tensor], alignment: int) -> Output:
    """A file of encoded keys and of tensors, both in this order.

    Each of ``keys`` is one whole key. Raises GGUFError for tensors that cannot be.
    """
    if not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise GGUFError(f"invalid GGUF alignment: {alignment}")
    pieces: list[Piece] = [MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(keys))]
    pieces.extend(keys)
    data: list[Piece] = []
    offset = 0
    for tensor in tensors:
        size = _size(tensor)
        padding = -offset % alignment
        if padding:
            data.append(bytes(padding))
        offset += padding
        pieces.append(
            encode_string(tensor.name)
            + struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            + struct.pack("<IQ", tensor.type_id, offset)
        )
        data.append(tensor.data)
        offset += size
    header = sum(_length(piece) for piece in pieces)
    padding = -header % alignment if tensors else 0
    data_offset = header + padding
    return Output((*pieces, bytes(padding), *data), data_offset, data_offset + offset)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor's data, which must be what its type and shape say."""
    size = names.tensor_nbytes(tensor.type_id, tensor.shape)
    if size is None:
        raise GGUFError(f"tensor {quoted(tensor.name)} size overflow")
    if size != _length(tensor.data):
        raise GGUFError(
            f"tensor {quoted(tensor.name)} has {_length(tensor.data)} bytes, expected {size}"
        )
    return size


def _length(piece: Piece) -> int:
    if isinstance(piece, Span):
        return piece.end - piece.start
    return len(piece) if isinstance(piece, bytes) else piece.size


def _blocks(piece: Piece) -> Iterator[bytes]:
    if isinstance(piece, bytes):
        yield piece
        return
    if not isinstance(piece, Span):
        yield from piece.blocks()
        return
    at = piece.start
    while at < piece.end:
        block = piece.source.read(min(_CHUNK, piece.end - at), at)
        if not block:
            raise unexpected_end_of_file()
        yield block
        at += len(block)
