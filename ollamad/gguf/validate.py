"""Whether a runner could load a file's structure (``modelfile-and-create.md`` 4.6 rule 7)."""

from __future__ import annotations

from itertools import pairwise

from ollamad.errors import quoted
from ollamad.gguf import names
from ollamad.gguf.errors import GGUFError
from ollamad.gguf.file import GGUFFile

MAX_TENSOR_NAME = 64
_ALIGNMENT_STEP = 8


def refuse_big_endian(file: GGUFFile) -> None:
    """Raises GGUFError with status 400: such files can be shown, but no runner loads them (6.1)."""
    if file.big_endian:
        raise GGUFError("big-endian GGUF files are not supported", status=400)


def validate(file: GGUFFile) -> None:
    """Check what reading lets pass: repeated names, alignment, unknown types, overlaps.

    The architecture may be anything: whether the runner knows it shows when it loads. Raises
    GGUFError, status 400 for a big-endian file, else ``failed to validate GGUF: …``.
    """
    refuse_big_endian(file)
    why = _first_fault(file)
    if why is not None:
        raise GGUFError(f"failed to validate GGUF: {why}")


def _first_fault(file: GGUFFile) -> str | None:
    if file.repeated_keys:
        return f"duplicate key {quoted(file.repeated_keys[0])}"
    if file.alignment % _ALIGNMENT_STEP:
        return f"invalid GGUF alignment: {file.alignment}"
    seen: set[str] = set()
    for tensor in file.tensors:
        name = quoted(tensor.name)
        if tensor.name in seen:
            return f"duplicate tensor {name}"
        seen.add(tensor.name)
        if len(tensor.name.encode()) > MAX_TENSOR_NAME:
            return f"tensor name {name} exceeds maximum {MAX_TENSOR_NAME} bytes"
        if tensor.type_id not in names.TENSOR_TYPES:
            return f"tensor {name} size overflow"
        if tensor.offset % file.alignment:
            return f"tensor {name} offset {tensor.offset} is not a multiple of {file.alignment}"
    # A tensor without elements takes no place, so it overlaps nothing.
    placed = sorted((t for t in file.tensors if t.nbytes), key=lambda tensor: tensor.offset)
    for before, after in pairwise(placed):
        if before.offset + before.nbytes > after.offset:
            return f"tensors {quoted(before.name)} and {quoted(after.name)} overlap"
    return None
