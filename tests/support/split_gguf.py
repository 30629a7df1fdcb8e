"""Cuts a GGUF into shards, as llama.cpp's splitter does (modelfile-and-create 9.1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ollamad.gguf.encoding import Typed, Writable, encode_key
from ollamad.gguf.file import GGUFFile
from ollamad.gguf.reader import open_gguf
from ollamad.gguf.values import ValueType
from ollamad.gguf.writer import Output, laid_out, rewritten, tensors_of


def split_gguf(source: Path, folder: Path, count: int, prefix: str = "m") -> list[Path]:
    """Writes ``count`` shards of ``source`` below ``folder`` with their proper names, in order.

    The first has all keys, and the tensors are spread in their order, about as many to each.
    """
    paths = []
    with open_gguf(source) as file:
        for number in range(count):
            path = folder / f"{prefix}-{number + 1:05}-of-{count:05}.gguf"
            with path.open("wb") as target:
                target.writelines(_shard(file, number, count).chunks())
            paths.append(path)
    return paths


def _shard(file: GGUFFile, number: int, count: int) -> Output:
    tensors = tensors_of(file)
    size = -(-len(tensors) // count)
    own = tensors[number * size : (number + 1) * size]
    keys = split_keys(number, count, len(tensors))
    if number == 0:
        return rewritten(file, add=keys, tensors=own)
    return laid_out([encode_key(key, value) for key, value in keys.items()], own, file.alignment)


def split_keys(number: int, count: int, tensors: int) -> Mapping[str, Writable]:
    """What shard ``number``, from 0, says of itself; ``tensors`` is over all shards."""
    return {
        "split.no": Typed(ValueType.U16, number),
        "split.count": Typed(ValueType.U16, count),
        "split.tensors.count": Typed(ValueType.I32, tensors),
    }
