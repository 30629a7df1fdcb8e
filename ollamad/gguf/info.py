"""What ``show`` tells of a file: keys, tensors (``modelfile-and-create.md`` 7.2)."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from ollamad import wire
from ollamad.gguf.file import GGUFFile, KeyRecord
from ollamad.gguf.values import Array, Value, ValueType
from ollamad.gguf.writer import split_keys

_HIDDEN = frozenset({"general.name", "tokenizer.chat_template"})

#: What a verbose answer spells out of one file; vocabularies have a few million bytes. Arrays
#: beyond it stay ``null``, or one header could make an answer of gigabytes.
VERBOSE_BYTES = 64 << 20
VERBOSE_ELEMENTS = 4 << 20

_F32 = struct.Struct("<f")
_SMALLEST_NORMAL = 2.0**-126


def model_info(file: GGUFFile, verbose: bool, *, whole: bool = True) -> dict[str, Any]:
    """All keys but the name and the chat template, sorted, and the computed parameter count.

    Not ``whole``: the file is the first of a split model, whose parts speak of that in keys of
    their own, which the whole has not (9.3). Not ``verbose``: arrays are None unless empty. Floats
    have the shortest digits that read back as what is stored. Raises GGUFError if the file gets
    unreadable meanwhile.
    """
    hidden = _HIDDEN if whole else _HIDDEN | split_keys(file)
    return _info(file, verbose, hidden)


def projector_info(file: GGUFFile, verbose: bool) -> dict[str, Any]:
    """The same for a projector, where nothing is left out."""
    return _info(file, verbose, frozenset())


def tensor_infos(file: GGUFFile) -> list[wire.TensorInfo]:
    """One entry a tensor, in file order; shapes have the fastest dimension first."""
    return [
        wire.TensorInfo(name=tensor.name, type=tensor.type_name, shape=list(tensor.shape))
        for tensor in file.tensors
    ]


def shortest_float32(value: float) -> float:
    """The double with the fewest decimal digits among those that round to this float32: 0.1."""
    if value.is_integer() and abs(value) < 2**24:
        return value
    # Six digits always survive a normal float32, so that fewer are found among those as well.
    for digits in range(1 if abs(value) < _SMALLEST_NORMAL else 6, 9):
        candidate = float(f"{value:.{digits}g}")
        try:
            if _F32.unpack(_F32.pack(candidate))[0] == value:
                return candidate
        except OverflowError:  # rounded up beyond the largest float32
            continue
    return float(f"{value:.9g}")


def _info(file: GGUFFile, verbose: bool, hidden: frozenset[str]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    budget = _Budget() if verbose else None
    for key, record in file.metadata.records.items():
        if key not in hidden:
            info[key] = _shown(record, file.metadata[key], budget)
    info["general.parameter_count"] = file.parameter_count
    return dict(sorted(info.items()))


class _Budget:
    """How much of arrays may still be spelled out."""

    def __init__(self) -> None:
        self.nbytes = VERBOSE_BYTES
        self.elements = VERBOSE_ELEMENTS

    def take(self, array: Array) -> bool:
        elements = 0 if array.element_type is ValueType.U8 else len(array)
        if array.nbytes > self.nbytes or elements > self.elements:
            return False
        self.nbytes -= array.nbytes
        self.elements -= elements
        return True


def _shown(record: KeyRecord, value: Value, budget: _Budget | None) -> Any:
    if isinstance(value, Array):
        return _shown_array(value, budget)
    if isinstance(value, float):
        return _shown_float(value, record.type_id)
    return value


def _shown_float(value: float, type_id: ValueType) -> float | None:
    if not math.isfinite(value):
        return None
    return shortest_float32(value) if type_id is ValueType.F32 else value


def _shown_array(array: Array, budget: _Budget | None) -> Any:
    if not len(array):
        return []
    if budget is None or not budget.take(array):
        return None
    if array.element_type is ValueType.U8:
        return base64.b64encode(array.read_bytes()).decode()
    elements = array.read()
    if array.element_type in {ValueType.F32, ValueType.F64}:
        return [_shown_float(float(item), array.element_type) for item in elements]
    return elements
