"""Split GGUFs: which files are parts of one model, and what is wrong with them (9.1, 9.2). Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ollamad.errors import OllamadError
from ollamad.store.digests import is_digest

_NAME = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)


class SplitError(OllamadError):
    """Parts that do not make one file (500; 400 for drafts and adapters)."""


@dataclass(frozen=True, slots=True)
class SplitInfo:
    """The ``split.*`` keys of a part. ``number`` counts from 0; absent keys are none.

    ``tensor_count`` is over all parts.
    """

    number: int | None
    count: int
    tensor_count: int | None = None


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What the parts of one model have in common: base names decide, directories do not."""

    prefix: str
    count: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was found to be named as its keys say. ``own_tensors``: tensors of this file."""

    file_name: str
    index: int
    own_tensors: int
    tensor_count: int | None


def check_part(file_name: str, split: SplitInfo) -> GroupKey:
    """The group of a part of a split file. Raises SplitError with the texts of 9.2, first four.

    A blob of a stored split model (``show --modelfile`` names those) has its digest for a name,
    and only its keys tell.
    """
    quoted = f'split GGUF "{file_name}"'
    if is_digest(file_name.rpartition("/")[2]):
        if split.number is None:
            raise SplitError(f"{quoted} is missing split.no metadata")
        return GroupKey("", split.count)
    match = _NAME.fullmatch(file_name.rpartition("/")[2])
    if match is None or int(match[2]) < 1 or int(match[3]) < 1:
        raise SplitError(f"{quoted} must use llama.cpp split filename pattern")
    index, count = int(match[2]) - 1, int(match[3])
    if count != split.count:
        raise SplitError(
            f"{quoted} filename count {count} does not match metadata count {split.count}"
        )
    if split.number is None:
        raise SplitError(f"{quoted} is missing split.no metadata")
    if index != split.number:
        raise SplitError(
            f"{quoted} filename index {index} does not match metadata index {split.number}"
        )
    return GroupKey(match[1], count)


def ordered_parts(key: GroupKey, parts: Sequence[Part]) -> list[Part]:
    """The parts of one group in the order of their data; ``parts`` as they came, not empty.

    Raises SplitError with the texts of 9.2 for a group.
    """
    first = f'split GGUF "{parts[0].file_name}"'
    if len(parts) != key.count:
        raise SplitError(f"{first} has {len(parts)} shards, expected {key.count}")
    by_index: dict[int, Part] = {}
    for part in parts:
        if part.index >= key.count:
            raise SplitError(f'split GGUF "{part.file_name}" has invalid shard index {part.index}')
        if part.index in by_index:
            raise SplitError(f"split GGUF has duplicate shard index {part.index}")
        by_index[part.index] = part
    ordered = [by_index[index] for index in range(key.count)]
    tensors = sum(part.own_tensors for part in ordered)
    expected = ordered[0].tensor_count
    if expected is not None and tensors != expected:
        raise SplitError(f"{first} has {tensors} tensors, expected {expected}")
    return ordered
