"""Where a file's bytes are: per block, in the projector, at both ends of the model."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from ollamad.gguf import names
from ollamad.gguf.file import GGUFFile, TensorInfo

#: Tensors of what is not the language model itself: audio, projectors, drafts, vision.
EMBEDDED_PREFIXES = ("a.", "mm.", "mtp.", "s.", "v.")
#: Those of them that a projector is made of (``runners-and-scheduling.md`` 2.2).
PROJECTOR_PREFIXES = ("a.", "mm.", "v.")
#: Tensors that llama.cpp looks tokens up in, which it does in main memory.
_INPUTS = frozenset(
    ("token_embd", "position_embd", "token_types", "per_layer_token_embd", "masked_embd")
)


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of tensor data. ``prefixes``: those of EMBEDDED_PREFIXES that some tensor has.

    ``layer_bytes``: per block (``blk.N.``), in order. ``total_bytes`` is the sum of all.
    ``input_bytes``: the part of ``other_bytes`` that tokens are looked up in. ``largest_bytes``: of
    the largest tensor in a block. ``embedding_bytes``: of the tokens' embeddings, which are the
    output's weights, too, unless it ``has_output``. ``samples``: of every kind of tensor in blocks
    the first one, by its name without the block (``ffn_up.weight``).
    """

    prefixes: frozenset[str]
    layer_bytes: tuple[int, ...]
    projector_bytes: int
    other_bytes: int
    total_bytes: int
    input_bytes: int
    largest_bytes: int
    embedding_bytes: int
    has_output: bool
    samples: dict[str, TensorInfo]


def weights_of(file: GGUFFile, block_count: int) -> Weights:
    """How the bytes of ``file`` spread over ``block_count`` blocks and the rest."""
    sizes = _sizes(file)
    layers = [0] * block_count
    prefixes: set[str] = set()
    samples: dict[str, TensorInfo] = {}
    projector = other = inputs = largest = embedding = 0
    has_output = False
    for tensor, nbytes in zip(file.tensors, sizes, strict=True):
        start, dot, rest = tensor.name.partition(".")
        if start == "blk":
            number, point, kind = rest.partition(".")
            if kind not in samples:
                samples[kind] = tensor
            largest = max(largest, nbytes)
            block = _number(number) if point else None
            if block is not None and block < block_count:
                layers[block] += nbytes
            else:
                other += nbytes
            continue
        prefix = start + dot
        if prefix in EMBEDDED_PREFIXES:
            prefixes.add(prefix)
        if prefix in PROJECTOR_PREFIXES:
            projector += nbytes
            continue
        other += nbytes
        if start in _INPUTS:
            inputs += nbytes
        if start == "token_embd":
            embedding += nbytes
        elif start == "output" and rest == "weight":
            has_output = True
    return Weights(
        prefixes=frozenset(prefixes),
        layer_bytes=tuple(layers),
        projector_bytes=projector,
        other_bytes=other,
        total_bytes=sum(sizes),
        input_bytes=inputs,
        largest_bytes=largest,
        embedding_bytes=embedding,
        has_output=has_output,
        samples=samples,
    )


def has_embedded_tensors(file: GGUFFile) -> bool:
    """Whether some tensor belongs to an embedded encoder, projector or draft (4.6 rule 1)."""
    return any(tensor.name.startswith(EMBEDDED_PREFIXES) for tensor in file.tensors)


def block_number(name: str) -> int | None:
    """N of ``blk.N.…``."""
    start, _, rest = name.partition(".")
    number, dot, _ = rest.partition(".")
    return _number(number) if start == "blk" and dot else None


def _number(text: str) -> int | None:
    return int(text) if len(text) <= 9 and text.isascii() and text.isdigit() else None


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
