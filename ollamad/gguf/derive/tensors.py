"""Tensors on their way into another file: renamed, or as F32 (2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from ollamad.errors import quoted
from ollamad.gguf import names
from ollamad.gguf.errors import GGUFError, unexpected_end_of_file
from ollamad.gguf.values import Span
from ollamad.gguf.writer import Tensor

F32 = names.TENSOR_TYPE_IDS["F32"]
_F16 = names.TENSOR_TYPE_IDS["F16"]
_BF16 = names.TENSOR_TYPE_IDS["BF16"]

_CHUNK = 1 << 20


class AsF32(msgspec.Struct, frozen=True):
    """F16 or BF16 data that is written as F32, a megabyte at a time."""

    source: Span
    type_id: int

    @property
    def size(self) -> int:
        return 2 * (self.source.end - self.source.start)

    def blocks(self) -> Iterator[bytes]:
        """Raises GGUFError when the file got shorter meanwhile."""
        convert = _f16 if self.type_id == _F16 else _bf16
        at = self.source.start
        while at < self.source.end:
            raw = self.source.source.read(min(_CHUNK, self.source.end - at), at)
            if not raw or len(raw) % 2:
                raise unexpected_end_of_file()
            yield convert(raw)
            at += len(raw)


def _f16(raw: bytes) -> bytes:
    count = len(raw) // 2
    return struct.pack(f"<{count}f", *struct.unpack(f"<{count}e", raw))


def _bf16(raw: bytes) -> bytes:
    """BF16 is the upper half of F32."""
    out = bytearray(2 * len(raw))
    out[2::4] = raw[0::2]
    out[3::4] = raw[1::2]
    return bytes(out)


def as_f32(tensor: Tensor) -> Tensor:
    """The same numbers as F32. Raises GGUFError for quantised ones."""
    if tensor.type_id == F32:
        return tensor
    if tensor.type_id not in (_F16, _BF16) or not isinstance(tensor.data, Span):
        kind = names.tensor_type_name(tensor.type_id)
        raise GGUFError(f"tensor {quoted(tensor.name)} of type {kind} cannot be converted to F32")
    return msgspec.structs.replace(tensor, type_id=F32, data=AsF32(tensor.data, tensor.type_id))


def with_small_ones_as_f32(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Biases and norms as F32: several backends add and multiply no others (2.1)."""
    return tuple(as_f32(t) if _is_small(t) and t.type_id in (_F16, _BF16) else t for t in tensors)


def _is_small(tensor: Tensor) -> bool:
    return tensor.name.endswith(".bias") or (len(tensor.shape) == 1 and "norm" in tensor.name)


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> str:
    """``name`` after each rule in turn, which replaces the first of its left side by its right."""
    for old, new in rules:
        name = name.replace(old, new, 1)
    return name
