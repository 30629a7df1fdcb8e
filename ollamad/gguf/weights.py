"""Where a file's bytes are: per block, in the projector, elsewhere."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from ollamad.gguf import names
from ollamad.gguf.file import GGUFFile

#: Tensors of what is not the language model itself: audio, projectors, drafts, vision.
EMBEDDED_PREFIXES = ("a.", "mm.", "mtp.", "s.", "v.")
#: Those of them that a projector is made of (``runners-and-scheduling.md`` 2.2).
PROJECTOR_PREFIXES = ("a.", "mm.", "v.")


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of tensor data. ``prefixes``: those of EMBEDDED_PREFIXES that some tensor has.

    ``layer_bytes``: per block (``blk.N.``), in order. ``total_bytes`` is the sum of all.
    """

    prefixes: frozenset[str]
    layer_bytes: tuple[int, ...]
    projector_bytes: int
    other_bytes: int
    total_bytes: int


def weights_of(file: GGUFFile, block_count: int) -> Weights:
    """How the bytes of ``file`` spread over ``block_count`` blocks and the rest."""
    sizes = _sizes(file)
    layers = [0] * block_count
    prefixes: set[str] = set()
    projector = other = 0
    for tensor, nbytes in zip(file.tensors, sizes, strict=True):
        prefix = tensor.name[: tensor.name.find(".") + 1]
        if prefix in EMBEDDED_PREFIXES:
            prefixes.add(prefix)
        block = block_number(tensor.name)
        if prefix in PROJECTOR_PREFIXES:
            projector += nbytes
        elif block is not None and block < block_count:
            layers[block] += nbytes
        else:
            other += nbytes
    return Weights(
        prefixes=frozenset(prefixes),
        layer_bytes=tuple(layers),
        projector_bytes=projector,
        other_bytes=other,
        total_bytes=sum(sizes),
    )


def has_embedded_tensors(file: GGUFFile) -> bool:
    """Whether some tensor belongs to an embedded encoder, projector or draft (4.6 rule 1)."""
    return any(tensor.name.startswith(EMBEDDED_PREFIXES) for tensor in file.tensors)


def block_number(name: str) -> int | None:
    """N of ``blk.N.…``."""
    start, _, rest = name.partition(".")
    number, dot, _ = rest.partition(".")
    if start == "blk" and dot and number.isascii() and number.isdigit() and len(number) <= 9:
        return int(number)
    return None


def _sizes(file: GGUFFile) -> list[int]:
    """Bytes of each tensor; of an unknown type those up to the next tensor."""
    sizes = [tensor.nbytes for tensor in file.tensors]
    if all(tensor.type_id in names.TENSOR_TYPES for tensor in file.tensors):
        return sizes
    order = sorted(range(len(sizes)), key=lambda index: file.tensors[index].offset)
    end = max(0, file.size - file.data_offset)
    starts = [min(end, file.tensors[index].offset) for index in order]
    for index, (start, following) in zip(order, pairwise([*starts, end]), strict=True):
        if file.tensors[index].type_id not in names.TENSOR_TYPES:
            sizes[index] = following - start
    return sizes
